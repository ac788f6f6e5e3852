/* Requests and replies over libmicrohttpd. See http.h for the theory of operation. */
#include "api/http.h"

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS_MAX	    1000
#define CONNECTION_MEMORY   (64u << 10) /* bytes of buffer each: headers, and one piece of a body */
#define IDLE_TIMEOUT_S	    60		/* a client that sends or takes nothing; suspended ones are not idle */
#define STREAM_BLOCK_BYTES  (16u << 10)
#define DRAIN_MAX	    (1u << 20) /* a refused body up to this is read to its end, so that the reply is seen */
#define LISTENERS_MAX	    2

struct listener {
	struct http *http;
	struct MHD_Daemon *daemon;
	const char *token;
	struct loop_source *events, *timer;
};

struct http {
	struct loop *loop;
	const struct http_route *routes;
	void *ctx;
	struct listener listeners[LISTENERS_MAX];
	size_t n_listeners;
	struct request *requests; /* all there are */
	bool ending;		  /* none is taken any more */
};

struct request {
	struct http *http;
	struct listener *listener;
	struct MHD_Connection *connection;
	const struct http_route *route; /* NULL when none matches; it is then refused */
	char param[128];
	struct buf body;
	bool too_large;
	bool handled;	/* the handler has been called */
	bool suspended;
	bool client_gone;
	struct MHD_Response *response; /* until it is queued */
	int status;
	void *upload;
	void (*gone)(void *ctx);
	void *gone_ctx;
	const struct http_stream_ops *stream;
	void *stream_ctx;
	struct loop_source *peer; /* watches the socket while suspended */
	struct request *next, **prev;
};

static void on_peer(void *ctx, uint32_t events);

/* Suspending and resuming. */

static void suspend(struct request *req)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	assert(!req->suspended);
	MHD_suspend_connection(req->connection);
	req->suspended = true;
	req->peer = loop_add_fd(req->http->loop, info->connect_fd, EPOLLRDHUP, on_peer, req);
}

static void resume(struct request *req)
{
	if (!req->suspended)
		return;
	loop_remove(req->peer);
	req->peer = NULL;
	req->suspended = false;
	MHD_resume_connection(req->connection);
	/* Without a thread of its own libmicrohttpd looks at resumed connections only when it is run. */
	loop_timer_arm(req->listener->timer, 0);
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
	tell_gone(req);
	resume(req);
}

/* Replies. */

static void set_response(struct request *req, int status, struct MHD_Response *response)
{
	assert(!req->response && !req->stream);
	req->gone = NULL;
	req->status = status;
	req->response = response;
	resume(req);
}

static void reply_text(struct request *req, int status, const char *type, char *text)
{
	size_t len = text ? strlen(text) : 0;
	struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);

	if (!response)
		abort(); /* out of memory, as everywhere in JSON */
	if (type)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	set_response(req, status, response);
}

static void reply_json(struct request *req, int status, const char *type, json_t *body)
{
	char *compact = body ? json_dumps(body, JSON_COMPACT) : NULL;
	char *text = NULL;

	if (body && (!compact || asprintf(&text, "%s\n", compact) < 0))
		abort();
	free(compact);
	json_decref(body);
	reply_text(req, status, body ? type : NULL, text);
}

void request_reply(struct request *req, int status, json_t *body)
{
	reply_json(req, status, "application/json", body);
}

void request_refuse(struct request *req, const struct problem *problem)
{
	if (problem->code == PROBLEM_INTERNAL)
		log_error_object(&problem->error, "a request failed");
	reply_json(req, problem_status(problem->code), "application/problem+json", problem_dump(problem));
	if (problem->code == PROBLEM_UNAUTHORIZED)
		MHD_add_response_header(req->response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
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
	return n < 0 ? MHD_CONTENT_READER_END_OF_STREAM : n;
}

void request_reply_stream(struct request *req, const struct http_stream_ops *ops, void *ctx)
{
	struct MHD_Response *response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, req, NULL);

	if (!response)
		abort();
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
	set_response(req, 200, response);
	req->stream = ops;
	req->stream_ctx = ctx;
}

void request_wake(struct request *req)
{
	if (req->stream)
		resume(req);
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

int request_query_int(struct request *req, const char *name, int64_t min, int64_t max, int64_t def, int64_t *ret)
{
	const char *text = request_query(req, name);
	char *end;
	long long value;

	*ret = def;
	if (!text)
		return 0;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || end == text || *end || value < min || value > max) {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, name, "must be a number from %" PRId64 " to %" PRId64, min,
			max);
		return -ECANCELED;
	}
	*ret = value;
	return 0;
}

