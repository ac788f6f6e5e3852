/* Programs executed in machines over HTTP.
 *
 * Theory of operation. A call passes through these, each begun by the end of the one before:
 *
 *	opening    the agent is asked for an EXEC (agent.h)
 *	starting   the SPEC is sent, STARTED or REFUSED is awaited
 *	running    as JSON: frames are collected until EXIT, and answered; as hull-exec: 101, then frames are
 *	           copied as they are, and never looked at
 *
 * A client that leaves ends it all, in any of them: the connection to the agent is closed, which ends the
 * program. The machine and its agent are hostile: what is read from them is bounded in size and, until
 * STARTED, in time. */
#include "api/exec.h"

#include "api/agent_frames.h"
#include "api/exec_output.h"
#include "api/exec_stream.h"
#include "api/hulld.h"
#include "api/idle.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "common/exec_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S	1000000000ull
#define OPEN_TIMEOUT_MS 30000
#define START_TIMEOUT_S 60

struct exec_call {
	struct hulld *hulld;
	struct exec_call *next, **link;
	struct request *req; /* NULL once it was answered */
	char name[NAME_MAX_BYTES + 1], machine[MACHINE_ID_BYTES + 1]; /* the machine's name and id */
	bool streams;
	struct agent_frames *frames; /* NULL: its connection is the stream's */
	struct loop_source *deadline;
	bool started;
	struct exec_output *output; /* as JSON */
	struct exec_stream *stream; /* as hull-exec */
};

static void call_free(struct exec_call *call)
{
	*call->link = call->next;
	if (call->next)
		call->next->link = call->link;
	agent_frames_free(call->frames);
	loop_remove(call->deadline);
	exec_output_free(call->output);
	exec_stream_free(call->stream);
	idle_unuse(call->hulld, call->machine);
	free(call);
}

static void on_gone(void *ctx)
{
	call_free(ctx);
}

