/* Freezing cgroups (Linux, Documentation/admin-guide/cgroup-v2.rst: cgroup.freeze, cgroup.events).
 *
 * Theory of operation. All that the machine's user runs is below the folders here; hull-init and its errands are not. The
 * kernel freezes in its own time and says so in cgroup.events, whose poll() has EPOLLPRI after each change. `waits` is of the
 * first folder that does not stand still yet. */
#include "guest-kernel/freezer.h"

#include "common/checked.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const char *const folders[] = {"/sys/fs/cgroup/hull.workload", "/sys/fs/cgroup/hull.exec"};

struct freezer {
	struct loop *loop;
	enum { THAWED, FREEZING, FROZEN } state;
	int events_fd;
	struct loop_source *waits;
	struct loop_source *soon; /* looks again, first of all */
	loop_fn fn;
	void *ctx;
};

static int open_in(const char *folder, const char *name, int flags)
{
	char path[128];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	return open(path, flags | O_CLOEXEC);
}

/* Where nothing ever ran there is no such cgroup yet; what comes into it is to stand still, too. */
static void make(const char *folder)
{
	if (access("/sys/fs/cgroup/cgroup.procs", W_OK) == 0)
		mkdir(folder, 0755);
}

/* 0, also where the kernel has no cgroups; -errno. */
static int set(const char *folder, const char *value)
{
	cleanup_close int fd = open_in(folder, "cgroup.freeze", O_WRONLY);
	cleanup_close int events_fd = fd < 0 ? open_in(folder, "cgroup.events", O_RDONLY) : -1;

	if (fd < 0)
		return events_fd < 0 ? 0 : -ENOTSUP;
	return write_full(fd, value, 1);
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

static void look(struct freezer *freezer)
{
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		freezer->events_fd = open_in(folders[i], "cgroup.events", O_RDONLY);
		if (freezer->events_fd >= 0) {
			/* Watched first, so that no change is missed. */
			freezer->waits = loop_add_fd(freezer->loop, freezer->events_fd, EPOLLPRI, on_events, freezer);
			if (!freezer->waits || !stands_still(freezer->events_fd))
				return; /* without a watch it is the deadline that ends it */
		}
		stop_waiting(freezer);
	}
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

	if (freezer->state == THAWED)
		for (size_t i = 0; i < ARRAY_SIZE(folders) && r == 0; i++) {
			make(folders[i]);
			r = set(folders[i], "1");
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
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		set(folders[i], "0");
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
