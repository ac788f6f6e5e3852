/* Requests of HTTP/1.1, in the strict subset that a machine's own clients need (RFC 9112): a head of a method, a target
 * and fields, then a body of a stated length. No chunked bodies, no folded fields, no upgrades: what is not understood is
 * refused, never guessed at, since two readers who guess differently are how requests are smuggled. */
#ifndef HULL_COMMON_HTTP_H
#define HULL_COMMON_HTTP_H

#include "common/buf.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

#define HTTP_HEAD_MAX	 8192 /* bytes of request line and fields, with the empty line */
#define HTTP_FIELDS_MAX	 48

enum http_method { HTTP_GET, HTTP_PUT, HTTP_PATCH, HTTP_DELETE, HTTP_OTHER };

/* A part of the caller's text: no NUL behind it. */
struct http_text {
	const char *data;
	size_t len;
};

struct http_field {
	struct http_text name, value; /* the value without white space around it */
};

/* Points into the text that was parsed. */
struct http_head {
	enum http_method method;
	struct http_text method_name, target; /* the target begins with '/': scheme and host are left out */
	struct http_field fields[HTTP_FIELDS_MAX];
	size_t n_fields;
	size_t head_bytes; /* the body begins here */
	size_t body_bytes; /* Content-Length, or 0 */
	bool has_length;   /* Content-Length was given */
	bool keep_alive;   /* the connection goes on after the answer */
	bool expects_continue;
};

/* Looks for a whole head at the start of `text`: 1 when it is there, 0 when more of it has to come, -EMSGSIZE when it is
 * longer than HTTP_HEAD_MAX, -EOPNOTSUPP for a body without a length, -EPROTO for what is no HTTP; `err` is set then. */
int http_parse_head(const char *text, size_t len, struct http_head *ret, struct error *err);

/* The first field of that name (any case), or NULL. */
const struct http_text *http_find_field(const struct http_head *head, const char *name);
/* Whether the text is `string`, in any case of letters. */
bool http_text_is(const struct http_text *text, const char *string);

/* An answer's head and body. `fields`: whole lines, each with CRLF, or "". 0, or as buf_append() with
 * `out` as it was. */
int http_put_answer(struct buf *out, int status, bool keep_alive, const char *fields, const char *type,
	const void *body, size_t len);

#endif
