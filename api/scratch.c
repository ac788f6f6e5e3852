/* Scratch disks: copies of templates that mkfs.ext4 has made. See scratch.h. */
#include "api/scratch.h"

#include "api/ext4.h"
#include "api/machine.h"
#include "api/worker.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPLATES_KEPT 16

struct scratch {
	struct hulld *hulld;
	scratch_fn fn; /* NULL: it was cancelled while it is copied */
	void *ctx;
	char id[MACHINE_ID_BYTES + 1];
	int64_t size_mib;
	struct ext4_making *template; /* while that is made */

	/* While it is copied. */
	int from, to; /* the worker's until it is done */
	int result;   /* 0 or -errno */
};

/* <state>/scratch/NAME; "" is the folder. Returns `ret`. */
static char *template_path(const struct hulld *hulld, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/scratch/%s", hulld->options.state, name);
	return ret;
}

static char *template_of(const struct scratch *s, char *ret, size_t size)
{
	char name[32];

	snprintf(name, sizeof(name), "%lld.ext4", (long long)s->size_mib);
	return template_path(s->hulld, name, ret, size);
}

/* Of a template that is being made: the machine's own, so that two do not write to one file. */
static char *template_new(const struct scratch *s, char *ret, size_t size)
{
	char name[MACHINE_ID_BYTES + 8];

	snprintf(name, sizeof(name), "%s.new", s->id);
	return template_path(s->hulld, name, ret, size);
}

static char *disk_path(const struct scratch *s, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/machines/%s/%s", s->hulld->options.state, s->id, name);
	return ret;
}

static void scratch_free(void *ctx)
{
	struct scratch *s = ctx;

	close_fd(s->from);
	close_fd(s->to);
	free(s);
}

/* Ends it. */
static void tell(struct scratch *s, const char *reason)
{
	scratch_fn fn = s->fn;
	void *ctx = s->ctx;
	char text[EXT4_REASON_MAX];

	snprintf(text, sizeof(text), "%s", reason ? reason : "");
	scratch_free(s);
	if (fn)
		fn(ctx, reason ? text : NULL);
}

/* ---- the copy ---- */

/* By sendfile(), as copy_file_range() is only for two files of one file system. */
static int copy_range(int from, int to, off_t begin, off_t end)
{
	if (lseek(to, begin, SEEK_SET) < 0)
		return -errno;
	while (begin < end) {
		ssize_t n = sendfile(to, from, &begin, (size_t)(end - begin));

		if (n <= 0)
			return n < 0 ? -errno : -EIO; /* it is shorter than it was */
	}
	return 0;
}

/* What there is of it: the rest of a sparse file is zeros without that. A file system that can shares it. */
static int copy_content(int from, int to)
{
	off_t data = 0, hole;
	int r = 0;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	while (r == 0 && (data = lseek(from, data, SEEK_DATA)) >= 0) {
		hole = lseek(from, data, SEEK_HOLE);
		r = hole < 0 ? -errno : copy_range(from, to, data, hole);
		data = hole;
	}
	return r == 0 && errno != ENXIO ? -errno : r; /* ENXIO: no more data (lseek(2)) */
}

static void copy(void *ctx)
{
	struct scratch *s = ctx;

	s->result = copy_content(s->from, s->to);
	if (s->result == 0 && fdatasync(s->to) < 0)
		s->result = -errno;
}

static void on_copied(void *ctx);

/* 0 or -errno. */
static int begin_copy(struct scratch *s)
{
	char path[512];

	s->from = open(template_of(s, path, sizeof(path)), O_RDONLY | O_CLOEXEC);
	if (s->from < 0)
		return -errno;
	s->to = ext4_make_sparse(disk_path(s, "scratch.new", path, sizeof(path)), s->size_mib);
	if (s->to < 0)
		return s->to;
	return worker_begin(&s->hulld->scratch_copies, s->hulld->loop, copy, on_copied, s);
}

