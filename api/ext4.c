#include "api/ext4.h"

#include "api/process.h"
#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ext4_making {
	ext4_fn fn;
	void *ctx;
	char *path;
	struct process *mkfs;
	int output; /* of mkfs.ext4 */
};

static void making_free(struct ext4_making *making)
{
	close_fd(making->output);
	free(making->path);
	free(making);
}

/* What is there may still be written to by a mkfs.ext4 of a hulld that was killed. */
int ext4_make_sparse(const char *path, int64_t size_mib)
{
	cleanup_close int fd = -1;
	int r;

	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0 && ftruncate(fd, (off_t)size_mib << 20) == 0)
		return steal_fd(&fd);
	r = -errno;
	if (fd >= 0)
		unlink(path);
	return r;
}

int ext4_sync_folder(const char *folder)
{
	cleanup_close int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int ext4_rename(const char *from, const char *to, const char *folder)
{
	return rename(from, to) < 0 ? -errno : ext4_sync_folder(folder);
}

/* The last line that mkfs.ext4 has printed. */
static void read_last_line(int fd, char *ret, size_t size)
{
	ssize_t n = pread_full(fd, ret, size - 1, 0);
	char *newline;

	ret[n > 0 ? n : 0] = '\0';
	while ((newline = strrchr(ret, '\n')) && !newline[1])
		*newline = '\0';
	if (newline)
		memmove(ret, newline + 1, strlen(newline));
}

static void on_mkfs_end(void *ctx, int status)
{
	struct ext4_making *making = ctx;
	char line[EXT4_REASON_MAX - 32], reason[EXT4_REASON_MAX];
	ext4_fn fn = making->fn;

	process_free(making->mkfs);
	if (status != 0) {
		unlink(making->path);
		read_last_line(making->output, line, sizeof(line));
		snprintf(reason, sizeof(reason), "mkfs.ext4 failed: %s", line);
	}
	ctx = making->ctx;
	making_free(making);
	fn(ctx, status != 0 ? reason : NULL);
}

/* All that is not written is zeros: no inode table has to be zeroed, now or by a guest's kernel (mke2fs(8)). 0 or -errno with `err` set. */
static int begin_mkfs(struct loop *loop, struct ext4_making *making, enum ext4_kind kind, struct error *err)
{
	char program[256];
	const char *stays[] = {program, "-q", "-F", "-m", "0", "-O", "^resize_inode", "-E",
		"lazy_itable_init=1,lazy_journal_init=1,nodiscard", making->path, NULL};
	/* Blocks of 4 KiB at any size, as it may become a large one. */
	const char *grows[] = {program, "-q", "-F", "-m", "0", "-T", "default", "-O", "resize_inode", "-e", "remount-ro", "-E",
		"assume_storage_prezeroed=1,nodiscard", making->path, NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct process_id id;
	int gate;

	making->output = memfd_create("mkfs.ext4", MFD_CLOEXEC);
	if (null < 0 || making->output < 0 || find_program("mkfs.ext4", program, sizeof(program)) < 0)
		return error_set(err, ENOENT, "mkfs.ext4 is not installed");
	making->mkfs = process_spawn(loop, kind == EXT4_GROWS ? grows : stays, (int[]){null, making->output, making->output}, 3, on_mkfs_end,
		making, &id, &gate, err);
	if (!making->mkfs)
		return -err->errnum;
	process_open_gate(gate);
	return 0;
}

struct ext4_making *ext4_make(
	struct loop *loop, const char *path, int64_t size_mib, enum ext4_kind kind, ext4_fn fn, void *ctx, struct error *err)
{
	cleanup_close int file = ext4_make_sparse(path, size_mib);
	struct ext4_making *making = calloc(1, sizeof(*making));

	if (!making)
		abort();
	*making = (struct ext4_making){.fn = fn, .ctx = ctx, .path = strdup(path), .output = -1};
	if (!making->path)
		abort();
	if (file < 0) {
		error_set(err, -file, "%s", strerror(-file));
	} else if (begin_mkfs(loop, making, kind, err) < 0) {
		unlink(path);
	} else {
		return making;
	}
	making_free(making);
	return NULL;
}

void ext4_cancel(struct ext4_making *making)
{
	if (!making)
		return;
	process_kill_and_free(making->mkfs);
	unlink(making->path);
	making_free(making);
}
