/* Requests and replies over libmicrohttpd. See http.h for the theory of operation. */
#include "api/http_request.h"

#include "api/etag.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_BLOCK_BYTES  (2u << 10) /* of each stream, and only where a client knows no chunks (HTTP/1.0) what is read at a time */
#define DRAIN_MAX	    (1u << 20) /* a refused body up to this is read to its end, so that the reply is seen */

static void on_peer(void *ctx, uint32_t events);
static void leave_peer(struct request *req);
static void tell_gone(struct request *req);

/* Suspending and resuming. */

static void suspend(struct request *req)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	assert(!req->suspended);
	MHD_suspend_connection(req->connection);
	req->suspended = true;
	/* Once and for all: a stream is suspended and resumed for each thing that it has to tell. */
	if (!req->peer)
		req->peer = loop_add_fd(req->http->loop, info->connect_fd, EPOLLRDHUP | EPOLLET, on_peer, req);
	if (req->peer_gone)
		leave_peer(req);
}

static void resume(struct request *req)
{
	if (!req->suspended)
		return;
	req->suspended = false;
	MHD_resume_connection(req->connection);
	/* Without a thread of its own libmicrohttpd looks at resumed connections only when it is run. */
	loop_timer_arm(req->listener->timer, 0);
}

static void leave_peer(struct request *req)
{
	tell_gone(req);
	resume(req);
}

static void tell_gone(struct request *req)
{
	void (*gone)(void *) = req->gone;

	req->gone = NULL;
	req->client_gone = true;
	if (gone)
		gone(req->gone_ctx);
}

/* Only the client's whole departure is seen here: it sends nothing more, and nobody shuts down half a connection to
 * wait for an answer on the other half. */
static void on_peer(void *ctx, uint32_t events)
{
	struct request *req = ctx;

	(void)events;
	req->peer_gone = true;
	if (req->suspended) /* else libmicrohttpd sees it, or suspend() does */
		leave_peer(req);
}

void http_end_requests(struct http *http, bool (*fits)(const struct client *client, void *ctx), void *ctx)
{
	struct request *req, *next;

	for (req = http->requests; req; req = next) {
		next = req->next;
		/* One that has its whole answer gets it, though not all of it may be sent yet. */
		if (req->client_gone || (req->status && req->status != MHD_HTTP_SWITCHING_PROTOCOLS && !req->stream) ||
			!fits(&req->client, ctx))
			continue;
		/* A stream or another protocol sees its end by that; the rest is told. */
		shutdown(MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd, SHUT_RDWR);
		tell_gone(req);
		resume(req);
	}
}

const struct client *request_client(const struct request *req)
{
	return &req->client;
}

const char *request_project(const struct request *req)
{
	return req->client.project;
}

/* Replies. */