static void on_copied(void *ctx)
{
	struct scratch *s = ctx;
	char from[512], to[512], folder[512];

	if (s->fn && s->result < 0)
		unlink(disk_path(s, "scratch.new", from, sizeof(from)));
	else if (s->fn)
		s->result = ext4_rename(disk_path(s, "scratch.new", from, sizeof(from)),
			disk_path(s, "scratch.ext4", to, sizeof(to)), disk_path(s, "", folder, sizeof(folder)));
	tell(s, s->result < 0 ? strerror(-s->result) : NULL);
}

/* ---- the template ---- */

static void remove_oldest(const struct hulld *hulld)
{
	char path[512], oldest[512] = "";
	struct timespec first = {0};
	struct dirent *entry;
	unsigned n = 0;
	struct stat st;
	DIR *folder = opendir(template_path(hulld, "", path, sizeof(path)));

	while (folder && (entry = readdir(folder))) {
		template_path(hulld, entry->d_name, path, sizeof(path));
		if (!strstr(entry->d_name, ".ext4") || stat(path, &st) < 0)
			continue;
		if (!n++ || st.st_mtim.tv_sec < first.tv_sec ||
			(st.st_mtim.tv_sec == first.tv_sec && st.st_mtim.tv_nsec < first.tv_nsec)) {
			first = st.st_mtim;
			snprintf(oldest, sizeof(oldest), "%s", path);
		}
	}
	if (folder)
		closedir(folder);
	if (n > TEMPLATES_KEPT)
		unlink(oldest);
}

static void on_template(void *ctx, const char *reason)
{
	struct scratch *s = ctx;
	char from[512], to[512], folder[512];
	int r;

	s->template = NULL;
	if (reason) {
		tell(s, reason);
		return;
	}
	r = ext4_rename(template_new(s, from, sizeof(from)), template_of(s, to, sizeof(to)),
		template_path(s->hulld, "", folder, sizeof(folder)));
	if (r == 0) {
		r = begin_copy(s);
		remove_oldest(s->hulld);
	}
	if (r < 0)
		tell(s, strerror(-r));
}

/* 0 or -errno with `err` set. */
static int begin_template(struct scratch *s, struct error *err)
{
	char path[512];

	s->template = ext4_make(s->hulld->loop, template_new(s, path, sizeof(path)), s->size_mib, EXT4_STAYS, on_template, s, err);
	return s->template ? 0 : -err->errnum;
}

/* ---- */

struct scratch *scratch_make(const struct machine *m, scratch_fn fn, void *ctx, struct error *err)
{
	struct scratch *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		abort();
	*s = (struct scratch){.hulld = m->hulld, .fn = fn, .ctx = ctx, .size_mib = machine_running_spec(m)->disk_mib, 
		.from = -1, .to = -1};
	snprintf(s->id, sizeof(s->id), "%s", m->record.id);
	r = begin_copy(s);
	if (r < 0 && s->from < 0)
		r = begin_template(s, err);
	else if (r < 0)
		error_set(err, -r, "%s", strerror(-r));
	if (r == 0)
		return s;
	scratch_free(s);
	return NULL;
}

void scratch_cancel(struct scratch *s)
{
	char path[512];

	if (!s)
		return;
	s->fn = NULL;
	if (s->to >= 0) { /* on_copied() frees it. By then the name may be that of the next copy */
		unlink(disk_path(s, "scratch.new", path, sizeof(path)));
		return;
	}
	ext4_cancel(s->template);
	scratch_free(s);
}

int scratch_prepare(const struct hulld *hulld, struct error *err)
{
	char path[512];
	struct dirent *entry;
	DIR *folder;
	int r = make_directories(template_path(hulld, "", path, sizeof(path)), 0700, err);

	if (r < 0)
		return r;
	folder = opendir(path);
	while (folder && (entry = readdir(folder)))
		if (strstr(entry->d_name, ".new"))
			unlink(template_path(hulld, entry->d_name, path, sizeof(path)));
	if (folder)
		closedir(folder);
	return 0;
}

void scratch_wait(struct hulld *hulld)
{
	workers_end(&hulld->scratch_copies, scratch_free);
}
