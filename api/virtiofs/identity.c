/* See identity.h. The maps of a user namespace are written from outside of it, so that a child does it, which stays there. */
#include "api/virtiofs/identity.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/wait.h>

static bool is_of_guest(unsigned id)
{
	return id > IDENTITY_BASE && id <= IDENTITY_BASE + IDENTITY_MAX;
}

/* In one write, as the kernel wants it. */
static int write_map(pid_t pid, const char *name, unsigned root)
{
	char path[64], map[96];
	cleanup_close int fd = -1;
	int len = snprintf(map, sizeof(map), "0 %u 1\n1 %u %u\n", root, IDENTITY_BASE + 1, IDENTITY_MAX);

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : write_full(fd, map, (size_t)len);
}

/* The child's: once its parent says that it is in its namespace. Ends with the errno, or 0. */
static void __attribute__((noreturn)) write_maps(int go_fd, pid_t parent, uid_t uid, gid_t gid)
{
	char go;
	int r;

	if (read_full(go_fd, &go, 1) != 1)
		_exit(ECANCELED);
	r = write_map(parent, "uid_map", uid);
	if (r == 0)
		r = write_map(parent, "gid_map", gid);
	_exit(-r);
}

/* 0, or -errno. */
static int wait_for(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static int enter(uid_t uid, gid_t gid, struct error *err)
{
	cleanup_close int wait_fd = -1, go_fd = -1;
	pid_t self = getpid(), child;
	int pipe_fds[2], r = 0;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "cannot make a pipe");
	wait_fd = pipe_fds[0];
	go_fd = pipe_fds[1];
	child = fork();
	if (child < 0)
		return error_set_errno(err, errno, "cannot fork");
	if (child == 0) {
		close(go_fd); /* or we would wait for ourselves */
		write_maps(wait_fd, self, uid, gid);
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		r = error_set_errno(err, errno, "cannot have a user namespace");
	else
		write_full(go_fd, "g", 1);
	go_fd = close_fd(go_fd);
	if (r < 0) {
		wait_for(child);
		return r;
	}
	r = wait_for(child);
	return r < 0 ? error_set_errno(err, -r, "cannot say who is who in a user namespace") : 0;
}

int identity_take(uid_t uid, gid_t gid, struct error *err)
{
	int r;

	if (is_of_guest(uid) || is_of_guest(gid))
		return error_set(err, EPERM, "it belongs to user %u, group %u, of which one is a machine's, and none of the host's", uid, gid);
	r = enter(uid, gid, err);
	if (r < 0)
		return r;
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return error_set_errno(err, errno, "cannot become user %u, group %u", uid, gid);
	return 0;
}