static void set_response(struct request *req, int status, struct MHD_Response *response)
{
	assert(!req->response && !req->stream);
	req->gone = NULL;
	req->status = status;
	req->response = response;
	req->http->audit(req, req->http->ctx);
	resume(req);
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

/* Takes `text`, which is JSON with a newline, or NULL. */
static void reply_resource(struct request *req, int status, const char *type, char *text)
{
	char etag[ETAG_BYTES];

	if (status >= 300 || !text || !text[0] || !http_route_is_tagged(req->route)) {
		reply_text(req, status, type, text);
		return;
	}
	etag_of_text(text, strlen(text) - 1, etag);
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

static void reply_json(struct request *req, int status, const char *type, json_t *body, enum http_fate fate)
{
	char *compact = body ? json_dumps(body, JSON_COMPACT) : NULL;
	char *text = NULL;

	note_subject(req, body);
	if (body && (!compact || asprintf(&text, "%s\n", compact) < 0))
		abort();
	free(compact);
	json_decref(body);
	/* What only looks may be asked for again. */
	if (status < 300 && text && strcmp(req->method, "GET") == 0 && !http_has_room(req, strlen(text))) {
		free(text);
		refuse_without_room(req);
		return;
	}
	type = body ? type : NULL;
	if (req->key)
		req->http->keeper->answer(req, status, type, text, fate, req->http->ctx);
	reply_resource(req, status, type, text);
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

void request_replay(struct request *req, int status, const char *type, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		abort();
	req->replayed = true;
	reply_resource(req, status, type[0] ? type : NULL, copy);
	MHD_add_response_header(req->response, "Idempotent-Replayed", "true");
}

static ssize_t read_stream(void *ctx, uint64_t pos, char *buf, size_t max)
{
	struct request *req = ctx;
	ssize_t n;

	(void)pos;
	if (req->client_gone)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	n = req->stream->read(req->stream_ctx, buf, max);
	if (n == 0)
		suspend(req);
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
		resume(req);
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
	loop_timer_arm(conn->req->listener->timer, 0); /* as in resume() */
	free(conn);
}

/* What a handler asks of a request. */

const char *request_param(const struct request *req)
{
	return req->param;
}

const char *request_query(const struct request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_GET_ARGUMENT_KIND, name);
}

struct each_value {
	const char *name;
	void (*fn)(void *ctx, const char *value);
	void *ctx;
};

static enum MHD_Result look_at_argument(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value)
{
	const struct each_value *each = ctx;

	(void)kind;
	if (strcmp(name, each->name) == 0)
		each->fn(each->ctx, value ? value : "");
	return MHD_YES;
}

void request_query_each(const struct request *req, const char *name, void (*fn)(void *ctx, const char *value), void *ctx)
{
	struct each_value each = {name, fn, ctx};

	MHD_get_connection_values(req->connection, MHD_GET_ARGUMENT_KIND, look_at_argument, &each);
}

int64_t request_query_int(const struct request *req, const char *name, int64_t def)
{
	const char *text = request_query(req, name);

	return text ? strtoll(text, NULL, 10) : def; /* http_query.c has refused what is none of its numbers */
}

const char *request_header(const struct request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

bool request_wants_upgrade(const struct request *req)
{
	const char *connection = request_header(req, MHD_HTTP_HEADER_CONNECTION);
	const char *protocol = request_header(req, MHD_HTTP_HEADER_UPGRADE);

	return req->route->upgrade && connection && strcasestr(connection, "upgrade") && protocol &&
	       strcasecmp(protocol, req->route->upgrade) == 0;
}

static enum MHD_Result digest_argument(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct sha256_ctx *hash = ctx;

	(void)kind;
	sha256_update(hash, strlen(name) + 1, (const uint8_t *)name);
	if (value)
		sha256_update(hash, strlen(value) + 1, (const uint8_t *)value);
	return MHD_YES;
}

void request_digest(const struct request *req, char ret[65])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx hash;

	sha256_init(&hash);
	digest_argument(&hash, 0, req->route->method, req->url);
	MHD_get_connection_values(req->connection, MHD_GET_ARGUMENT_KIND, digest_argument, &hash);
	digest_argument(&hash, 0, "", NULL); /* the end of the arguments: no name is empty */
	sha256_update(&hash, req->body.len, (const uint8_t *)req->body.data);
	sha256_digest(&hash, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		sprintf(ret + 2 * i, "%02x", digest[i]);
}

bool request_is_once(const struct request *req)
{
	return req->route->once;
}

bool request_is_confidential(const struct request *req)
{
	return req->route->confidential;
}

bool request_key_is_busy(const struct request *req, const char *key)
{
	for (const struct request *other = req->http->requests; other; other = other->next)
		if (other->key && !other->client_gone && !other->status && strcmp(other->key, key) == 0 &&
			strcmp(other->client.project, req->client.project) == 0)
			return true;
	return false;
}

const char *request_key(const struct request *req)
{
	return req->key ? req->key : "";
}

int64_t request_repeats(const struct request *req)
{
	return req->repeats ? req->begun_at : 0;
}

int64_t request_begun_at(const struct request *req)
{
	return req->begun_at;
}

void request_set_begun(struct request *req, int64_t begun_at, bool repeats)
{
	req->begun_at = begun_at;
	req->repeats = repeats;
}

int64_t request_content_length(const struct request *req)
{
	const char *text = request_header(req, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text ? strtoll(text, NULL, 10) : -1; /* libmicrohttpd has refused what is no number */
}

json_t *request_read_json(struct request *req)
{
	bool absent = req->body.len == 0 && req->route->body == HTTP_BODY_JSON_OPTIONAL;
	struct error err;
	json_t *value = absent ? json_object() : json_parse(req->body.data ? req->body.data : "", req->body.len, &err);

	if (!value)
		request_refuse_with(req, PROBLEM_INVALID_JSON, NULL, "%s", err.message);
	return value;
}

int request_read(struct request *req, const struct json_table *table, void *ret)
{
	json_t *value = request_read_json(req);
	struct error err;
	int r;

	if (!value)
		return -ECANCELED;
	r = json_read(table, value, ret, &err);
	json_decref(value);
	if (r < 0) {
		request_refuse_error(req, &err);
		return -ECANCELED;
	}
	return 0;
}

void request_on_gone(struct request *req, void (*gone)(void *ctx), void *ctx)
{
	req->gone = gone;
	req->gone_ctx = ctx;
}

/* The life of a request, as libmicrohttpd tells it. */

static struct request *request_new(struct listener *listener, struct MHD_Connection *connection)
{
	struct http *http = listener->http;
	struct request *req = calloc(1, sizeof(*req));

	if (!req)
		return NULL;
	req->http = http;
	req->listener = listener;
	req->connection = connection;
	req->begun_us = http_monotonic_us();
	buf_init(&req->body, HTTP_JSON_MAX);
	req->next = http->requests;
	req->prev = &http->requests;
	if (req->next)
		req->next->prev = &req->next;
	http->requests = req;
	return req;
}

static void request_free(struct request *req)
{
	*req->prev = req->next;
	if (req->next)
		req->next->prev = req->prev;
	loop_remove(req->peer);
	if (req->response)
		MHD_destroy_response(req->response);
	buf_done(&req->body);
	free(req->key);
	free(req);
}

static enum MHD_Result queue(struct request *req)
{
	enum MHD_Result r = MHD_queue_response(req->connection, (unsigned)req->status, req->response);

	http_connection_is_busy(req);
	MHD_destroy_response(req->response);
	req->response = NULL;
	http_count_answer(req);
	return r;
}

/* How much of a body may come, and is kept. */
static size_t body_max(const struct request *req)
{
	int64_t length = request_content_length(req);

	if (request_header(req, MHD_HTTP_HEADER_TRANSFER_ENCODING) || length > (int64_t)HTTP_JSON_MAX)
		return HTTP_JSON_MAX;
	return length > 0 ? (size_t)length : 0;
}

static void refuse_without_place(struct request *req)
{
	struct problem problem;

	problem_set(&problem, PROBLEM_BUSY, NULL, "the project has as many requests under way, or as much of their bodies and answers, as it may");
	problem_set_hint(&problem, "ask again once one of them has ended");
	request_refuse(req, &problem);
}

static enum MHD_Result on_headers(struct request *req, const char *url, const char *method, const char *token)
{
	req->url = url;
	req->method = method;
	if (req->http->guard->identify(req, token, &req->client, req->http->ctx))
		http_find_route(req, url, method);
	if (!req->response && req->http->guard->permit(req, http_route_scope(req->route), req->http->ctx))
		http_check_request(req);
	if (!req->response && req->route->body != HTTP_BODY_UPLOAD)
		req->body_max = body_max(req);
	if (!req->response && !http_has_place(req))
		refuse_without_place(req);
	req->body.secret = req->route && req->route->confidential;
	if (!req->response && req->route->body == HTTP_BODY_UPLOAD)
		req->upload = req->route->upload->begin(req, req->http->ctx);
	/* A long body is not read only to be dropped: the reply ends the connection. */
	if (req->response && request_content_length(req) > (int64_t)DRAIN_MAX)
		return queue(req);
	return MHD_YES;
}

static void on_data(struct request *req, const char *data, size_t len)
{
	if (req->response)
		return; /* refused already */
	if (req->upload)
		req->route->upload->data(req->upload, data, len);
	else if (buf_append(&req->body, data, len) < 0)
		request_refuse_with(
			req, PROBLEM_PAYLOAD_TOO_LARGE, NULL, "a JSON body may have at most %u bytes", HTTP_JSON_MAX);
}

static bool has_room(const struct request *req)
{
	const struct http_upload_ops *ops = req->route ? req->route->upload : NULL;

	return req->response || !req->upload || !ops->has_room || ops->has_room(req->upload);
}

/* False: it has been replied to. */
static bool begin_keyed(struct request *req)
{
	const struct http_keeper *keeper = req->http->keeper;
	const char *key = request_header(req, "Idempotency-Key");

	if (!keeper || !key || strcmp(req->route->method, "POST") != 0)
		return true;
	if (!keeper->begin(req, key, req->http->ctx))
		return false;
	req->key = strdup(key);
	if (!req->key)
		abort();
	return true;
}

static void on_complete_request(struct request *req)
{
	req->handled = true;
	if (req->response)
		return;
	if (req->upload) {
		void *upload = req->upload;

		req->upload = NULL;
		req->route->upload->end(upload);
	} else if (begin_keyed(req)) {
		req->route->handle(req, req->http->ctx);
	}
}

enum MHD_Result http_on_access(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *data, size_t *len, void **req_slot)
{
	struct listener *listener = ctx;
	struct request *req = *req_slot;

	(void)version;
	if (listener->http->ending)
		return MHD_NO;
	if (!req) {
		req = *req_slot = request_new(listener, connection);
		if (!req)
			return MHD_NO;
		http_connection_receives(req, 0);
		return on_headers(req, url, method, listener->token);
	}
	if (req->client_gone)
		return MHD_NO;
	if (*len && !has_room(req)) {
		http_connection_is_busy(req);
		suspend(req); /* what has come stays where it is */
		return MHD_YES;
	}
	if (*len) {
		if (!req->response) /* what is refused has no more time than it had then: its end lets the reply be seen */
			http_connection_receives(req, *len);
		on_data(req, data, *len);
		*len = 0;
		return MHD_YES;
	}
	http_connection_is_busy(req);
	if (!req->handled)
		on_complete_request(req);
	if (req->response)
		return queue(req);
	suspend(req);
	return MHD_YES;
}

void http_on_completed(
	void *ctx, struct MHD_Connection *connection, void **req_slot, enum MHD_RequestTerminationCode code)
{
	struct request *req = *req_slot;

	(void)ctx;
	(void)code;
	if (!req)
		return;
	*req_slot = NULL;
	if (!req->status && (req->handled || req->upload)) /* it was begun, and may have done something */
		req->http->audit(req, req->http->ctx);
	tell_gone(req);
	if (req->upload)
		req->route->upload->abort(req->upload);
	if (req->stream)
		req->stream->done(req->stream_ctx);
	if (req->upgraded)
		req->upgraded(req->upgraded_ctx, NULL, NULL, 0);
	request_free(req);
	http_connection_waits(connection);
}

struct http *http_new(struct loop *loop, const struct http_route *routes, const struct http_guard *guard,
	const struct http_keeper *keeper, http_audit_fn audit, void *ctx, struct error *err)
{
	struct http *http = calloc(1, sizeof(*http));

	if (!http) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	http->loop = loop;
	http->routes = routes;
	http->guard = guard;
	http->keeper = keeper;
	http->audit = audit;
	http->ctx = ctx;
	http->counts = http_counts_new(http);
	return http;
}

void http_free(struct http *http)
{
	if (!http)
		return;
	/* MHD_stop_daemon() aborts when it finds a suspended connection; no handler is to make one now. */
	http->ending = true;
	for (struct request *req = http->requests; req; req = req->next)
		if (req->suspended) {
			tell_gone(req);
			resume(req);
		}
	for (size_t i = 0; i < http->n_listeners; i++)
		http_stop_listening(&http->listeners[i]);
	free(http->counts);
	free(http);
}
