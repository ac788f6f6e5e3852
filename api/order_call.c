/* One order to the agent inside a machine: its connection, the SPEC, and what comes back. */
#include "api/order_call.h"

#include "api/agent.h"
#include "common/exec_spec.h"
#include "common/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_MS  5000 /* for the way there and back */
#define NS_PER_MS 1000000ull

struct order_call {
	struct loop *loop;
	struct agent_call *opening;
	int fd; /* -1: not yet */
	struct loop_source *events, *deadline;
	struct frame_reader reader;
	struct buf spec; /* as far as it is to be sent */
	order_fn fn;
	void *ctx;
};

void order_cancel(struct order_call *call)
{
	if (!call)
		return;
	agent_cancel(call->opening);
	loop_remove(call->events);
	loop_remove(call->deadline);
	close_fd(call->fd);
	frame_reader_done(&call->reader);
	buf_done(&call->spec);
	free(call);
}

static void finish(struct order_call *call, const struct order_answer *answer, const struct error *err)
{
	order_fn fn = call->fn;
	void *ctx = call->ctx;

	order_cancel(call);
	fn(ctx, answer, err);
}

static void fail(struct order_call *call, int r)
{
	struct error err;

	if (r == EPROTONOSUPPORT)
		error_set(&err, r, "its agent is too old for that");
	else if (r == EAGAIN)
		error_set(&err, r, "its agent has too much to do");
	else if (r == -EPROTO)
		error_set(&err, -r, "its agent makes no sense");
	else if (r == -ECONNRESET)
		error_set(&err, -r, "its agent has gone");
	else
		error_set_errno(&err, abs(r), "its agent does not answer");
	finish(call, NULL, &err);
}

/* ---- what comes back ---- */

static void make_printable(char *text)
{
	for (; text && *text; text++)
		if (*text < 0x20 || *text > 0x7e)
			*text = '?';
}

static int read_refusal(const json_t *object, struct error *err)
{
	struct exec_refusal refusal;

	if (json_read(&exec_refusal_table, object, &refusal, err) < 0)
		return error_set(err, EPROTO, "its agent makes no sense");
	make_printable(refusal.field);
	make_printable(refusal.message);
	error_set_field(err, (int)refusal.errnum, refusal.field, "%s", refusal.message);
	json_done(&exec_refusal_table, &refusal);
	return -err->errnum;
}

int order_read_answer(const struct frame *frame, struct order_answer *ret, struct error *err)
{
	bool refused = frame->type == HULL_FRAME_REFUSED;
	json_t *object = refused || frame->type == HULL_FRAME_ANSWER ? json_parse(frame->data, frame->len, err) : NULL;
	int r;

	if (object && refused)
		r = read_refusal(object, err);
	else if (object && json_read(&order_answer_table, object, ret, err) == 0)
		r = 0;
	else
		r = error_set(err, EPROTO, "its agent makes no sense");
	json_decref(object);
	if (r == 0)
		make_printable(ret->reason);
	return r;
}

static void take(struct order_call *call, const struct frame *frame)
{
	struct order_answer answer;
	struct error err;

	if (order_read_answer(frame, &answer, &err) < 0) {
		finish(call, NULL, &err);
		return;
	}
	finish(call, &answer, NULL);
	json_done(&order_answer_table, &answer);
}

static void on_agent(void *ctx, uint32_t events)
{
	struct order_call *call = ctx;
	struct frame frame;
	int r = events & EPOLLOUT ? frame_flush(&call->spec, call->fd) : 0;

	if (r == 0)
		r = frame_read(&call->reader, call->fd, &frame);
	if (r > 0)
		take(call, &frame);
	else if (r < 0)
		fail(call, r);
	else
		loop_set_events(call->events, call->spec.len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* ---- the way there ---- */

static void on_deadline(void *ctx)
{
	fail(ctx, -ETIMEDOUT);
}

static void on_opened(void *ctx, int r, int fd)
{
	struct order_call *call = ctx;

	call->opening = NULL;
	call->fd = fd;
	if (r == 0)
		call->events = loop_add_fd(call->loop, fd, EPOLLIN | EPOLLOUT, on_agent, call);
	if (!call->events)
		fail(call, r ? r : -ENOMEM);
}

struct order_call *order_call(struct loop *loop, const char *vsock_path, const struct order *order, unsigned timeout_ms,
	order_fn fn, void *ctx)
{
	struct order_call *call = calloc(1, sizeof(*call));
	json_t *dumped = json_dump(&order_table, order);
	cleanup_free char *text = json_dumps(dumped, JSON_COMPACT);

	json_decref(dumped);
	if (!call || !text)
		abort();
	*call = (struct order_call){.loop = loop, .fd = -1, .fn = fn, .ctx = ctx};
	frame_reader_init(&call->reader, HULL_FRAME_MAX);
	buf_init(&call->spec, 2 * HULL_SPEC_MAX);
	call->deadline = loop_add_timer(loop, on_deadline, call);
	/* One deadline over all: the opening's own is never earlier. */
	call->opening = agent_open(loop, vsock_path, HULL_AGENT_ORDER, timeout_ms, timeout_ms + GRACE_MS, on_opened, call);
	if (!call->deadline || !call->opening || frame_put(&call->spec, HULL_FRAME_SPEC, text, (uint32_t)strlen(text)) < 0)
		abort();
	loop_timer_arm(call->deadline, (timeout_ms + GRACE_MS) * NS_PER_MS);
	return call;
}
