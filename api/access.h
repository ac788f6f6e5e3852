/* Who a client of the API is, and in which project it acts.
 *
 * The host's administrator is whoever may open the Unix socket, or has the token that hulld was started with. It acts in the project
 * `default`, or in the one that its header Hull-Project names. What is another project's is for a client what is not there: the same
 * answer, found in the same way. Handlers ask request_project(), and find what they find by it. */
#ifndef HULL_API_ACCESS_H
#define HULL_API_ACCESS_H

#include "api/http.h"
#include "api/spec.h"

struct client {
	char project[NAME_MAX_BYTES + 1]; /* that it acts in; is there as long as the request is */
	bool is_host;			  /* the host's administrator */
};

/* Its `ctx` is the hulld. */
extern const struct http_guard access_guard;

#endif
