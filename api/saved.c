/* The files of a suspended machine. See saved.h. */
#include "api/saved.h"

#include "api/worker.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FOLDER "suspended"
#define STATE  FOLDER "/state"
#define MEMORY FOLDER "/memory"

static bool is_there(const struct machine *m, const char *name)
{
	char path[512];
	struct stat st;

	return lstat(machine_state_path(m, name, path, sizeof(path)), &st) == 0 && S_ISREG(st.st_mode);
}

bool saved_is_whole(const struct machine *m)
{
	return is_there(m, STATE) && is_there(m, MEMORY);
}

/* ---- removing ---- */

/* Files without a name, whose room the host takes back when they are closed: of large ones, that takes long. */
struct nameless {
	size_t n;
	int *fds;
};

static void close_all(void *ctx)
{
	struct nameless *files = ctx;

	while (files->n)
		close_fd(files->fds[--files->n]);
}

static void nameless_free(void *ctx)
{
	struct nameless *files = ctx;

	close_all(files);
	free(files->fds);
	free(files);
}

static void keep(struct nameless *files, int fd)
{
	if (fd < 0)
		return;
	files->fds = reallocarray(files->fds, files->n + 1, sizeof(*files->fds));
	if (!files->fds)
		abort();
	files->fds[files->n++] = fd;
}

/* 0 or -errno: one that could not be removed. */
static int unlink_all(DIR *folder, struct nameless *files)
{
	struct dirent *entry;

	while ((entry = readdir(folder))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		keep(files, openat(dirfd(folder), entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
		if (unlinkat(dirfd(folder), entry->d_name, 0) < 0)
			return -errno;
	}
	return fsync(dirfd(folder)) < 0 ? -errno : 0;
}

static int empty(struct machine *m, DIR *folder, struct error *err)
{
	struct nameless *files = calloc(1, sizeof(*files));
	int r;

	if (!files)
		abort();
	r = unlink_all(folder, files);
	if (!files->n || worker_begin(&m->hulld->saved_removals, m->hulld->loop, close_all, nameless_free, files) < 0)
		nameless_free(files);
	return r < 0 ? error_set_errno(err, -r, "cannot remove what was saved of machine %s", m->record.name) : 0;
}

int saved_drop(struct machine *m, struct error *err)
{
	char path[512];
	DIR *folder = opendir(machine_state_path(m, FOLDER, path, sizeof(path)));
	int r;

	if (!folder)
		return errno == ENOENT ? 0 : error_set_errno(err, errno, "cannot read %s", path);
	r = empty(m, folder, err);
	closedir(folder);
	return r;
}

void saved_forget(struct machine *m)
{
	struct error err;

	if (saved_drop(m, &err) < 0)
		log_error_object(&err, m->record.name);
}

void saved_end(struct hulld *hulld)
{
	workers_end(&hulld->saved_removals, nameless_free);
}

/* ---- making ---- */

int saved_prepare(struct machine *m, struct error *err)
{
	char path[512];
	cleanup_close int parent = -1;
	int r = make_directories(machine_state_path(m, FOLDER, path, sizeof(path)), 0700, err);

	if (r == 0)
		r = saved_drop(m, err);
	if (r < 0)
		return r;
	parent = open(machine_state_path(m, "", path, sizeof(path)), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0 || fsync(parent) < 0)
		return error_set_errno(err, errno, "cannot write the folder %s", path);
	return 0;
}

json_t *saved_create_request(const struct machine *m)
{
	char state[512], memory[512];

	return json_pack("{s:s, s:s, s:s}", "snapshot_type", "Full", "snapshot_path", machine_state_path(m, STATE, state, sizeof(state)),
		"mem_file_path", machine_state_path(m, MEMORY, memory, sizeof(memory)));
}

json_t *saved_load_request(const struct machine *m)
{
	char state[512], memory[512], vsock[512];

	return json_pack("{s:s, s:{s:s, s:s}, s:b, s:{s:s}}", "snapshot_path", machine_state_path(m, STATE, state, sizeof(state)), "mem_backend",
		"backend_type", "File", "backend_path", machine_state_path(m, MEMORY, memory, sizeof(memory)), "resume_vm", 1, "vsock_override",
		"uds_path", machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)));
}
