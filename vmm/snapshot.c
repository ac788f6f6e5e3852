/* A snapshot's files: writing both so that they are whole or not there, and reading a state file up to where KVM is needed. */
#include "vmm/snapshot.h"

#include "common/checked.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define HEAD_SECTION   "snapshot"
#define CONFIG_SECTION "config"
#define SECTION_VERSION 1

#define FILE_MODE 0600 /* the guest's memory is in it */

/* What belongs to a monitor, or to one start, is not of the machine. */
static json_t *describe(const struct config *config)
{
	json_t *all = config_get_all(config);

	json_object_del(all, "logger");
	json_object_del(all, "metrics");
	json_object_del(json_object_get(all, "machine-config"), "gdb_socket_path");
	return all;
}

int snapshot_begin(struct state_writer *w, const struct config *config, const struct memory_file_layout *memory, bool pci,
	struct snapshot_head *ret_head, struct error *err)
{
	cleanup(json_decrefp) json_t *description = describe(config);
	cleanup_free char *text = json_dumps(description, JSON_COMPACT);
	struct snapshot_head head = {.memory = *memory, .pci = pci};

	if (!text)
		return error_set(err, ENOMEM, "out of memory");
	if (getrandom(head.id, sizeof(head.id), 0) != (ssize_t)sizeof(head.id))
		return error_set_errno(err, errno, "the host gives no random numbers");
	state_begin(w, HEAD_SECTION, SECTION_VERSION);
	state_put_bytes(w, head.id, sizeof(head.id));
	state_put_u64(w, memory->ram_bytes);
	state_put_u64(w, memory->plug_bytes);
	state_put_u8(w, pci);
	state_end(w);
	state_begin(w, CONFIG_SECTION, SECTION_VERSION);
	state_put_bytes(w, text, (uint32_t)strlen(text));
	state_end(w);
	*ret_head = head;
	return 0;
}

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The folder that the last name of `path` is in. */
static int stat_folder(const char *path, struct stat *ret)
{
	char folder[PATH_MAX];
	int len = (int)(name_of(path) - path);

	if ((size_t)len >= sizeof(folder))
		return -1;
	snprintf(folder, sizeof(folder), "%.*s", len, path);
	return stat(len ? folder : ".", ret);
}

/* Whether two paths name one file, however they are written. */
static bool is_same(const char *one, const char *other)
{
	struct stat a, b;

	return strcmp(name_of(one), name_of(other)) == 0 && stat_folder(one, &a) == 0 && stat_folder(other, &b) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int check_name(const char *path, const char *field, struct error *err)
{
	struct stat st;

	if (*name_of(path) && (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)))
		return 0;
	return error_set_field(err, EISDIR, field, "%s: is a folder, not a file's name", path);
}

/* What would come out only when one of the two has taken the place of what was there. */
static int check_names(const struct snapshot_paths *paths, struct error *err)
{
	int r = check_name(paths->state, "snapshot_path", err);

	if (r == 0)
		r = check_name(paths->memory, "mem_file_path", err);
	if (r == 0 && is_same(paths->state, paths->memory))
		r = error_set_field(err, EINVAL, "mem_file_path", "is the same as snapshot_path");
	return r;
}

/* Both are whole on the disk before either has its name. */
static int write_files(const struct snapshot_paths *paths, struct new_file *state, struct new_file *memory, const struct state_writer *w,
	const struct ram *ram, const struct snapshot_head *head, struct error *err)
{
	int r = new_file_begin(memory, paths->memory, FILE_MODE, err);

	if (r == 0)
		r = memory_file_write(memory->fd, ram, head->id, err);
	if (r == 0 && fsync(memory->fd) < 0)
		r = error_set_errno(err, errno, "%s cannot be written to the disk", paths->memory);
	if (r < 0)
		return error_in_field(err, "mem_file_path");
	r = new_file_begin(state, paths->state, FILE_MODE, err);
	if (r == 0 && (r = write_full(state->fd, w->buf.data, w->buf.len)) < 0)
		error_set_errno(err, -r, "%s cannot be written", paths->state);
	if (r == 0 && fsync(state->fd) < 0)
		r = error_set_errno(err, errno, "%s cannot be written to the disk", paths->state);
	if (r < 0)
		return error_in_field(err, "snapshot_path");
	if (new_file_place(memory, paths->memory, err) < 0)
		return error_in_field(err, "mem_file_path");
	r = new_file_place(state, paths->state, err);
	if (r == 0)
		return 0;
	unlink(paths->memory); /* it belongs to nothing */
	return error_in_field(err, "snapshot_path");
}

