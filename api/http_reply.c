/* Replies to requests, as a whole, as a stream or by another protocol. See http.h. */
#include "api/http_request.h"

#include "api/etag.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_BLOCK_BYTES (2u << 10) /* of each stream, and only where a client knows no chunks (HTTP/1.0) what is read at a time */

static void set_response(struct request *req, int status, struct MHD_Response *response)
{
	assert(!req->response && !req->stream);
	req->gone = NULL;
	req->status = status;
	req->response = response;
	req->http->audit(req, req->http->ctx);
	request_resume(req);
}

/* Takes `text`. */
static void reply_text(struct request *req, int status, const char *type, char *text)
{
	size_t len = text ? strlen(text) : 0;
	struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);

	if (!response)
		abort(); /* out of memory, as everywhere in JSON */
	if (type)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	req->answer_bytes = len;
	set_response(req, status, response);
}

/* Takes `text`, which is `body` with a newline, or NULL. */
static void reply_resource(struct request *req, int status, const char *type, const json_t *body, char *text)
{
	char etag[ETAG_BYTES];

	if (status >= 300 || !text || !text[0] || !http_route_is_tagged(req->route)) {
		reply_text(req, status, type, text);
		return;
	}
	etag_of_text(body, text, strlen(text) - 1, etag);
	if (http_is_not_modified(req, etag)) {
		free(text);
		reply_text(req, MHD_HTTP_NOT_MODIFIED, NULL, NULL);
	} else {
		reply_text(req, status, type, text);
	}
	MHD_add_response_header(req->response, MHD_HTTP_HEADER_ETAG, etag);
}

/* Who has been told of what was made has it by its id; where it has none, by its name. */
static void note_subject(struct request *req, const json_t *body)
{
	const char *id = json_string_value(json_object_get(body, "id"));

	if (!id)
		id = json_string_value(json_object_get(body, "name"));
	snprintf(req->subject, sizeof(req->subject), "%s", id ? id : "");
}

static void refuse_without_room(struct request *req)
{
	request_refuse_with(req, PROBLEM_BUSY, NULL, "too much of the project's answers has not been read yet");
}

/* As it is sent, owned; NULL: there is no body. */
static char *text_of(const json_t *body)
{
	return body ? json_print(body, "\n") : NULL;
}

int request_keep(struct request *req, int status, const json_t *body, struct error *err)
{
	char *text = req->key ? text_of(body) : NULL;
	int r;

	if (!text)
		return 0;
	r = req->http->keeper->keep(req, status, HTTP_JSON, text, req->http->ctx, err);
	explicit_bzero(text, strlen(text));
	free(text);
	req->kept = r == 0;
	return r;
}

static void reply_json(struct request *req, int status, const char *type, json_t *body, enum http_fate fate)
{
	char *text = text_of(body);

	note_subject(req, body);
	/* What only looks may be asked for again. */
	if (status < 300 && text && strcmp(req->method, "GET") == 0 && !http_has_room(req, strlen(text))) {
		free(text);
		json_decref(body);
		refuse_without_room(req);
		return;
	}
	type = body ? type : NULL;
	if (req->key && !req->kept)
		req->http->keeper->answer(req, status, type, text, fate, req->http->ctx);
	reply_resource(req, status, type, body, text);
	json_decref(body);
}

void request_reply(struct request *req, int status, json_t *body)
{
	reply_json(req, status, "application/json", body, HTTP_ANSWER);
}

void request_add_header(struct request *req, const char *name, const char *value)
{
	if (MHD_add_response_header(req->response, name, value) != MHD_YES)
		abort();
}

void request_reply_text(struct request *req, const char *type, char *text)
{
	reply_text(req, MHD_HTTP_OK, type, text);
}