static void fail(struct exec_call *call, enum problem_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void fail(struct exec_call *call, enum problem_code code, const char *fmt, ...)
{
	char detail[ERROR_MESSAGE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	request_refuse_with(call->req, code, NULL, "machine %s: %s", call->name, detail);
	call_free(call);
}

/* ---- running ---- */

static void on_stream_end(void *ctx)
{
	call_free(ctx);
}

static void on_upgraded(void *ctx, struct http_upgraded *conn, const char *early, size_t early_len)
{
	struct exec_call *call = ctx;

	call->req = NULL;
	if (conn) {
		int fd = agent_frames_steal_fd(call->frames);

		call->frames = NULL;
		call->stream = exec_stream_new(call->hulld->loop, conn, fd, early, early_len, on_stream_end, call);
	}
	if (!call->stream)
		call_free(call);
}

static void begin_running(struct exec_call *call)
{
	call->started = true;
	loop_timer_arm(call->deadline, UINT64_MAX);
	if (call->streams) {
		struct request *req = call->req;

		agent_frames_listen(call->frames, false);
		call->req = NULL;
		request_reply_upgrade(req, on_upgraded, call);
		return;
	}
	call->output = exec_output_new();
	/* Nobody will send it anything. */
	agent_frames_put(call->frames, HULL_FRAME_STDIN_EOF, NULL, 0);
}

/* ---- what the agent says ---- */

static void take_refusal(struct exec_call *call, const struct frame *frame)
{
	struct exec_refusal refusal;
	struct error err;
	json_t *object = json_parse(frame->data, frame->len, &err);
	int r = object ? json_read(&exec_refusal_table, object, &refusal, &err) : -EPROTO;

	json_decref(object);
	if (r < 0) {
		fail(call, PROBLEM_MACHINE_FAILED, "its agent makes no sense");
		return;
	}
	if (refusal.field[0])
		request_refuse_with(call->req, PROBLEM_INVALID_FIELD, refusal.field, "%s", refusal.message);
	else
		request_refuse_with(call->req, PROBLEM_MACHINE_FAILED, NULL, "machine %s: %s", call->name, refusal.message);
	json_done(&exec_refusal_table, &refusal);
	call_free(call);
}

/* True while there may be more. */
static bool take(struct exec_call *call, const struct frame *frame)
{
	if (!call->started && frame->type == HULL_FRAME_REFUSED) {
		take_refusal(call, frame);
		return false;
	}
	if (!call->started && frame->type == HULL_FRAME_STARTED) {
		begin_running(call);
		return !call->streams;
	}
	if (!call->started || exec_output_take(call->output, frame, request_keeps(call->req, exec_output_bytes(call->output) + frame->len)) < 0) {
		fail(call, PROBLEM_MACHINE_FAILED, "its agent makes no sense");
		return false;
	}
	if (!exec_output_ended(call->output))
		return true;
	request_reply(call->req, 200, exec_output_dump(call->output));
	call_free(call);
	return false;
}

static void on_ready(void *ctx)
{
	struct exec_call *call = ctx;
	struct frame frame;
	int r = 0;

	for (int i = 0; i < 16 && r >= 0; i++) { /* others have their turn */
		r = agent_frames_read(call->frames, &frame);
		if (r == 0)
			break;
		if (r > 0 && !take(call, &frame))
			return;
	}
	if (r == -EPROTO)
		fail(call, PROBLEM_MACHINE_FAILED, "its agent makes no sense");
	else if (r < 0)
		fail(call, PROBLEM_MACHINE_FAILED, "the program was lost: the machine, or its agent, has ended");
}

/* ---- opening and starting ---- */

static void on_deadline(void *ctx)
{
	fail(ctx, PROBLEM_OUTCOME_UNKNOWN, "its agent does not say that the program was started");
}

static void on_opened(void *ctx, int r)
{
	struct exec_call *call = ctx;

	if (r == 0)
		loop_timer_arm(call->deadline, START_TIMEOUT_S * NS_PER_S);
	else if (r == EAGAIN)
		fail(call, PROBLEM_BUSY, "it executes as many programs as it can");
	else if (r == EBUSY)
		fail(call, PROBLEM_WRONG_STATE, "its programs are frozen: thaw it first");
	else if (r == EPROTONOSUPPORT)
		fail(call, PROBLEM_MACHINE_FAILED, "its agent is too old to execute programs");
	else
		fail(call, r == -ETIMEDOUT ? PROBLEM_TIMEOUT : PROBLEM_MACHINE_FAILED, "its agent does not answer: %s",
			strerror(abs(r)));
}

static const struct agent_frames_ops frames_ops = {on_opened, on_ready};

static struct exec_call *call_new(
	struct hulld *hulld, struct machine *m, struct request *req, const struct exec_spec *spec)
{
	struct exec_call *call = calloc(1, sizeof(*call));
	char vsock[512];

	if (!call)
		abort();
	*call = (struct exec_call){.hulld = hulld, .next = hulld->execs, .link = &hulld->execs, .req = req,
		.streams = request_wants_upgrade(req)};
	snprintf(call->name, sizeof(call->name), "%s", m->record.name);
	snprintf(call->machine, sizeof(call->machine), "%s", m->record.id);
	idle_use(m);
	if (call->next)
		call->next->link = &call->next;
	hulld->execs = call;
	call->deadline = loop_add_timer(hulld->loop, on_deadline, call);
	if (!call->deadline)
		abort();
	call->frames = agent_frames_open(hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), HULL_AGENT_EXEC, 0,
		OPEN_TIMEOUT_MS, json_dump(&exec_spec_table, spec), &frames_ops, call);
	return call;
}

void exec_http(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct machine *m = machine_http_find(hulld, req);
	struct exec_spec spec;
	struct problem problem;
	struct error err;

	if (!m || request_read(req, &exec_spec_table, &spec) < 0)
		return;
	if (exec_spec_check(&spec, &err) < 0) {
		problem_from_error(&problem, &err);
		request_refuse(req, &problem);
	} else if (machine_http_require_running(m, req) < 0) {
		/* is refused */
	} else if (spec.tty && !request_wants_upgrade(req)) {
		problem_set(&problem, PROBLEM_INVALID_FIELD, "tty", "a terminal needs a connection that streams");
		problem_set_hint(&problem, "send Connection: Upgrade and Upgrade: " EXEC_PROTOCOL);
		request_refuse(req, &problem);
	} else {
		request_on_gone(req, on_gone, call_new(hulld, m, req, &spec));
	}
	json_done(&exec_spec_table, &spec);
}

void execs_end(struct hulld *hulld)
{
	struct exec_call *call = hulld->execs, *next;

	/* Who waits for an answer is told by http_free() that none will come, and who for a 101 likewise. */
	for (; call; call = next) {
		next = call->next;
		if (call->stream)
			call_free(call);
	}
}