int snapshot_commit(const struct snapshot_paths *paths, const struct state_writer *w, const struct ram *ram,
	const struct snapshot_head *head, struct error *err)
{
	struct new_file state = {.fd = -1}, memory = {.fd = -1};
	int r = check_names(paths, err);

	if (r == 0)
		r = write_files(paths, &state, &memory, w, ram, head, err);
	new_file_forget(&state);
	new_file_forget(&memory);
	return r;
}

static int read_head(struct state_reader *r, struct snapshot_head *ret, struct error *err)
{
	int result = state_begin_section(r, HEAD_SECTION, SECTION_VERSION, err);
	const uint8_t *id;
	uint32_t len;

	if (result < 0)
		return result;
	len = state_get_bytes(r, &id);
	if (len == sizeof(ret->id))
		memcpy(ret->id, id, len);
	else
		r->failed = true;
	ret->memory.ram_bytes = state_get_u64(r);
	ret->memory.plug_bytes = state_get_u64(r);
	ret->pci = state_get_u8(r);
	return state_end_section(r, err);
}

static int read_config(struct state_reader *r, struct config *ret, struct error *err)
{
	int result = state_begin_section(r, CONFIG_SECTION, SECTION_VERSION, err);
	const uint8_t *text;
	uint32_t len;

	if (result < 0)
		return result;
	len = state_get_bytes(r, &text);
	result = state_end_section(r, err);
	if (result == 0 && len > CONFIG_FILE_MAX)
		return error_set(err, EFBIG, "the saved configuration has %u bytes", len);
	return result < 0 ? result : config_parse_object((const char *)text, len, ret, err);
}

/* The memory is what the configuration says, and what vmm/memory_file.h computes with cannot overflow. */
static int check_head(const struct snapshot *snapshot, struct error *err)
{
	const struct config *config = &snapshot->config;
	uint64_t plug_mib = config->hotplug_memory ? (uint64_t)config->hotplug_memory->total_size_mib : 0;

	if (snapshot->head.memory.ram_bytes != (uint64_t)config->machine.mem_size_mib << 20 ||
		snapshot->head.memory.plug_bytes != plug_mib << 20)
		return error_set(err, EINVAL, "the saved memory is not of the size that the saved configuration has");
	return 0;
}

int snapshot_parse(struct buf *data, struct snapshot *ret, struct error *err)
{
	struct snapshot snapshot = {.data = *data, .memory_fd = -1};
	int r;

	*data = (struct buf){0};
	state_reader_init(&snapshot.reader, snapshot.data.data, snapshot.data.len);
	r = read_head(&snapshot.reader, &snapshot.head, err);
	if (r == 0)
		r = read_config(&snapshot.reader, &snapshot.config, err);
	if (r == 0)
		r = check_head(&snapshot, err);
	if (r < 0)
		snapshot_done(&snapshot);
	*ret = snapshot;
	return r;
}

/* Whose fault it is: of a configuration `err` names a field, which is one of the snapshot's. */
static int blame_state(const char *path, struct error *err)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];

	error_line(err, line, sizeof(line));
	return error_set_field(err, err->errnum, "snapshot_path", "%s: %s", path, line);
}

static int read_state(const char *path, struct buf *ret, struct error *err)
{
	struct stat st;
	int r;

	/* Of a FIFO, somebody would be waited for. */
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "is no regular file");
	r = buf_read_file(ret, path);
	if (r == -EFBIG)
		return error_set(err, EFBIG, "has more than %u bytes", SNAPSHOT_BYTES_MAX);
	return r < 0 ? error_set(err, -r, "%s", strerror(-r)) : 0;
}

int snapshot_open(const struct snapshot_paths *paths, struct snapshot *ret, struct error *err)
{
	struct buf data;
	int r;

	*ret = (struct snapshot){.memory_fd = -1};
	buf_init(&data, SNAPSHOT_BYTES_MAX);
	r = read_state(paths->state, &data, err);
	if (r == 0)
		r = snapshot_parse(&data, ret, err);
	buf_done(&data);
	if (r < 0)
		return blame_state(paths->state, err);
	r = memory_file_open(paths->memory, &ret->head.memory, ret->head.id, err);
	if (r < 0) {
		snapshot_done(ret);
		return error_in_field(err, "mem_backend");
	}
	ret->memory_fd = r;
	return 0;
}

int snapshot_check_end(const struct snapshot *snapshot, struct error *err)
{
	size_t left = snapshot->reader.len - snapshot->reader.pos;

	return left ? error_set(err, EINVAL, "the saved state has %zu bytes behind its end", left) : 0;
}

void snapshot_done(struct snapshot *snapshot)
{
	config_done(&snapshot->config);
	buf_done(&snapshot->data);
	close_fd(snapshot->memory_fd);
	*snapshot = (struct snapshot){.memory_fd = -1};
}