void request_refuse(struct request *req, const struct problem *problem)
{
	enum http_fate fate = problem_is_momentary(problem->code)   ? HTTP_MOMENTARY
			      : problem_is_retryable(problem->code) ? HTTP_UNDECIDED
								    : HTTP_ANSWER;

	if (problem->code == PROBLEM_INTERNAL)
		log_error_object(&problem->error, "a request failed");
	req->code = problem_name(problem->code);
	reply_json(req, problem_status(problem->code), "application/problem+json", problem_dump(problem), fate);
}

void request_refuse_error(struct request *req, const struct error *err)
{
	struct problem problem;

	problem_from_error(&problem, err);
	request_refuse(req, &problem);
}

void request_refuse_with(struct request *req, enum problem_code code, const char *field, const char *fmt, ...)
{
	char detail[ERROR_MESSAGE_MAX];
	struct problem problem;
	va_list args;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	problem_set(&problem, code, field, "%s", detail);
	request_refuse(req, &problem);
}

void request_refuse_lookup(struct request *req, const struct error *err)
{
	if (err->errnum == ENOENT)
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "%s", err->message);
	else
		request_refuse_error(req, err);
}

void request_replay(struct request *req, int status, const char *type, const char *text)
{
	json_t *body = json_loads(text, 0, NULL); /* NULL: it has none */
	char *copy = strdup(text);

	if (!copy)
		abort();
	req->replayed = true;
	reply_resource(req, status, type[0] ? type : NULL, body, copy);
	json_decref(body);
	MHD_add_response_header(req->response, "Idempotent-Replayed", "true");
}

/* Streams. */

static ssize_t read_stream(void *ctx, uint64_t pos, char *buf, size_t max)
{
	struct request *req = ctx;
	ssize_t n;

	(void)pos;
	if (req->client_gone)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	n = req->stream->read(req->stream_ctx, buf, max);
	if (n == 0)
		request_suspend(req);
	if (n == HTTP_STREAM_BROKEN)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	return n < 0 ? MHD_CONTENT_READER_END_OF_STREAM : n;
}

void request_reply_stream(struct request *req, const struct http_stream_ops *ops, void *ctx)
{
	struct MHD_Response *response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, req, NULL);

	if (!response)
		abort();
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, ops->type ? ops->type : HTTP_TEXT);
	set_response(req, 200, response);
	req->stream = ops;
	req->stream_ctx = ctx;
}

void request_wake(struct request *req)
{
	if (req->stream || req->upload)
		request_resume(req);
}

/* Other protocols. The request lives as long as its connection does, which is suspended from then on. */

struct http_upgraded {
	struct request *req;
	struct MHD_UpgradeResponseHandle *handle;
	int fd;
};

static void on_upgraded(void *ctx, struct MHD_Connection *connection, void *req_slot, const char *early,
	size_t early_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
	struct request *req = ctx;
	struct http_upgraded *conn = malloc(sizeof(*conn));
	http_upgraded_fn fn = req->upgraded;

	(void)connection;
	(void)req_slot;
	if (!conn)
		abort();
	*conn = (struct http_upgraded){req, handle, fd};
	if (req->http->ending) {
		http_upgraded_end(conn);
		conn = NULL;
	}
	if (conn)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	req->upgraded = NULL;
	fn(req->upgraded_ctx, conn, early, early_len);
}

void request_reply_upgrade(struct request *req, http_upgraded_fn fn, void *ctx)
{
	struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgraded, req);

	if (!response || MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, req->route->upgrade) != MHD_YES)
		abort();
	req->upgraded = fn;
	req->upgraded_ctx = ctx;
	set_response(req, MHD_HTTP_SWITCHING_PROTOCOLS, response);
}

int http_upgraded_fd(const struct http_upgraded *conn)
{
	return conn->fd;
}

void http_upgraded_end(struct http_upgraded *conn)
{
	if (!conn)
		return;
	MHD_upgrade_action(conn->handle, MHD_UPGRADE_ACTION_CLOSE);
	loop_timer_arm(conn->req->listener->timer, 0); /* as in request_resume() */
	free(conn);
}
