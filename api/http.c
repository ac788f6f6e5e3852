/* The life of a request over libmicrohttpd. See http.h for the theory of operation. */
#include "api/http_request.h"

#include "common/buf.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_MAX (1u << 20) /* a refused body up to this is read to its end, so that the reply is seen */

static void on_peer(void *ctx, uint32_t events);
static void leave_peer(struct request *req);
static void tell_gone(struct request *req);

/* Suspending and resuming. */

void request_suspend(struct request *req)
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

void request_resume(struct request *req)
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
	request_resume(req);
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
	if (req->suspended) /* else libmicrohttpd sees it, or request_suspend() does */
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
		request_resume(req);
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
		request_suspend(req); /* what has come stays where it is */
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
	request_suspend(req);
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
			request_resume(req);
		}
	for (size_t i = 0; i < http->n_listeners; i++)
		http_stop_listening(&http->listeners[i]);
	free(http->counts);
	free(http);
}
