/* Freezing cgroups (Linux, Documentation/admin-guide/cgroup-v2.rst: cgroup.freeze, cgroup.events).
 *
 * Theory of operation. All that the machine's user runs is in cgroups below the root: in ours for the workload and executed
 * programs, or in those that a container engine has made beside them. hull-init is in the root, and its errands in one that is
 * left out. The kernel freezes in its own time and says so in cgroup.events, whose poll() has EPOLLPRI after each change.
 * `waits` is of the first cgroup that does not stand still yet. */
#include "guest-kernel/freezer.h"

#include "common/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define ROOT "/sys/fs/cgroup"

struct freezer {
	struct loop *loop;
	enum { THAWED, FREEZING, FROZEN } state;
	int events_fd;
	struct loop_source *waits;
	struct loop_source *soon; /* looks again, first of all */
	loop_fn fn;
	void *ctx;
};

static int open_in(const char *name, const char *file, int flags)
{
	char path[NAME_MAX + 64];

	snprintf(path, sizeof path, ROOT "/%s/%s", name, file);
	return open(path, flags | O_CLOEXEC);
}

/* In a machine, all but our own; where the agent runs in a test, on a host that is not its own, only what is ours. */
static bool is_users(const struct dirent *entry)
{
	bool ours = strncmp(entry->d_name, "hull.", 5) == 0;

	return entry->d_type == DT_DIR && entry->d_name[0] != '.' && strcmp(entry->d_name, "hull.agent") != 0 &&
	       (ours || getpid() == 1);
}

/* Until `act` does not return 0, which is then returned. */
static int each(struct freezer *freezer, int (*act)(struct freezer *freezer, const char *name))
{
	DIR *root = opendir(ROOT);
	struct dirent *entry;
	int r = 0;

	while (root && r == 0 && (entry = readdir(root)))
		if (is_users(entry))
			r = act(freezer, entry->d_name);
	if (root)
		closedir(root);
	return r;
}

/* 0, also for one that is gone, and for a folder that is no cgroup; -errno. */
static int set(const char *name, const char *value)
{
	cleanup_close int fd = open_in(name, "cgroup.freeze", O_WRONLY);
	cleanup_close int events_fd = fd < 0 ? open_in(name, "cgroup.events", O_RDONLY) : -1;

	if (fd < 0)
		return events_fd < 0 ? 0 : -ENOTSUP;
	return write_full(fd, value, 1);
}

static int freeze_one(struct freezer *freezer, const char *name)
{
	(void)freezer;
	return set(name, "1");
}

static int thaw_one(struct freezer *freezer, const char *name)
{
	(void)freezer;
	set(name, "0");
	return 0;
}

/* Where nothing was ever executed there is no such cgroup yet; what comes into it is to stand still, too. */
static void make_execs(void)
{
	if (access(ROOT "/cgroup.procs", W_OK) == 0)
		mkdir(ROOT "/hull.exec", 0755);
}

static void stop_waiting(struct freezer *freezer)
{
	loop_remove(freezer->waits);
	freezer->waits = NULL;
	freezer->events_fd = close_fd(freezer->events_fd);
}

static bool stands_still(int events_fd)
{
	char text[256];
	ssize_t n = pread_full(events_fd, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return strstr(text, "frozen 1");
}

static void look(struct freezer *freezer);

static void on_events(void *ctx, uint32_t events)
{
	struct freezer *freezer = ctx;

	(void)events;
	if (!stands_still(freezer->events_fd))
		return;
	stop_waiting(freezer);
	look(freezer);
}

/* 1: it does not stand still yet, and is watched. Without a watch it is the deadline that ends it. */
static int wait_for(struct freezer *freezer, const char *name)
{
	set(name, "1"); /* it may have been made meanwhile */
	freezer->events_fd = open_in(name, "cgroup.events", O_RDONLY);
	if (freezer->events_fd >= 0) {
		/* Watched first, so that no change is missed. */
		freezer->waits = loop_add_fd(freezer->loop, freezer->events_fd, EPOLLPRI, on_events, freezer);
		if (!freezer->waits || !stands_still(freezer->events_fd))
			return 1;
	}
	stop_waiting(freezer);
	return 0;
}

static void look(struct freezer *freezer)
{
	if (each(freezer, wait_for) != 0)
		return;
	freezer->state = FROZEN;
	freezer->fn(freezer->ctx);
}

static void on_soon(void *ctx)
{
	struct freezer *freezer = ctx;

	if (freezer->state == FREEZING && !freezer->waits)
		look(freezer);
}

int freezer_freeze(struct freezer *freezer, struct error *err)
{
	int r = 0;

	if (freezer->state == THAWED) {
		make_execs();
		r = each(freezer, freeze_one);
	}
	if (r < 0) {
		freezer_thaw(freezer);
		return error_set_errno(err, -r, "the kernel does not freeze");
	}
	if (freezer->state == FROZEN)
		return 0;
	freezer->state = FREEZING;
	loop_timer_arm(freezer->soon, 0);
	return 0;
}

void freezer_thaw(struct freezer *freezer)
{
	stop_waiting(freezer);
	freezer->state = THAWED;
	each(freezer, thaw_one);
}

bool freezer_is_frozen(const struct freezer *freezer)
{
	return freezer->state == FROZEN;
}

bool freezer_is_held(const struct freezer *freezer)
{
	return freezer->state != THAWED;
}

struct freezer *freezer_new(struct loop *loop, loop_fn fn, void *ctx)
{
	struct freezer *freezer = calloc(1, sizeof *freezer);

	if (!freezer)
		return NULL;
	*freezer = (struct freezer){.loop = loop, .events_fd = -1, .fn = fn, .ctx = ctx};
	freezer->soon = loop_add_timer(loop, on_soon, freezer);
	if (freezer->soon)
		return freezer;
	free(freezer);
	return NULL;
}

void freezer_free(struct freezer *freezer)
{
	if (!freezer)
		return;
	stop_waiting(freezer);
	loop_remove(freezer->soon);
	free(freezer);
}
