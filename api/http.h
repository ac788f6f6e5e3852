/* The HTTP server: a routing table over libmicrohttpd, on the loop's thread.
 *
 * Theory of operation. libmicrohttpd runs without threads of its own: its epoll descriptor is a source of our
 * loop, so handlers run on the loop's thread and share everything with it without locks. A handler replies at
 * once, or keeps the request and replies later from any callback; meanwhile the connection is suspended and
 * costs nothing. While it is suspended its socket is watched for the client's going, and `gone` tells the
 * keeper to forget the request. */
#ifndef HULL_API_HTTP_H
#define HULL_API_HTTP_H

#include "api/problem.h"
#include "common/json.h"
#include "common/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct client;
struct http;
struct request;

#define HTTP_JSON	 "application/json"
#define HTTP_MERGE_PATCH "application/merge-patch+json"
#define HTTP_TEXT	 "text/plain; charset=utf-8"
#define HTTP_EVENTS	 "text/event-stream"
#define HTTP_TAR	 "application/x-tar"
#define HTTP_OPERATION	 "Operation" /* of an answer: the id of the operation that it is about */
#define HTTP_JSON_MAX ((1u << 20) - 1) /* bytes of a JSON body */

enum http_body {
	HTTP_BODY_NONE,
	HTTP_BODY_JSON,
	HTTP_BODY_JSON_OPTIONAL,
	HTTP_BODY_MERGE_PATCH, /* JSON, too: of some of the fields that `takes` has (RFC 7396) */
	HTTP_BODY_UPLOAD, /* bytes, to the route's upload functions as they come */
};

/* A parameter of a query. What is not as it says is refused before the handler is called, which need not look at it again; but
 * `pattern` is for the document alone: its handler looks. */
enum http_query_type {
	HTTP_QUERY_TEXT,  /* of `min` to `max` bytes of UTF-8 without a NUL (0: no bound) */
	HTTP_QUERY_INT,	  /* a number from `min` to `max`: request_query_int() */
	HTTP_QUERY_NAME,  /* one of `names` */
	HTTP_QUERY_NAMES, /* one or more of them, separated by commas */
};
struct http_query {
	const char *name, *help;
	enum http_query_type type;
	bool required;
	unsigned repeats; /* how often it may come; 0: once */
	int64_t min, max;
	const char *const *names; /* ended by NULL */
	const char *pattern;	  /* of TEXT, as struct json_field has it; NULL: any */
};
#define HTTP_QUERY_FLAG HTTP_QUERY_INT, .max = 1

/* What may stand in the place of a {parameter} of a path, for the document: handlers look. */
struct http_param {
	const char *name, *help, *pattern;
};

/* Codes of problems, as a set: REFUSES(WRONG_STATE) | REFUSES(TIMEOUT). */
#define CODE_BIT(code) (UINT64_C(1) << (code))
#define REFUSES(name)  CODE_BIT(PROBLEM_##name)

/* How a route takes bytes. `begin` replies and returns NULL when it refuses. `end` is called after the last byte and
 * replies, then or later. `abort` frees an upload that did not get as far as `end`. */
struct http_upload_ops {
	void *(*begin)(struct request *req, void *ctx);
	void (*data)(void *upload, const void *data, size_t len);
	void (*end)(void *upload);
	void (*abort)(void *upload);
	bool (*has_room)(void *upload); /* false: `data` is not called until request_wake(). NULL: there always is */
};

/* What becomes of an answer. */
enum http_fate {
	HTTP_ANSWER,	/* a repetition gets it */
	HTTP_UNDECIDED, /* a repetition is to be tried, after what this may have done */
	HTTP_MOMENTARY, /* nothing was done, and a repetition is as a first request */
};

/* Keeps answers, so that a POST which comes again with the same Idempotency-Key gets its first one. */
struct http_keeper {
	/* Before the handler. False: it has been replied to. */
	bool (*begin)(struct request *req, const char *key, void *ctx);
	/* Before the reply to one that was begun goes out. `type` and `text` may be NULL: no body. */
	void (*answer)(const struct request *req, int status, const char *type, const char *text, enum http_fate fate, void *ctx);
	/* For request_keep(). 0 or -errno with `err` set. */
	int (*keep)(const struct request *req, int status, const char *type, const char *text, void *ctx, struct error *err);
};

/* What a client must be allowed for a route. */
enum http_scope {
	SCOPE_BY_METHOD, /* read for GET and HEAD, else write */
	SCOPE_READ,
	SCOPE_WRITE,
	SCOPE_EXEC,  /* programs and files in machines */
	SCOPE_ADMIN, /* the project's tokens and webhooks */
	SCOPE_HOST,  /* no token of a project has it */
	SCOPE_ANY,   /* every token will do */
	N_SCOPES,
};