static const char *header(const struct request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

int64_t request_content_length(const struct request *req)
{
	const char *text = header(req, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text ? strtoll(text, NULL, 10) : -1; /* libmicrohttpd has refused what is no number */
}

int request_read(struct request *req, const struct json_table *table, void *ret)
{
	bool absent = req->body.len == 0 && req->route->body == HTTP_BODY_JSON_OPTIONAL;
	struct error err;
	json_t *value = absent ? json_object() : json_parse(req->body.data ? req->body.data : "", req->body.len, &err);
	int r;

	if (!value) {
		request_refuse_with(req, PROBLEM_INVALID_JSON, NULL, "%s", err.message);
		return -ECANCELED;
	}
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

/* Routing. */

/* Does `url` fit `path`? Copies the segment in the place of {…} to `param`. */
static bool path_fits(const char *path, const char *url, char *param, size_t size)
{
	const char *brace = strchr(path, '{');
	size_t before = brace ? (size_t)(brace - path) : 0, len;

	param[0] = '\0';
	if (!brace)
		return strcmp(path, url) == 0;
	if (strncmp(path, url, before) != 0)
		return false;
	len = strcspn(url + before, "/");
	if (len == 0 || len >= size || strcmp(strchr(brace, '}') + 1, url + before + len) != 0)
		return false;
	memcpy(param, url + before, len);
	param[len] = '\0';
	return true;
}

static void refuse_method(struct request *req, const char *url, const char *method)
{
	char param[sizeof(req->param)], allow[64] = "";
	const struct http_route *route;

	for (route = req->http->routes; route->method; route++)
		if (path_fits(route->path, url, param, sizeof(param)))
			snprintf(allow + strlen(allow), sizeof(allow) - strlen(allow), "%s%s", allow[0] ? ", " : "",
				route->method);
	if (!allow[0]) {
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no %.120s here", url);
		return;
	}
	request_refuse_with(req, PROBLEM_METHOD_NOT_ALLOWED, NULL, "%.20s is not one of %s", method, allow);
	MHD_add_response_header(req->response, MHD_HTTP_HEADER_ALLOW, allow);
}

static void find_route(struct request *req, const char *url, const char *method)
{
	const struct http_route *route;
	int pass;

	/* HEAD is GET without the body, unless a route of its own says otherwise. */
	for (pass = 0; pass < 2; pass++) {
		for (route = req->http->routes; route->method; route++)
			if (strcmp(route->method, method) == 0 &&
				path_fits(route->path, url, req->param, sizeof(req->param))) {
				req->route = route;
				return;
			}
		if (strcmp(method, "HEAD") != 0)
			break;
		method = "GET";
	}
	refuse_method(req, url, method);
}

/* Compares in a time that does not depend on where the difference is. */
static bool same_token(const char *a, const char *b)
{
	size_t len_a = strlen(a), len_b = strlen(b);
	unsigned char difference = len_a != len_b;

	for (size_t i = 0; i < len_a; i++)
		difference |= (unsigned char)(a[i] ^ b[len_b ? i % len_b : 0]);
	return difference == 0;
}

static bool authorize(struct request *req, const char *token)
{
	static const char scheme[] = "Bearer ";
	const char *given = header(req, MHD_HTTP_HEADER_AUTHORIZATION);
	struct problem problem;

	if (!token)
		return true;
	if (given && strncasecmp(given, scheme, strlen(scheme)) == 0 && same_token(given + strlen(scheme), token))
		return true;
	problem_set(&problem, PROBLEM_UNAUTHORIZED, NULL, given ? "the token is wrong" : "a token is needed");
	problem_set_hint(&problem, "send Authorization: Bearer TOKEN");
	request_refuse(req, &problem);
	return false;
}

static enum MHD_Result check_query(void *ctx, enum MHD_ValueKind kind, const char *key, const char *value)
{
	struct request *req = ctx;
	const struct http_query *query = req->route->queries;

	(void)kind;
	(void)value;
	for (; query && query->name; query++)
		if (strcmp(query->name, key) == 0)
			return MHD_YES;
	request_refuse_with(req, PROBLEM_UNKNOWN_FIELD, key, "unknown query parameter");
	return MHD_NO;
}

static void check_body(struct request *req)
{
	const char *type = header(req, MHD_HTTP_HEADER_CONTENT_TYPE);
	struct problem problem;

	if (req->route->body != HTTP_BODY_JSON && req->route->body != HTTP_BODY_JSON_OPTIONAL)
		return;
	if (request_content_length(req) > (int64_t)HTTP_JSON_MAX) {
		request_refuse_with(
			req, PROBLEM_PAYLOAD_TOO_LARGE, NULL, "a JSON body may have at most %u bytes", HTTP_JSON_MAX);
	} else if (type && strncasecmp(type, "application/json", strlen("application/json")) != 0) {
		problem_set(&problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, NULL, "the body is %.80s", type);
		problem_set_hint(&problem, "send Content-Type: application/json");
		request_refuse(req, &problem);
	}
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
	free(req);
}

static enum MHD_Result queue(struct request *req)
{
	enum MHD_Result r = MHD_queue_response(req->connection, (unsigned)req->status, req->response);

	MHD_destroy_response(req->response);
	req->response = NULL;
	return r;
}

static enum MHD_Result on_headers(struct request *req, const char *url, const char *method, const char *token)
{
	if (authorize(req, token))
		find_route(req, url, method);
	if (!req->response)
		MHD_get_connection_values(req->connection, MHD_GET_ARGUMENT_KIND, check_query, req);
	if (!req->response)
		check_body(req);
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

static void on_complete_request(struct request *req)
{
	req->handled = true;
	if (req->response)
		return;
	if (req->upload) {
		void *upload = req->upload;

		req->upload = NULL;
		req->route->upload->end(upload);
	} else {
		req->route->handle(req, req->http->ctx);
	}
}

static enum MHD_Result on_access(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *data, size_t *len, void **req_slot)
{
	struct listener *listener = ctx;
	struct request *req = *req_slot;

	(void)version;
	if (listener->http->ending)
		return MHD_NO;
	if (!req) {
		req = *req_slot = request_new(listener, connection);
		return req ? on_headers(req, url, method, listener->token) : MHD_NO;
	}
	if (req->client_gone)
		return MHD_NO;
	if (*len) {
		on_data(req, data, *len);
		*len = 0;
		return MHD_YES;
	}
	if (!req->handled)
		on_complete_request(req);
	if (req->response)
		return queue(req);
	suspend(req);
	return MHD_YES;
}

static void on_completed(
	void *ctx, struct MHD_Connection *connection, void **req_slot, enum MHD_RequestTerminationCode code)
{
	struct request *req = *req_slot;

	(void)ctx;
	(void)connection;
	(void)code;
	if (!req)
		return;
	*req_slot = NULL;
	tell_gone(req);
	if (req->upload)
		req->route->upload->abort(req->upload);
	if (req->stream)
		req->stream->done(req->stream_ctx);
	request_free(req);
}

/* libmicrohttpd as a source of the loop. */

static void run_daemon(struct listener *listener)
{
	MHD_UNSIGNED_LONG_LONG timeout_ms;

	MHD_run(listener->daemon);
	loop_timer_arm(listener->timer, MHD_get_timeout(listener->daemon, &timeout_ms) == MHD_YES
						? (uint64_t)timeout_ms * 1000000
						: UINT64_MAX);
}

static void on_daemon_events(void *ctx, uint32_t events)
{
	(void)events;
	run_daemon(ctx);
}

static void on_daemon_timer(void *ctx)
{
	run_daemon(ctx);
}

static void on_daemon_log(void *ctx, const char *fmt, va_list args)
{
	char line[512];

	(void)ctx;
	vsnprintf(line, sizeof(line), fmt, args);
	line[strcspn(line, "\n")] = '\0';
	log_debug("http: %s", line);
}

struct http *http_new(struct loop *loop, const struct http_route *routes, void *ctx, struct error *err)
{
	struct http *http = calloc(1, sizeof(*http));

	if (!http) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	http->loop = loop;
	http->routes = routes;
	http->ctx = ctx;
	return http;
}

int http_serve(struct http *http, int listen_fd, const char *token, struct error *err)
{
	struct listener *listener = &http->listeners[http->n_listeners];
	const union MHD_DaemonInfo *info;

	assert(http->n_listeners < LISTENERS_MAX);
	listener->http = http;
	listener->token = token;
	listener->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
		on_access, listener, MHD_OPTION_EXTERNAL_LOGGER, on_daemon_log, NULL, MHD_OPTION_LISTEN_SOCKET, listen_fd,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)IDLE_TIMEOUT_S, MHD_OPTION_END);
	if (!listener->daemon) {
		close_fd(listen_fd);
		return error_set(err, EIO, "libmicrohttpd does not take the listening socket");
	}
	http->n_listeners++;
	info = MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	listener->events = loop_add_fd(http->loop, info->epoll_fd, EPOLLIN, on_daemon_events, listener);
	listener->timer = loop_add_timer(http->loop, on_daemon_timer, listener);
	if (!listener->events || !listener->timer)
		return error_set_errno(err, errno, "cannot watch the HTTP server");
	return 0;
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
	for (size_t i = 0; i < http->n_listeners; i++) {
		struct listener *listener = &http->listeners[i];

		MHD_run(listener->daemon);
		loop_remove(listener->events);
		loop_remove(listener->timer);
		MHD_stop_daemon(listener->daemon);
	}
	free(http);
}
