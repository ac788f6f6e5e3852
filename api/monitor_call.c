/* Asking a monitor, and what it says. See monitor_call.h. A guest may have taken it over: little of its answer is read, and less believed. */
#include "api/monitor_call.h"

#include "api/socket_call.h"
#include "common/buf.h"
#include "common/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_MAX 8192
#define ANSWER_MAX  16384
#define STATUS_LINE "HTTP/1.1 "

struct monitor_call {
	struct socket_call *call;
	monitor_fn fn;
	void *ctx;
};

void monitor_call_cancel(struct monitor_call *call)
{
	if (!call)
		return;
	socket_call_cancel(call->call);
	free(call);
}

static void finish(struct monitor_call *call, bool refused, struct error *err)
{
	monitor_fn fn = call->fn;
	void *ctx = call->ctx;

	for (char *c = err ? err->message : ""; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	free(call);
	fn(ctx, refused, err);
}

static void fail(struct monitor_call *call, int errnum)
{
	struct error err;

	error_set_errno(&err, errnum, "its monitor does not answer");
	finish(call, false, &err);
}

static void read_fault(const char *body, struct error *err)
{
	struct error ignored;
	json_t *fault = body ? json_parse(body, strlen(body), &ignored) : NULL;
	const char *message = json_string_value(json_object_get(fault, "fault_message"));

	error_set(err, EIO, "its monitor says: %s", message ? message : "no");
	json_decref(fault);
}

static void on_answer(void *ctx, const char *answer, int errnum)
{
	struct monitor_call *call = ctx;
	const char *body = answer ? strstr(answer, "\r\n\r\n") : NULL;
	int status = answer && strncmp(answer, STATUS_LINE, strlen(STATUS_LINE)) == 0 ? atoi(answer + strlen(STATUS_LINE)) : 0;
	struct error err;

	if (errnum) {
		fail(call, errnum);
	} else if (!body || status < 200 || status > 599) {
		fail(call, *answer ? EPROTO : ECONNRESET);
	} else if (status < 300) {
		finish(call, false, NULL);
	} else {
		read_fault(body + 4, &err);
		finish(call, true, &err);
	}
}

static void write_request(struct buf *ret, const char *method, const char *path, const json_t *body)
{
	cleanup_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

	if (!text || buf_printf(ret,
				"%s %s HTTP/1.1\r\nHost: monitor\r\nConnection: close\r\nContent-Type: application/json\r\n"
				"Content-Length: %zu\r\n\r\n%s",
				method, path, strlen(text), text) < 0)
		abort();
}

struct monitor_call *monitor_call(struct loop *loop, const char *socket_path, const char *method, const char *path, json_t *body,
	monitor_fn fn, void *ctx)
{
	struct monitor_call *call = calloc(1, sizeof(*call));
	struct socket_request request = {.path = socket_path, .answer_max = ANSWER_MAX};
	struct buf text;

	if (!call)
		abort();
	buf_init(&text, REQUEST_MAX);
	write_request(&text, method, path, body);
	json_decref(body);
	request.text = text.data;
	*call = (struct monitor_call){.fn = fn, .ctx = ctx};
	call->call = socket_call(loop, &request, on_answer, call);
	buf_done(&text);
	return call;
}
