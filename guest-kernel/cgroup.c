/* Cgroups of executed programs (Linux, Documentation/admin-guide/cgroup-v2.rst: cgroup.procs, cgroup.kill, pids.max, cpu.weight). */
#include "guest-kernel/cgroup.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_BYTES	16
#define THREADS_MAX_FILE "/proc/sys/kernel/threads-max"

struct cgroup {
	struct cgroups *cgroups;
	unsigned number; /* its name */
	int fd;		 /* its folder; -1 once it was given up */
	struct cgroup *next_left;
};

struct cgroups {
	char *path;
	struct cgroup_shares shares;
	int fd; /* of `path`; -1: not opened yet, or not there */
	unsigned next;
	struct cgroup *left; /* given up, but there are processes in them */
};

struct cgroups *cgroups_new(const char *path, struct cgroup_shares shares)
{
	struct cgroups *cgroups = calloc(1, sizeof *cgroups);

	if (cgroups)
		*cgroups = (struct cgroups){.path = strdup(path), .shares = shares, .fd = -1};
	if (cgroups && !cgroups->path) {
		free(cgroups);
		return NULL;
	}
	return cgroups;
}

static char *name_of(const struct cgroup *cgroup, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, "%u", cgroup->number);
	return name;
}

/* True when it is gone. */
static bool remove_now(const struct cgroup *cgroup)
{
	char name[NAME_BYTES];

	return unlinkat(cgroup->cgroups->fd, name_of(cgroup, name), AT_REMOVEDIR) == 0 || errno == ENOENT;
}

void cgroups_sweep(struct cgroups *cgroups)
{
	struct cgroup **link = &cgroups->left;

	while (*link) {
		struct cgroup *cgroup = *link;

		if (!remove_now(cgroup)) {
			link = &cgroup->next_left;
			continue;
		}
		*link = cgroup->next_left;
		free(cgroup);
	}
}

void cgroups_free(struct cgroups *cgroups)
{
	if (!cgroups)
		return;
	cgroups_sweep(cgroups);
	while (cgroups->left) {
		struct cgroup *cgroup = cgroups->left;

		cgroups->left = cgroup->next_left;
		free(cgroup);
	}
	if (cgroups->fd >= 0)
		rmdir(cgroups->path);
	close_fd(cgroups->fd);
	free(cgroups->path);
	free(cgroups);
}

/* Where the kernel has no such file, it has no such limit. */
static void write_in(int folder_fd, const char *file, const char *text)
{
	cleanup_close int fd = openat(folder_fd, file, O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		write_full(fd, text, strlen(text));
}

static void limit_tasks(int folder_fd, unsigned sixteenths)
{
	cleanup_close int fd = sixteenths ? open(THREADS_MAX_FILE, O_RDONLY | O_CLOEXEC) : -1;
	char text[24] = "";
	unsigned long long tasks;

	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		return;
	tasks = strtoull(text, NULL, 10) / 16 * sixteenths;
	if (!tasks)
		return;
	snprintf(text, sizeof text, "%llu", tasks);
	write_in(folder_fd, "pids.max", text);
}

/* What is counted here, for who asks, and what is limited. One by one: a kernel may be without one of them. */
static void prepare_root(const struct cgroups *cgroups)
{
	write_in(cgroups->fd, "../cgroup.subtree_control", "+memory");
	write_in(cgroups->fd, "../cgroup.subtree_control", "+pids");
	/* However many want a processor, and in whatever sessions: together they weigh as much as one task of hull-init's. */
	write_in(cgroups->fd, "../cgroup.subtree_control", "+cpu");
	limit_tasks(cgroups->fd, cgroups->shares.all);
	if (cgroups->shares.each) {
		write_in(cgroups->fd, "cgroup.subtree_control", "+pids");
		write_in(cgroups->fd, "cgroup.subtree_control", "+cpu");
	}
}

static bool open_root(struct cgroups *cgroups)
{
	if (cgroups->fd >= 0)
		return true;
	if (mkdir(cgroups->path, 0755) < 0 && errno != EEXIST)
		return false;
	cgroups->fd = open(cgroups->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* A folder of that name need not be one. */
	if (cgroups->fd >= 0 && faccessat(cgroups->fd, "cgroup.procs", W_OK, 0) < 0)
		cgroups->fd = close_fd(cgroups->fd);
	if (cgroups->fd >= 0)
		prepare_root(cgroups);
	return cgroups->fd >= 0;
}

struct cgroup *cgroup_new(struct cgroups *cgroups)
{
	struct cgroup *cgroup = open_root(cgroups) ? calloc(1, sizeof *cgroup) : NULL;
	char name[NAME_BYTES];

	if (!cgroup)
		return NULL;
	*cgroup = (struct cgroup){.cgroups = cgroups, .number = cgroups->next++, .fd = -1};
	if (mkdirat(cgroups->fd, name_of(cgroup, name), 0755) == 0)
		cgroup->fd = openat(cgroups->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cgroup->fd >= 0) {
		limit_tasks(cgroup->fd, cgroups->shares.each);
		return cgroup;
	}
	cgroup_free(cgroup);
	return NULL;
}

int cgroup_fd(const struct cgroup *cgroup)
{
	return cgroup ? cgroup->fd : -1;
}

void cgroup_kill(const struct cgroup *cgroup)
{
	cleanup_close int fd = cgroup ? openat(cgroup->fd, "cgroup.kill", O_WRONLY | O_CLOEXEC) : -1;

	if (fd >= 0)
		write_full(fd, "1", 1);
}

void cgroup_free(struct cgroup *cgroup)
{
	if (!cgroup)
		return;
	cgroup->fd = close_fd(cgroup->fd);
	if (remove_now(cgroup)) {
		free(cgroup);
		return;
	}
	cgroup->next_left = cgroup->cgroups->left;
	cgroup->cgroups->left = cgroup;
}
