/* A request and where it came from, as the HTTP server's files (http*.c) share it, and its guard and its auditor see it. Nobody else. */
#ifndef HULL_API_HTTP_REQUEST_H
#define HULL_API_HTTP_REQUEST_H

#include "api/access.h"
#include "api/http.h"
#include "common/buf.h"

#include <microhttpd.h>
#include <sys/queue.h>

#define LISTENERS_MAX	 2
#define HTTP_QUERIES_MAX 16 /* of a route */

TAILQ_HEAD(connections, connection);

/* See http_listen.c. */
struct connection {
	struct listener *listener;
	int fd; /* libmicrohttpd's */
	uint64_t deadline_ns;
	size_t received; /* of a body, since the deadline was set */
	struct connections *list; /* that it is in; NULL: it is busy */
	TAILQ_ENTRY(connection) link;
};

struct listener {
	struct http *http;
	int fd;
	struct MHD_Daemon *daemon;
	const char *token;
	struct loop_source *events, *timer; /* of the daemon */
	struct loop_source *accepting, *sweep;
	bool sweeping; /* `sweep` is armed */
	size_t n_connections;
	struct connections waiting, receiving;
};

struct http {
	struct loop *loop;
	const struct http_route *routes;
	const struct http_guard *guard;
	const struct http_keeper *keeper;
	http_audit_fn audit;
	void *ctx;
	struct listener listeners[LISTENERS_MAX];
	size_t n_listeners;
	struct http_count *counts; /* by route (http_count.c) */
	struct request *requests; /* all there are */
	bool ending;		  /* none is taken any more */
	unsigned patience_s;
	size_t connections_max; /* of each listener */
};

struct request {
	struct http *http;
	struct listener *listener;
	struct MHD_Connection *connection;
	struct client client;
	const struct http_route *route; /* NULL when none matches; it is then refused */
	const char *url, *method; /* its path, and how; libmicrohttpd's, as long as the request */
	char param[256]; /* as long as a host name can be, and more */
	char subject[64];     /* what its answer shows: an id or a name, or "" */
	const char *code;     /* of the problem that it is refused with, or NULL */
	bool replayed;	      /* its answer is one that was kept */
	char *key;	 /* its Idempotency-Key, once the keeper has begun it; owned */
	int64_t number;	  /* request_number() */
	int64_t begun_us; /* of the monotonic clock */
	bool repeats;	  /* it came before */
	bool kept;	  /* request_keep() has its answer */
	struct buf body;
	size_t body_max;     /* bytes that may come, of one that is kept in `body` */
	size_t answer_bytes; /* of one that is in memory as a whole, or comes to be */
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
	http_upgraded_fn upgraded; /* until it was called */
	void *upgraded_ctx;
	struct loop_source *peer; /* watches the socket, from when it was suspended first */
	bool peer_gone;		  /* that has told of its end */
	struct request *next, **prev;
};

/* http_listen.c. */

/* `len` bytes of its body have come; 0: the body is awaited. */
void http_connection_receives(struct request *req, size_t len);
/* Its body is there, or is kept waiting by us. */
void http_connection_is_busy(struct request *req);
/* Its last request has been answered. */
void http_connection_waits(struct MHD_Connection *connection);
/* Is there one for it beside what its project has under way? */
bool http_has_place(const struct request *req);
/* Is there room for an answer of so many bytes beside what its project's other requests hold? One alone may be larger. */
bool http_has_room(const struct request *req, size_t answer_bytes);
void http_stop_listening(struct listener *listener);

/* http.c: as libmicrohttpd calls them. */
enum MHD_Result http_on_access(void *ctx, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
	const char *data, size_t *len, void **req_slot);
void http_on_completed(void *ctx, struct MHD_Connection *connection, void **req_slot, enum MHD_RequestTerminationCode code);

/* Its connection is looked at no more until request_resume(), but for the client's going. Not while it is suspended. */
void request_suspend(struct request *req);
/* Harmless when it is not suspended. */
void request_resume(struct request *req);

/* http_conditional.c: does the client of a GET have what `etag` stands for already (section 13.1.2)? */
bool http_is_not_modified(const struct request *req, const char *etag);
/* Is what request_condition() has named no list of tags? Then it has been refused, whether it would be looked at or not. */
bool http_condition_is_senseless(struct request *req, const char *field);

/* http_count.c. All that `http` has routes for; calloc()ed. */
struct http_count *http_counts_new(const struct http *http);
void http_count_answer(const struct request *req);
int64_t http_monotonic_us(void);

/* http_route.c. Each leaves the request refused (it then has a response) when it is not to be served. */

/* Finds its route, and the path's {parameter}. */
void http_find_route(struct request *req, const char *url, const char *method);
/* Is its query as the route has it (http_query.c)? */
void http_check_query(struct request *req);
/* Are its query and what is known of its body as the route has them? */
void http_check_request(struct request *req);

#endif
