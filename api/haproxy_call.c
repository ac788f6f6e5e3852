#include "api/haproxy_call.h"

#include "common/buf.h"
#include "common/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_MAX  (4u << 20) /* bytes: a line for each machine that is served */
#define COMMAND_MAX (1u << 20)
#define TIMEOUT_NS  10000000000ull

struct haproxy_call {
	int fd;
	struct loop_source *events, *timer; /* timer: the deadline, or at once for a failure to connect */
	struct buf in, out;
	struct error err; /* why it could not connect */
	haproxy_fn fn;
	void *ctx;
};

void haproxy_call_cancel(struct haproxy_call *call)
{
	if (!call)
		return;
	loop_remove(call->events);
	loop_remove(call->timer);
	close_fd(call->fd);
	if (call->out.data)
		explicit_bzero(call->out.data, call->out.size); /* it may have been a key */
	buf_done(&call->in);
	buf_done(&call->out);
	free(call);
}

static void end(struct haproxy_call *call, const struct error *err)
{
	call->fn(call->ctx, err ? NULL : call->in.data ? call->in.data : "", err);
	haproxy_call_cancel(call);
}

static void fail(struct haproxy_call *call, int errnum)
{
	struct error err;

	error_set_errno(&err, errnum, "HAProxy does not answer");
	end(call, &err);
}

static void on_timer(void *ctx)
{
	struct haproxy_call *call = ctx;

	if (call->err.errnum)
		end(call, &call->err);
	else
		fail(call, ETIMEDOUT);
}

static void on_events(void *ctx, uint32_t events)
{
	struct haproxy_call *call = ctx;
	ssize_t n;

	if (call->out.len) {
		n = write(call->fd, call->out.data, call->out.len);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			fail(call, errno);
			return;
		}
		buf_consume(&call->out, n > 0 ? (size_t)n : 0);
		if (!call->out.len)
			loop_set_events(call->events, EPOLLIN);
		return;
	}
	(void)events;
	n = buf_read_fd(&call->in, call->fd, 65536);
	if (n == 0)
		end(call, NULL);
	else if (n < 0 && n != -EAGAIN && n != -EINTR)
		fail(call, (int)-n);
}

struct haproxy_call *haproxy_call(struct loop *loop, const char *socket_path, const char *command, haproxy_fn fn, void *ctx)
{
	struct haproxy_call *call = calloc(1, sizeof(*call));

	if (!call)
		abort();
	*call = (struct haproxy_call){.fn = fn, .ctx = ctx, .timer = loop_add_timer(loop, on_timer, call)};
	buf_init(&call->in, ANSWER_MAX);
	buf_init(&call->out, COMMAND_MAX);
	if (!call->timer || buf_printf(&call->out, "%s\n", command) < 0)
		abort();
	call->fd = unix_connect(socket_path, 1, &call->err);
	if (call->fd >= 0)
		call->events = loop_add_fd(loop, call->fd, EPOLLOUT, on_events, call);
	if (call->fd >= 0 && !call->events)
		error_set_errno(&call->err, errno, "cannot watch HAProxy");
	loop_timer_arm(call->timer, call->err.errnum ? 0 : TIMEOUT_NS);
	return call;
}
