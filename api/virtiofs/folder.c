/* See folder.h. */
#include "api/virtiofs/folder.h"

#include "common/cleanup.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

/* The part of `path` below `allowed`, "." where they are the same; NULL: it is not below. */
static const char *part_below(const char *allowed, const char *path)
{
	size_t len = strlen(allowed);

	while (len > 0 && allowed[len - 1] == '/')
		len--;
	if (strncmp(path, allowed, len) != 0 || (path[len] && path[len] != '/'))
		return NULL;
	path += len + strspn(path + len, "/");
	return *path ? path : ".";
}

int folder_open(const char *allowed, const char *path, struct error *err)
{
	const struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	const char *below = part_below(allowed, path);
	cleanup_close int allowed_fd = -1;
	long fd;

	if (!below)
		return error_set(err, EXDEV, "%s: is not below %s", path, allowed);
	allowed_fd = open(allowed, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (allowed_fd < 0)
		return error_set_errno(err, errno, "%s", allowed);
	do
		fd = syscall(SYS_openat2, allowed_fd, below, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN); /* something was renamed meanwhile */
	if (fd < 0 && errno == EXDEV)
		return error_set(err, EXDEV, "%s: leads out of %s", path, allowed);
	return fd < 0 ? error_set_errno(err, errno, "%s", path) : (int)fd;
}

int folder_mount(int fd, bool read_only, struct error *err)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (read_only ? MOUNT_ATTR_RDONLY : 0)};
	cleanup_close int mount_fd = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (mount_fd < 0 || mount_setattr(mount_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return error_set_errno(err, errno, "cannot make a mount of the folder");
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_set_errno(err, errno, "cannot have a mount namespace");
	if (move_mount(mount_fd, "", AT_FDCWD, FOLDER_MOUNT_POINT, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_set_errno(err, errno, "cannot mount the folder at %s", FOLDER_MOUNT_POINT);
	return 0;
}
