#include "api/socket_call.h"

#include "common/buf.h"
#include "common/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_CHUNK 65536

struct socket_call {
	int fd;
	struct loop_source *events, *timer; /* timer: the deadline, or at once for a failure that is told later */
	struct buf in, out;
	int errnum; /* what is told when the timer comes */
	socket_call_fn fn;
	void *ctx;
};

void socket_call_cancel(struct socket_call *call)
{
	if (!call)
		return;
	loop_remove(call->events);
	loop_remove(call->timer);
	close_fd(call->fd);
	buf_done(&call->in);
	buf_done(&call->out);
	free(call);
}

/* `fn` may begin the next one, or forget whose this was. */
static void end(struct socket_call *call, int errnum)
{
	socket_call_fn fn = call->fn;
	void *ctx = call->ctx;
	struct buf in = call->in;

	buf_init(&call->in, 0);
	socket_call_cancel(call);
	fn(ctx, errnum ? NULL : in.data ? in.data : "", errnum);
	buf_done(&in);
}

static void on_timer(void *ctx)
{
	struct socket_call *call = ctx;

	end(call, call->errnum);
}

static void send_on(struct socket_call *call)
{
	int r = buf_send(&call->out, call->fd);

	if (r < 0)
		end(call, -r);
	else if (!call->out.len)
		loop_set_events(call->events, EPOLLIN);
}

static void on_events(void *ctx, uint32_t events)
{
	struct socket_call *call = ctx;
	ssize_t n;

	(void)events;
	if (call->out.len) {
		send_on(call);
		return;
	}
	n = buf_read_fd(&call->in, call->fd, READ_CHUNK);
	if (n == 0)
		end(call, 0);
	else if (n < 0 && n != -EAGAIN)
		end(call, (int)-n);
}

static int connect_to(struct socket_call *call, struct loop *loop, const char *path)
{
	struct error ignored;

	call->fd = unix_connect(path, 1, &ignored);
	if (call->fd < 0)
		return -call->fd;
	call->events = loop_add_fd(loop, call->fd, EPOLLOUT, on_events, call);
	return call->events ? 0 : errno;
}

struct socket_call *socket_call(struct loop *loop, const struct socket_request *request, socket_call_fn fn, void *ctx)
{
	struct socket_call *call = calloc(1, sizeof(*call));
	size_t len = strlen(request->text);

	if (!call)
		abort();
	*call = (struct socket_call){.fn = fn, .ctx = ctx, .timer = loop_add_timer(loop, on_timer, call)};
	buf_init(&call->in, request->answer_max);
	buf_init(&call->out, len);
	call->out.secret = true;
	if (!call->timer || buf_append(&call->out, request->text, len) < 0)
		abort();
	call->errnum = connect_to(call, loop, request->path);
	if (call->errnum) {
		loop_timer_arm(call->timer, 0);
	} else if (request->timeout_ns) {
		call->errnum = ETIMEDOUT;
		loop_timer_arm(call->timer, request->timeout_ns);
	}
	return call;
}
