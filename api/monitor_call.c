/* Asking a monitor, and what it says. See monitor_call.h. A guest may have taken it over: little of its answer is read, and less believed. */
#include "api/monitor_call.h"

#include "common/buf.h"
#include "common/io.h"
#include "common/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define REQUEST_MAX 8192
#define ANSWER_MAX  16384
#define STATUS_LINE "HTTP/1.1 "

struct monitor_call {
	int fd;
	struct loop_source *events, *failure; /* the latter: nobody listens, which is told later */
	struct buf in, out;
	int failure_errno;
	monitor_fn fn;
	void *ctx;
};

void monitor_call_cancel(struct monitor_call *call)
{
	if (!call)
		return;
	loop_remove(call->events);
	loop_remove(call->failure);
	close_fd(call->fd);
	buf_done(&call->in);
	buf_done(&call->out);
	free(call);
}

static void finish(struct monitor_call *call, bool refused, const struct error *err)
{
	monitor_fn fn = call->fn;
	void *ctx = call->ctx;
	struct error copy;

	if (err)
		copy = *err;
	for (char *c = copy.message; err && *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	monitor_call_cancel(call);
	fn(ctx, refused, err ? &copy : NULL);
}

static void fail(struct monitor_call *call, int errnum)
{
	struct error err;

	error_set_errno(&err, errnum, "its monitor does not answer");
	finish(call, false, &err);
}

static void on_failure(void *ctx)
{
	struct monitor_call *call = ctx;

	fail(call, call->failure_errno);
}

static void read_fault(const char *body, struct error *err)
{
	struct error ignored;
	json_t *fault = body ? json_parse(body, strlen(body), &ignored) : NULL;
	const char *message = json_string_value(json_object_get(fault, "fault_message"));

	error_set(err, EIO, "its monitor says: %s", message ? message : "no");
	json_decref(fault);
}

/* It has closed: that is all of it. */
static void read_answer(struct monitor_call *call)
{
	const char *text = call->in.data ? call->in.data : "", *body = strstr(text, "\r\n\r\n");
	int status = strncmp(text, STATUS_LINE, strlen(STATUS_LINE)) == 0 ? atoi(text + strlen(STATUS_LINE)) : 0;
	struct error err;

	if (!body || status < 200 || status > 599) {
		fail(call, call->in.len ? EPROTO : ECONNRESET);
	} else if (status < 300) {
		finish(call, false, NULL);
	} else {
		read_fault(body + 4, &err);
		finish(call, true, &err);
	}
}

static void send_on(struct monitor_call *call)
{
	ssize_t n = send(call->fd, call->out.data, call->out.len, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		fail(call, errno);
		return;
	}
	buf_consume(&call->out, n > 0 ? (size_t)n : 0);
	if (!call->out.len)
		loop_set_events(call->events, EPOLLIN);
}

static void on_events(void *ctx, uint32_t events)
{
	struct monitor_call *call = ctx;
	ssize_t n;

	(void)events;
	if (call->out.len) {
		send_on(call);
		return;
	}
	n = buf_read_fd(&call->in, call->fd, 4096);
	if (n == 0)
		read_answer(call);
	else if (n < 0 && n != -EAGAIN && n != -EINTR)
		fail(call, (int)-n);
}

static void write_request(struct monitor_call *call, const char *method, const char *path, json_t *body)
{
	cleanup_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

	json_decref(body);
	if (!text || buf_printf(&call->out,
				"%s %s HTTP/1.1\r\nHost: monitor\r\nConnection: close\r\nContent-Type: application/json\r\n"
				"Content-Length: %zu\r\n\r\n%s",
				method, path, strlen(text), text) < 0)
		abort();
}

struct monitor_call *monitor_call(struct loop *loop, const char *socket_path, const char *method, const char *path, json_t *body,
	monitor_fn fn, void *ctx)
{
	struct monitor_call *call = calloc(1, sizeof(*call));
	struct error err;

	if (!call)
		abort();
	*call = (struct monitor_call){.fn = fn, .ctx = ctx, .failure = loop_add_timer(loop, on_failure, call)};
	buf_init(&call->in, ANSWER_MAX);
	buf_init(&call->out, REQUEST_MAX);
	if (!call->failure)
		abort();
	write_request(call, method, path, body);
	call->fd = unix_connect(socket_path, 1, &err);
	if (call->fd >= 0)
		call->events = loop_add_fd(loop, call->fd, EPOLLOUT, on_events, call);
	if (call->events)
		return call;
	call->failure_errno = call->fd < 0 ? -call->fd : errno;
	loop_timer_arm(call->failure, 0);
	return call;
}
