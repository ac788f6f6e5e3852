#include "api/agent_ready.h"

#include "common/io.h"
#include "guest-kernel/hull_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct agent_ready {
	struct loop_source *source;
	int fd;
	char *path;
	loop_fn fn;
	void *ctx;
};

/* Nothing is read of what the guest sends, and nobody is heard a second time. */
static void on_connection(void *ctx, uint32_t events)
{
	struct agent_ready *ready = ctx;

	(void)events;
	loop_set_events(ready->source, 0);
	ready->fn(ready->ctx);
}

struct agent_ready *agent_ready_new(struct loop *loop, const char *vsock_path, loop_fn fn, void *ctx, struct error *err)
{
	struct agent_ready *ready = calloc(1, sizeof(*ready));

	if (!ready) {
		error_set_errno(err, ENOMEM, "listen for the agent");
		return NULL;
	}
	*ready = (struct agent_ready){.fn = fn, .ctx = ctx, .fd = -1};
	if (asprintf(&ready->path, "%s_%d", vsock_path, HULL_VSOCK_PORT_READY) < 0)
		abort();
	ready->fd = unix_listen(ready->path, 1, 0600, err);
	if (ready->fd >= 0)
		ready->source = loop_add_fd(loop, ready->fd, EPOLLIN, on_connection, ready);
	if (ready->source)
		return ready;
	if (ready->fd >= 0)
		error_set_errno(err, errno, "listen for the agent");
	agent_ready_free(ready);
	return NULL;
}

void agent_ready_free(struct agent_ready *ready)
{
	if (!ready)
		return;
	loop_remove(ready->source);
	if (ready->fd >= 0)
		unlink(ready->path);
	close_fd(ready->fd);
	free(ready->path);
	free(ready);
}
