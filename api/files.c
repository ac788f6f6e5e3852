/* Files in and out of machines over HTTP.
 *
 * Theory of operation. A call is a connection to the agent (hull_guest.h, FILES) and a request. What one sends is handed to the other,
 * of whichever direction, only as fast as it is taken: an upload is paused while more than ROOM bytes wait for the agent, and a frame
 * is read from the agent only when the one before has gone to the client. A call ends with its request: who is uploading keeps it until
 * `end` or `abort`, then its `gone`; who is downloading until the first frame its `gone`, then the stream's `done`. The
 * machine and its agent are hostile. */
#include "api/files.h"

#include "api/agent_frames.h"
#include "api/hulld.h"
#include "api/idle.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "api/order_call.h"
#include "common/file_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_TIMEOUT_MS 30000
#define ROOM		HULL_FRAME_MAX /* bytes */

struct file_call {
	struct request *req; /* NULL once it was refused */
	struct hulld *hulld;
	char name[NAME_MAX_BYTES + 1], machine[MACHINE_ID_BYTES + 1]; /* the machine's name and id */
	struct agent_frames *frames;
	bool uploading; /* `end` or `abort` will come */
	bool streaming; /* `done` will come */
	struct frame frame; /* of STDOUT, of which `sent` bytes have gone to the client */
	size_t sent;
};

static void call_free(void *ctx)
{
	struct file_call *call = ctx;

	agent_frames_free(call->frames);
	idle_unuse(call->hulld, call->machine);
	free(call);
}

/* The request was replied to. */
static void replied(struct file_call *call)
{
	call->req = NULL;
	if (!call->uploading)
		call_free(call);
	else
		agent_frames_listen(call->frames, false);
}

static void fail(struct file_call *call, enum problem_code code, const char *why)
{
	request_refuse_with(call->req, code, NULL, "machine %s: %s", call->name, why);
	replied(call);
}

static void refuse(struct file_call *call, const struct error *err)
{
	switch (err->errnum) {
	case ENOENT:
		request_refuse_with(call->req, PROBLEM_NOT_FOUND, "path", "%s", err->message);
		break;
	case ENOSPC:
	case EDQUOT:
		request_refuse_with(call->req, PROBLEM_INSUFFICIENT_STORAGE, NULL, "machine %s: %s", call->name, err->message);
		break;
	case EINVAL:
	case EOPNOTSUPP:
	case ENOTDIR:
	case EISDIR:
	case EEXIST:
	case ENOTEMPTY:
	case ELOOP:
	case ENAMETOOLONG:
	case EACCES:
	case EPERM:
	case EROFS:
		request_refuse_with(call->req, PROBLEM_INVALID_FIELD, "path", "%s", err->message);
		break;
	default:
		fail(call, PROBLEM_MACHINE_FAILED, err->message);
		return;
	}
	replied(call);
}

static void take_refusal(struct file_call *call, const struct frame *frame)
{
	struct order_answer unused;
	struct error err;

	order_read_answer(frame, &unused, &err);
	refuse(call, &err);
}

/* ---- to the client ---- */

static ssize_t read_stream(void *ctx, char *data, size_t max)
{
	struct file_call *call = ctx;
	size_t part;

	while (call->sent == call->frame.len) {
		int r = agent_frames_read(call->frames, &call->frame);

		call->sent = 0;
		/* One of nothing is none of the agent's: they could come for ever. */
		if (r <= 0 || call->frame.type != HULL_FRAME_STDOUT || !call->frame.len) {
			call->frame.len = r > 0 ? call->frame.len : 0;
			if (r == 0)
				agent_frames_listen(call->frames, true);
			return r == 0 ? 0 : r > 0 && call->frame.type == HULL_FRAME_ANSWER ? HTTP_STREAM_END : HTTP_STREAM_BROKEN;
		}
	}
	part = call->frame.len - call->sent < max ? call->frame.len - call->sent : max;
	memcpy(data, call->frame.data + call->sent, part);
	call->sent += part;
	return (ssize_t)part;
}

static const struct http_stream_ops stream_ops = {read_stream, call_free, HTTP_TAR};

static void begin_stream(struct file_call *call, const struct frame *frame)
{
	call->frame = *frame;
	call->streaming = true;
	agent_frames_listen(call->frames, false);
	request_reply_stream(call->req, &stream_ops, call);
}

/* ---- what the agent says ---- */