/* Knows who asks (access.h). */
struct http_guard {
	/* Of a request's head; before its route is looked for. `host_token`: the listener's. False: it has been refused. */
	bool (*identify)(struct request *req, const char *host_token, struct client *client, void *ctx);
	/* Once its route is known: does the client act in a project that there is for it, and may it? False: it has been refused. */
	bool (*permit)(struct request *req, enum http_scope scope, void *ctx);
};

/* Is told of every request once: before its answer goes out, whole or as a stream, or when it ends without one. */
typedef void (*http_audit_fn)(const struct request *req, void *ctx);

struct http_route {
	const char *method, *path; /* at most one {parameter}, a whole segment */
	const char *operation, *summary;
	enum http_body body;
	const struct json_table *takes, *gives; /* of JSON bodies; NULL: none or not by table */
	const char *upgrade;			/* another protocol that the connection may become; NULL: none */
	bool gives_list;			/* {"items": [gives…]} */
	const char *type;			/* of an answer, or a stream, that is not `gives`; NULL: there is none */
	int status, other_status;		/* of success; 0: there is no other */
	/* REFUSES() of what its handler refuses with, but for what many do (openapi.c). */
	uint64_t refuses;
	bool once;				/* a POST that is not to be done again when its outcome is unknown */
	bool shown_once;			/* a POST whose answer shows what nothing else does: kept by request_keep() alone, and sealed */
	bool begins_operation;			/* success has a HTTP_OPERATION field, where one is under way or was begun */
	bool unconditional;			/* its handler looks at no If-Match: one is refused */
	bool confidential;			/* what is sent holds secrets: it is wiped */
	enum http_scope scope;
	const struct http_query *queries;	/* ended by a NULL name; NULL: none are taken */
	void (*handle)(struct request *req, void *ctx);
	const struct http_upload_ops *upload;	/* HTTP_BODY_UPLOAD, instead of `handle` */
};

/* What was answered on a route since the start. */
#define HTTP_BUCKETS 7
struct http_count {
	uint64_t statuses[5];	       /* 1xx to 5xx */
	uint64_t within[HTTP_BUCKETS]; /* of http_bucket_ms, from a request's head to its answer's */
	uint64_t total, total_us;
};
extern const unsigned http_bucket_ms[HTTP_BUCKETS];

/* `routes` (ended by a NULL method), `guard`, `keeper` and `ctx` are borrowed. NULL with `err` set. */
struct http *http_new(struct loop *loop, const struct http_route *routes, const struct http_guard *guard,
	const struct http_keeper *keeper, http_audit_fn audit, void *ctx, struct error *err);
/* Before the first http_serve(): how long a client may take for the head of a request, and for each 64 KiB of its body. */
void http_set_patience(struct http *http, unsigned seconds);
/* Serves a listening socket (non-blocking), which it owns from then on. `token` (borrowed; NULL: who can connect is the host's
 * administrator) is for the guard. 0 or -errno with `err` set. */
int http_serve(struct http *http, int listen_fd, const char *token, struct error *err);
/* Ends connections, telling the keepers of unanswered requests. NULL is fine. */
void http_free(struct http *http);

/* Of one of its routes; NULL: of what fits none. Borrowed. */
const struct http_count *http_count(const struct http *http, const struct http_route *route);

/* Ends the requests that `fits` picks, as if their clients had gone; also those that are streams, or other protocols, by now. None of
 * them is handled any more. */
void http_end_requests(struct http *http, bool (*fits)(const struct client *client, void *ctx), void *ctx);

/* Of a request, valid until it is replied to. */
const struct client *request_client(const struct request *req);
const char *request_project(const struct request *req); /* that its client acts in */
const char *request_param(const struct request *req);			/* the path's {parameter}, or "" */
const char *request_query(const struct request *req, const char *name); /* NULL: absent */
/* Every value of one that may come several times, in order. */
void request_query_each(const struct request *req, const char *name, void (*fn)(void *ctx, const char *value), void *ctx);
/* One that the route has as HTTP_QUERY_INT, or `def` when absent. */
int64_t request_query_int(const struct request *req, const char *name, int64_t def);
const char *request_header(const struct request *req, const char *name); /* a field of the head; NULL: absent */
int64_t request_content_length(const struct request *req); /* -1: unknown */
/* Reads the JSON body (or {} for an absent optional one) by table. 0, or -ECANCELED having refused. */
int request_read(struct request *req, const struct json_table *table, void *ret);
/* The JSON body as it is, a new reference; NULL having refused. */
json_t *request_read_json(struct request *req);

/* For the keeper, and who has to know what a request that was cut short has left. */

