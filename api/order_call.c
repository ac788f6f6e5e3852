/* One order to the agent inside a machine: its connection, the SPEC, and what comes back. */
#include "api/order_call.h"

#include "api/agent_frames.h"
#include "common/exec_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_MS  5000 /* for the way there and back */
#define NS_PER_MS 1000000ull

struct order_call {
	struct agent_frames *frames;
	struct loop_source *deadline;
	order_fn fn;
	void *ctx;
};

void order_cancel(struct order_call *call)
{
	if (!call)
		return;
	agent_frames_free(call->frames);
	loop_remove(call->deadline);
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

static void on_ready(void *ctx)
{
	struct order_call *call = ctx;
	struct frame frame;
	int r = agent_frames_read(call->frames, &frame);

	if (r > 0)
		take(call, &frame);
	else if (r < 0)
		fail(call, r);
}

/* ---- the way there ---- */

static void on_deadline(void *ctx)
{
	fail(ctx, -ETIMEDOUT);
}

static void on_opened(void *ctx, int r)
{
	if (r)
		fail(ctx, r);
}

static const struct agent_frames_ops frames_ops = {on_opened, on_ready};

struct order_call *order_call(struct loop *loop, const char *vsock_path, const struct order *order, unsigned timeout_ms,
	order_fn fn, void *ctx)
{
	struct order_call *call = calloc(1, sizeof(*call));

	if (!call)
		abort();
	*call = (struct order_call){.fn = fn, .ctx = ctx};
	call->deadline = loop_add_timer(loop, on_deadline, call);
	if (!call->deadline)
		abort();
	/* One deadline over all: the opening's own is never earlier. */
	call->frames = agent_frames_open(loop, vsock_path, HULL_AGENT_ORDER, timeout_ms, timeout_ms + GRACE_MS,
		json_dump(&order_table, order), &frames_ops, call);
	loop_timer_arm(call->deadline, (timeout_ms + GRACE_MS) * NS_PER_MS);
	return call;
}
