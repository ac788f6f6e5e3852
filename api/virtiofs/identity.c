/* See identity.h. The maps of a user namespace are written from outside of it, so that a child does it, which stays there. */
#include "api/virtiofs/identity.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* Ids of the namespace, by those of the one outside: 0, and `count` from 1 on. */
struct map {
	unsigned root, first, count;
};

/* Writes the maps of process `pid`. 0 or -errno; in a child, which ends with it. */
typedef int (*write_fn)(pid_t pid, const struct map *uids, const struct map *gids);

/* ---- maps ---- */

/* In one write, as the kernel wants it. */
static int write_map(pid_t pid, const char *name, const struct map *map)
{
	char path[64], text[96];
	cleanup_close int fd = -1;
	int len = snprintf(text, sizeof(text), "0 %u 1\n1 %u %u\n", map->root, map->first, map->count);

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : write_full(fd, text, (size_t)len);
}

static int write_as_root(pid_t pid, const struct map *uids, const struct map *gids)
{
	int r = write_map(pid, "uid_map", uids);

	return r == 0 ? write_map(pid, "gid_map", gids) : r;
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

/* It says itself what is wrong. */
static int run_helper(const char *program, pid_t pid, const struct map *map)
{
	char words[4][16];
	char *argv[] = {(char *)program, words[0], "0", words[1], "1", "1", words[2], words[3], NULL};
	pid_t child;

	snprintf(words[0], sizeof(words[0]), "%d", (int)pid);
	snprintf(words[1], sizeof(words[1]), "%u", map->root);
	snprintf(words[2], sizeof(words[2]), "%u", map->first);
	snprintf(words[3], sizeof(words[3]), "%u", map->count);
	child = fork();
	if (child == 0) {
		execvp(program, argv);
		_exit(errno);
	}
	return child < 0 ? -errno : wait_for(child);
}

static int write_by_helpers(pid_t pid, const struct map *uids, const struct map *gids)
{
	int r = run_helper("newuidmap", pid, uids);

	return r == 0 ? run_helper("newgidmap", pid, gids) : r;
}

/* ---- namespaces ---- */

static int enter(write_fn write_maps, const struct map *uids, const struct map *gids, struct error *err)
{
	cleanup_close int wait_fd = -1, go_fd = -1;
	pid_t self = getpid(), child;
	int pipe_fds[2], r = 0;
	char go;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "cannot make a pipe");
	wait_fd = pipe_fds[0];
	go_fd = pipe_fds[1];
	child = fork();
	if (child < 0)
		return error_set_errno(err, errno, "cannot fork");
	if (child == 0) {
		close(go_fd); /* or we would wait for ourselves */
		_exit(read_full(wait_fd, &go, 1) == 1 ? -write_maps(self, uids, gids) : ECANCELED);
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
	if (r < 0)
		return error_set_errno(err, -r, "cannot say who is who in a user namespace");
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return error_set_errno(err, errno, "cannot become user %u, group %u", uids->root, gids->root);
	return 0;
}

static bool is_of_guest(unsigned id)
{
	return id > IDENTITY_BASE && id <= IDENTITY_BASE + IDENTITY_MAX;
}

int identity_take(uid_t uid, gid_t gid, struct error *err)
{
	struct map uids = {uid, IDENTITY_BASE + 1, IDENTITY_MAX}, gids = {gid, IDENTITY_BASE + 1, IDENTITY_MAX};

	if (is_of_guest(uid) || is_of_guest(gid))
		return error_set(err, EPERM, "it belongs to user %u, group %u, of which one is a machine's, and none of the host's", uid, gid);
	return enter(write_as_root, &uids, &gids, err);
}

/* Of the ids that the file gives to the user, the first range that is large enough; a line is "user:first:count". */
static int find_subordinate(const char *path, const struct passwd *user, struct map *ret, struct error *err)
{
	cleanup_fclose FILE *file = fopen(path, "re");
	char line[256], name[128];
	unsigned first, count;

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%127[^:]:%u:%u", name, &first, &count) != 3 || count < IDENTITY_MAX)
			continue;
		if (strcmp(name, user->pw_name) == 0 || strtoul(name, NULL, 10) == user->pw_uid) {
			ret->first = first;
			ret->count = IDENTITY_MAX;
			return 0;
		}
	}
	return error_set(err, ENOENT, "%s gives no %u ids to user %s: usermod --add-subuids and --add-subgids does", path, IDENTITY_MAX, user->pw_name);
}

int identity_take_subordinate(struct error *err)
{
	const struct passwd *user = getpwuid(geteuid());
	struct map uids = {.root = geteuid()}, gids = {.root = getegid()};
	int r;

	if (!user)
		return error_set(err, ENOENT, "user %u has no name, and so no subordinate ids", (unsigned)geteuid());
	r = find_subordinate("/etc/subuid", user, &uids, err);
	if (r == 0)
		r = find_subordinate("/etc/subgid", user, &gids, err);
	return r == 0 ? enter(write_by_helpers, &uids, &gids, err) : r;
}

int identity_take_again(struct error *err)
{
	struct map same = {0, 1, IDENTITY_MAX};

	return enter(write_as_root, &same, &same, err);
}