/* What is asked: method, path, query and body, as SHA-256 in hexadecimal. */
void request_digest(const struct request *req, char ret[65]);
/* Its route's `once`, and `shown_once`: then `request_digest()` is of who asks, too. */
bool request_is_once(const struct request *req);
bool request_is_shown_once(const struct request *req);
/* Its route's `begins_operation`. */
bool request_begins_operation(const struct request *req);
/* Is another request with that key, in the same project, being served? */
bool request_key_is_busy(const struct request *req, const char *key);
/* The key of a request that was begun, or "". */
const char *request_key(const struct request *req);
/* The number of a request with a key, by which what it has done is known; a repetition has that of the first. 0: it has no key. */
int64_t request_number(const struct request *req);
/* Has it come before, and was not answered? */
bool request_repeats(const struct request *req);
void request_set_begun(struct request *req, int64_t number, bool repeats);
/* Ends the request with an answer that was kept. */
void request_replay(struct request *req, int status, const char *type, const char *text);

/* The field that makes it depend on what is there: If-Match or, where it is no GET, If-None-Match. NULL: none does. */
const char *request_condition(const struct request *req);
/* Does that (RFC 9110, section 13.2.2) allow what the request asks for, the resource being seen as `representation` (taken; NULL: there
 * is none)? 0, or -ECANCELED having refused. Asked before anything is changed. */
int request_check_match(struct request *req, json_t *representation);
/* The answer to a GET: 200 with it (taken), where its condition allows that. */
void request_reply_matching(struct request *req, json_t *representation);

/* Keeps the answer of a request with a key in the database, within the transaction of what it tells of: both are there, or neither, and
 * what was cut short is done again. request_reply() with the same follows the commit. 0, as without a key, or -errno with `err` set. */
int request_keep(struct request *req, int status, const json_t *body, struct error *err);

/* So many bytes are kept for its answer from now on. False: they are not to be, the project's requests have too much already. */
bool request_keeps(struct request *req, size_t bytes);

/* Called when the client has gone before the reply; the request must not be used any more. */
void request_on_gone(struct request *req, void (*gone)(void *ctx), void *ctx);

/* One of these ends each request. Loop thread. */
void request_reply(struct request *req, int status, json_t *body); /* takes `body`; NULL: no body */
void request_reply_text(struct request *req, const char *type, char *text); /* 200, with what is no JSON; takes `text` */
/* To the answer that has just been given, by one of these. */
void request_add_header(struct request *req, const char *name, const char *value);
void request_refuse(struct request *req, const struct problem *problem);
void request_refuse_error(struct request *req, const struct error *err); /* by problem_from_error() */
void request_refuse_lookup(struct request *req, const struct error *err); /* the same, but what the path names may not be there (ENOENT): 404 */
void request_refuse_with(struct request *req, enum problem_code code, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#define HTTP_STREAM_END	   (-1)
#define HTTP_STREAM_BROKEN (-2)

/* A body as it comes. `read` gives the bytes it stored, 0 (nothing now: request_wake() when there is), END, or BROKEN, which the client
 * sees as a body that is cut short; `done` frees `ctx` and is called once, also when the client goes. */
struct http_stream_ops {
	ssize_t (*read)(void *ctx, char *buf, size_t max);
	void (*done)(void *ctx);
	const char *type; /* NULL: text/plain */
};
void request_reply_stream(struct request *req, const struct http_stream_ops *ops, void *ctx);
/* Asks a stream's `read`, or an upload's `has_room`, again. Harmless when it is not waiting. */
void request_wake(struct request *req);

/* Does the client ask for the route's other protocol, by "Connection: Upgrade" and "Upgrade: PROTOCOL" (RFC
 * 9110, section 7.8)? */
bool request_wants_upgrade(const struct request *req);

/* A connection that speaks another protocol now. */
struct http_upgraded;

/* `conn` is the callee's until http_upgraded_end(); NULL: the client went before. `early`: what it sent already. */
typedef void (*http_upgraded_fn)(void *ctx, struct http_upgraded *conn, const char *early, size_t early_len);

/* Ends the request with 101 (section 15.2.2): `fn` is called once, from the loop. All that were upgraded must
 * have ended before http_free(). */
void request_reply_upgrade(struct request *req, http_upgraded_fn fn, void *ctx);
/* The socket, non-blocking; http_upgraded_end() closes it. */
int http_upgraded_fd(const struct http_upgraded *conn);
void http_upgraded_end(struct http_upgraded *conn); /* NULL is fine */

/* What the route's scope is: never SCOPE_BY_METHOD. */
enum http_scope http_route_scope(const struct http_route *route);

/* What every route with `gives_list` takes (page.h). */
extern const struct http_query http_page_queries[];

/* Do its answers bear an ETag? Is If-Match honoured? (http_conditional.c) */
bool http_route_is_tagged(const struct http_route *route);
bool http_route_has_preconditions(const struct http_route *route);

#endif
