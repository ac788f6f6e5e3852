/* Who a client of the API is, in which project it acts, and what it may do there.
 *
 * The host's administrator is whoever may open the Unix socket, or has the token that hulld was started with. It may do everything,
 * in the project `default` or the one that its header Hull-Project names. Everybody else comes with a token of one project
 * (token.h), which is what it acts in, and does what the token's scopes let it.
 *
 * What is another project's is for a client what is not there: the same answer, found in the same way. Handlers ask
 * request_project(), and find what they find by it. */
#ifndef HULL_API_ACCESS_H
#define HULL_API_ACCESS_H

#include "api/http.h"
#include "api/spec.h"

#define SCOPE_BIT(scope) (1u << (scope))

struct hulld;

struct client {
	char project[NAME_MAX_BYTES + 1]; /* that it acts in; is there as long as the request is */
	bool is_host;			  /* the host's administrator */
	char token[TOKEN_ID_BYTES + 1];	  /* that it came with; "": none of a project */
	char label[TOKEN_LABEL_MAX + 1];  /* of that */
	unsigned scopes;		  /* SCOPE_BIT()s */
	int64_t expires_at;		  /* ms since 1970; 0: never */
};

/* Its `ctx` is the hulld. */
extern const struct http_guard access_guard;

/* Requests end when their token expires. 0 or -errno with `err` set. */
int access_start(struct hulld *hulld, struct error *err);

/* One that a token may have: read, write, exec, admin. 0: there is none of that name. */
enum http_scope access_scope_by_name(const char *name);
/* Its name; "host" for what no token may; NULL for what every one may. */
const char *access_scope_name(enum http_scope scope);
/* Their names, for JSON; how many. */
size_t access_scope_names(unsigned scopes, char *ret[N_SCOPES]);

#endif
