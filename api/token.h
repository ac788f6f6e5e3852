/* Tokens: what lets a client act in one project, and do there what its scopes say, until it expires or is revoked.
 *
 *	hull_tabcdefghijklm_<52 characters>
 *	     id             secret: 260 bits of the kernel's
 *
 * Shown once, when it is made, or to who asks with the same Idempotency-Key (idempotency.h). What is kept is its SHA-256, which needs neither salt nor stretching for a secret like that; it is
 * found by its id, and compared in a time that does not depend on it.
 *
 * A project has TOKENS_MAX at most, TOKENS_ADMIN_MAX of them with the scope admin; those that have expired make room, and are forgotten after
 * a week. */
#ifndef HULL_API_TOKEN_H
#define HULL_API_TOKEN_H

#include "api/access.h"
#include "api/hulld.h"

#define TOKEN_PREFIX	 "hull_"
#define TOKENS_MAX	 1000
#define TOKENS_ADMIN_MAX 100

struct token_spec {
	char *label;
	struct json_strings scopes;
	int64_t expires_in_s; /* 0: never */
};
extern const struct json_table token_spec_table;

/* What a client sees of a token. */
struct token_view {
	char *id, *project, *label;
	struct json_strings scopes;
	char *created_at, *expires_at, *last_used_at;
	char *token; /* when it is made; else NULL */
};
extern const struct json_table token_table, new_token_table;

/* A step of forgetting (forget.h) those that have expired long ago. */
int tokens_forget(struct hulld *hulld, int64_t now, struct error *err);

/* Who comes with `text`: the rest of `*ret` stays as it is. 0, or -errno with `err` set: -EACCES when it is none that is valid. */
int token_identify(struct hulld *hulld, const char *text, struct client *ret, struct error *err);

/* Routes; their context is a struct hulld. */
void token_http_create(struct request *req, void *ctx);
void token_http_list(struct request *req, void *ctx);
void token_http_get(struct request *req, void *ctx);
void token_http_delete(struct request *req, void *ctx);

#endif