static void take(struct file_call *call, bool get, const struct frame *frame)
{
	if (frame->type == HULL_FRAME_REFUSED) {
		take_refusal(call, frame);
	} else if (get && frame->type == HULL_FRAME_STDOUT) {
		begin_stream(call, frame);
	} else if (!get && !call->uploading && frame->type == HULL_FRAME_ANSWER) {
		request_reply(call->req, 204, NULL);
		replied(call);
	} else {
		fail(call, PROBLEM_MACHINE_FAILED, "its agent makes no sense");
	}
}

static void on_agent(struct file_call *call, bool get)
{
	struct frame frame;
	int r;

	if (call->streaming) {
		agent_frames_listen(call->frames, false);
		request_wake(call->req);
		return;
	}
	r = agent_frames_read(call->frames, &frame);
	if (r > 0) {
		take(call, get, &frame);
		return;
	}
	if (r < 0) {
		fail(call, PROBLEM_MACHINE_FAILED, r == -EPROTO ? "its agent makes no sense" : "its agent has gone");
		return;
	}
	if (call->uploading && agent_frames_waiting(call->frames) < ROOM)
		request_wake(call->req);
}

static void on_getting(void *ctx)
{
	on_agent(ctx, true);
}

static void on_putting(void *ctx)
{
	on_agent(ctx, false);
}

static void on_opened(void *ctx, int r)
{
	struct file_call *call = ctx;

	if (r == 0)
		return;
	if (r == EAGAIN)
		fail(call, PROBLEM_BUSY, "it copies for as many clients as it can");
	else if (r == EBUSY)
		fail(call, PROBLEM_WRONG_STATE, "its programs are frozen: thaw it first");
	else if (r == EPROTONOSUPPORT)
		fail(call, PROBLEM_MACHINE_FAILED, "its agent is too old to copy files");
	else
		fail(call, r == -ETIMEDOUT ? PROBLEM_TIMEOUT : PROBLEM_MACHINE_FAILED, "its agent does not answer");
}

static const struct agent_frames_ops get_ops = {on_opened, on_getting}, put_ops = {on_opened, on_putting};

/* ---- what the client says ---- */

/* NULL with the request refused. */
static struct file_call *call_new(struct hulld *hulld, struct request *req, enum file_verb verb)
{
	struct machine *m = machine_http_find(hulld, req);
	const char *path = request_query(req, "path");
	struct file_call *call;
	json_t *spec, *string;
	int64_t into = verb == FILE_PUT ? request_query_int(req, "into", 0) : 0;
	char vsock[512];

	if (!m || machine_http_require_running(m, req) < 0)
		return NULL;
	if (path[0] != '/') {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, "path", "must be an absolute path");
		return NULL;
	}
	string = json_string(path);
	spec = json_pack("{s:s, s:o, s:b}", "verb", verb == FILE_GET ? "get" : "put", "path", string, "into", (int)into);
	call = calloc(1, sizeof(*call));
	if (!call || !spec)
		abort();
	*call = (struct file_call){.req = req, .hulld = hulld};
	snprintf(call->name, sizeof(call->name), "%s", m->record.name);
	snprintf(call->machine, sizeof(call->machine), "%s", m->record.id);
	idle_use(m);
	call->frames = agent_frames_open(hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), HULL_AGENT_FILES, 0,
		OPEN_TIMEOUT_MS, spec, verb == FILE_GET ? &get_ops : &put_ops, call);
	return call;
}

void files_http_get(struct request *req, void *ctx)
{
	struct file_call *call = call_new(ctx, req, FILE_GET);

	if (call)
		request_on_gone(req, call_free, call);
}

static void *begin_upload(struct request *req, void *ctx)
{
	struct file_call *call = call_new(ctx, req, FILE_PUT);

	if (call)
		call->uploading = true;
	return call;
}

static bool has_room(void *upload)
{
	const struct file_call *call = upload;

	return agent_frames_waiting(call->frames) < ROOM;
}

/* A piece of a body is no larger than a connection's memory. */
static void upload_data(void *upload, const void *data, size_t len)
{
	struct file_call *call = upload;
	const char *at = data;

	for (size_t part; len; at += part, len -= part) {
		part = len < HULL_FRAME_MAX ? len : HULL_FRAME_MAX;
		agent_frames_put(call->frames, HULL_FRAME_STDIN, at, (uint32_t)part);
	}
}

static void upload_end(void *upload)
{
	struct file_call *call = upload;

	call->uploading = false;
	request_on_gone(call->req, call_free, call);
	agent_frames_put(call->frames, HULL_FRAME_STDIN_EOF, NULL, 0);
}

const struct http_upload_ops files_upload = {begin_upload, upload_data, upload_end, call_free, has_room};
