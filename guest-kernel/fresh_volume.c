#include "guest-kernel/fresh_volume.h"

#include "common/cleanup.h"
#include "common/io.h"
#include "common/pack.h"
#include "guest-kernel/folder.h"
#include "guest-kernel/passwd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARK  "lost+found"
#define STAGE ".hull-fresh"

static bool has(int folder_fd, const char *name)
{
	struct stat st;

	return fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static DIR *read_folder(int parent_fd, const char *name)
{
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);

	if (!folder)
		close_fd(fd);
	return folder;
}

/* The next that is none of those that every folder has. */
static const char *next_name(DIR *folder)
{
	struct dirent *entry;

	while ((entry = readdir(folder)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			return entry->d_name;
	return NULL;
}

static bool is_fresh(int volume_fd)
{
	DIR *folder = has(volume_fd, MARK) ? read_folder(volume_fd, ".") : NULL;
	bool fresh = folder;
	const char *name;

	while (fresh && (name = next_name(folder)))
		fresh = strcmp(name, MARK) == 0 || strcmp(name, STAGE) == 0;
	if (folder)
		closedir(folder);
	return fresh;
}

static void remove_stage(int volume_fd)
{
	int fd = openat(volume_fd, STAGE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0)
		folder_delete_contents(fd, st.st_dev);
	else
		close_fd(fd);
	unlinkat(volume_fd, STAGE, AT_REMOVEDIR);
}

/* ---- the copy ---- */

static int write_pipe(void *ctx, const void *data, size_t len)
{
	return write_full(*(int *)ctx, data, len);
}

static ssize_t read_pipe(void *ctx, void *data, size_t len)
{
	return read_full(*(int *)ctx, data, len);
}

static void __attribute__((noreturn)) pack_child(int image_fd, int pipe_fd)
{
	struct tar_sink sink = {write_pipe, &pipe_fd};
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d/.", image_fd);
	_exit(pack(path, &sink, NULL, NULL, NULL) < 0);
}

/* What is in the one into the other, which is there. A child reads, and this one writes. */
static int copy(int image_fd, int volume_fd, struct error *err)
{
	static const struct unpack_options options = {.into = true, .keep_owner = true, .trust_modes = true};
	int ends[2], status = 0, r;
	struct tar_source source = {read_pipe, &ends[0]};
	char path[64];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "make a pipe");
	pid = fork();
	if (pid == 0)
		pack_child(image_fd, ends[1]);
	close_fd(ends[1]);
	snprintf(path, sizeof path, "/proc/self/fd/%d/" STAGE, volume_fd);
	r = pid < 0 ? error_set_errno(err, errno, "make a process") : unpack(path, &source, &options, err);
	close_fd(ends[0]); /* who still writes ends by that */
	if (pid > 0)
		waitpid(pid, &status, 0);
	return r == 0 && status != 0 ? error_set(err, EIO, "what is there cannot be read") : r;
}

static int stage(int image_fd, int volume_fd, struct error *err)
{
	int r;

	remove_stage(volume_fd);
	if (mkdirat(volume_fd, STAGE, 0700) < 0)
		return error_set_errno(err, errno, "make " STAGE);
	r = copy(image_fd, volume_fd, err);
	if (r == 0 && syncfs(volume_fd) < 0)
		r = error_set_errno(err, errno, "write it to disk");
	return r;
}

static int go_up(int volume_fd, struct error *err)
{
	DIR *folder = read_folder(volume_fd, STAGE);
	const char *name;
	int r = 0;

	if (!folder)
		return error_set_errno(err, errno, "read " STAGE);
	while (r == 0 && (name = next_name(folder))) {
		if (renameat(dirfd(folder), name, volume_fd, name) < 0)
			r = error_set_errno(err, errno, "move %s", name);
		rewinddir(folder);
	}
	closedir(folder);
	if (r == 0 && unlinkat(volume_fd, STAGE, AT_REMOVEDIR) < 0)
		r = error_set_errno(err, errno, "remove " STAGE);
	return r;
}

/* ---- */

static int dress(int volume_fd, int image_fd, const char *user, struct error *err)
{
	cleanup_free struct passwd_user *found = calloc(1, sizeof *found);
	struct stat as = {.st_mode = 0755};

	if (!found)
		return error_set(err, ENOMEM, "out of memory");
	if (image_fd >= 0 && fstat(image_fd, &as) < 0)
		return error_set_errno(err, errno, "look at what is there");
	if (image_fd < 0 && passwd_lookup("", user, found, NULL) == 0) {
		as.st_uid = found->uid;
		as.st_gid = found->gid;
	}
	if (fchown(volume_fd, as.st_uid, as.st_gid) < 0 || fchmod(volume_fd, as.st_mode & 07777) < 0)
		return error_set_errno(err, errno, "set owner and mode");
	return 0;
}

int fresh_volume_fill(int volume_fd, int image_fd, const char *user, struct error *err)
{
	if (is_fresh(volume_fd)) {
		int r = dress(volume_fd, image_fd, user, err);

		if (r == 0 && image_fd >= 0)
			r = stage(image_fd, volume_fd, err);
		if (r == 0 && unlinkat(volume_fd, MARK, AT_REMOVEDIR) < 0)
			r = error_set_errno(err, errno, "remove " MARK);
		if (r < 0)
			return r;
	}
	return has(volume_fd, STAGE) && !has(volume_fd, MARK) ? go_up(volume_fd, err) : 0;
}
