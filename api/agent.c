/* The agent's client: "CONNECT 1024\n", "OK <port>\n", request, reply, each step with one deadline over all.
 *
 * The monitor answers OK, but what follows comes from the guest: anything may be in it, and no more of it is read than
 * a reply has bytes. */
#include "api/agent.h"

#include "common/io.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREETING_MAX 32
#define RETRY_NS     5000000ull /* while the monitor has as many clients waiting as it takes */

struct agent_call {
	struct loop *loop;
	int fd;
	struct loop_source *events, *timer, *retry;
	char *vsock_path;
	struct hull_agent_request request;
	bool greeted; /* OK was read */
	char in[GREETING_MAX];
	size_t in_len;
	int failure; /* to be told by the timer: -errno */
	agent_fn fn; /* or */
	agent_open_fn open_fn;
	void *ctx;
};

void agent_cancel(struct agent_call *call)
{
	if (!call)
		return;
	loop_remove(call->events);
	loop_remove(call->timer);
	loop_remove(call->retry);
	close_fd(call->fd);
	free(call->vsock_path);
	free(call);
}

static void finish(struct agent_call *call, int r)
{
	agent_fn fn = call->fn;
	agent_open_fn open_fn = call->open_fn;
	void *ctx = call->ctx;
	int fd = open_fn && r == 0 ? steal_fd(&call->fd) : -1;

	agent_cancel(call);
	if (open_fn)
		open_fn(ctx, r, fd);
	else
		fn(ctx, r);
}

static void on_timer(void *ctx)
{
	struct agent_call *call = ctx;

	finish(call, call->failure);
}

/* Reads byte by byte up to the newline, so that none of the guest's bytes is taken with it. */
static int read_greeting(struct agent_call *call)
{
	char c;

	for (;;) {
		ssize_t n = read(call->fd, &c, 1);

		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		if (c == '\n')
			break;
		if (call->in_len == sizeof(call->in) - 1)
			return -EPROTO;
		call->in[call->in_len++] = c;
	}
	if (strncmp(call->in, "OK ", 3) != 0)
		return -EPROTO;
	call->greeted = true;
	call->in_len = 0;
	/* An empty socket takes 12 bytes at once. */
	return write(call->fd, &call->request, sizeof(call->request)) == sizeof(call->request) ? 0 : -ECONNRESET;
}

static int read_reply(struct agent_call *call, struct hull_agent_reply *ret)
{
	ssize_t n = read(call->fd, call->in + call->in_len, sizeof(*ret) - call->in_len);

	if (n <= 0)
		return n < 0 ? -errno : -ECONNRESET;
	call->in_len += (size_t)n;
	if (call->in_len < sizeof(*ret))
		return -EAGAIN;
	memcpy(ret, call->in, sizeof(*ret));
	return le32toh(ret->magic) == HULL_AGENT_MAGIC ? 0 : -EPROTO;
}

static void on_events(void *ctx, uint32_t events)
{
	struct agent_call *call = ctx;
	struct hull_agent_reply reply;
	int r = call->greeted ? 0 : read_greeting(call);

	(void)events;
	if (r == 0)
		r = read_reply(call, &reply);
	if (r == 0)
		finish(call, (int)(le32toh(reply.status) & 0xffff));
	else if (r != -EAGAIN && r != -EINTR)
		finish(call, r);
}

static int begin(struct agent_call *call)
{
	char hello[32];
	int len = snprintf(hello, sizeof(hello), "CONNECT %d\n", HULL_VSOCK_PORT_AGENT);
	struct error err;

	call->fd = unix_connect(call->vsock_path, 1, &err);
	if (call->fd == -EAGAIN)
		loop_timer_arm(call->retry, RETRY_NS);
	if (call->fd < 0)
		return call->fd == -EAGAIN ? 0 : call->fd;
	if (write(call->fd, hello, (size_t)len) != len)
		return -ECONNRESET;
	call->events = loop_add_fd(call->loop, call->fd, EPOLLIN, on_events, call);
	return call->events ? 0 : -ENOMEM;
}

static void on_retry(void *ctx)
{
	struct agent_call *call = ctx;
	int r = begin(call);

	if (r < 0)
		finish(call, r);
}

static struct agent_call *call_new(struct loop *loop, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, agent_fn fn, agent_open_fn open_fn, void *ctx)
{
	struct agent_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call)
		return NULL;
	*call = (struct agent_call){.loop = loop, .fd = -1, .fn = fn, .open_fn = open_fn, .ctx = ctx};
	call->request = (struct hull_agent_request){
		htole32(HULL_AGENT_MAGIC), htole16(HULL_AGENT_VERSION), htole16((uint16_t)verb), htole32(arg)};
	call->vsock_path = strdup(vsock_path);
	call->timer = loop_add_timer(loop, on_timer, call);
	call->retry = loop_add_timer(loop, on_retry, call);
	if (!call->vsock_path || !call->timer || !call->retry) {
		agent_cancel(call);
		return NULL;
	}
	r = begin(call);
	call->failure = r < 0 ? r : -ETIMEDOUT;
	loop_timer_arm(call->timer, r < 0 ? 0 : (uint64_t)timeout_ms * 1000000);
	return call;
}

struct agent_call *agent_call(struct loop *loop, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, agent_fn fn, void *ctx)
{
	return call_new(loop, vsock_path, verb, arg, timeout_ms, fn, NULL, ctx);
}

struct agent_call *agent_open(struct loop *loop, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, agent_open_fn fn, void *ctx)
{
	return call_new(loop, vsock_path, verb, arg, timeout_ms, NULL, fn, ctx);
}
