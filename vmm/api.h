/* The API's rules: which route takes a request, in which state of the machine, with what body; and how an answer is written.
 * It knows neither sockets nor machines: the routes' handlers do. Loop thread. */
#ifndef HULL_VMM_API_H
#define HULL_VMM_API_H

#include "common/http.h"
#include "common/json.h"

/* The machine's state, as GET / tells it; a route names those in which it is served. */
enum api_state { API_NOT_STARTED = 1, API_RUNNING = 2, API_PAUSED = 4 };
#define API_STARTED (API_RUNNING | API_PAUSED)
#define API_ALWAYS  (API_NOT_STARTED | API_STARTED)

enum api_body { API_BODY_NONE, API_BODY_JSON, API_BODY_OPTIONAL };

struct api_call {
	const char *id;	    /* what stands for {id} in the route's path, or "" */
	const json_t *body; /* NULL: none */
	json_t *answer;	    /* to be set by the handler, owned from then on: 200; left NULL: 204 */
	int refusal;	    /* the status of a refusal: 400, unless the handler says otherwise */
};

struct api_route {
	enum http_method method;
	const char *path; /* one {id} at most, a whole segment of letters, digits and '_' */
	unsigned states;  /* of enum api_state */
	enum api_body body;
	/* 0, or -errno with `err` set: the client reads it as fault_message. */
	int (*handle)(void *ctx, struct api_call *call, struct error *err);
};

struct api_metrics;

struct api {
	const struct api_route *routes; /* ended by a NULL path */
	enum api_state (*state)(void *ctx);
	void *ctx; /* of `state` and of every handler */
	struct api_metrics *metrics;
};

/* For a handler whose body says in which of the states it is served: 0, or -errno with `err` set. */
int api_check_state(unsigned served_in, enum api_state state, struct error *err);

/* Serves one request, whose body (head->body_bytes) lies at `body`, and appends the answer to `out`. 0 or as buf_append(). */
int api_serve(const struct api *api, const struct http_head *head, const char *body, struct buf *out);
/* Appends a refusal of what never became a call; `err` is told. */
int api_refuse(int status, bool keep_alive, const struct error *err, struct buf *out);

#endif
