/* One command to a running HAProxy, over its own socket: a connection each, an answer of text, its end. */
#ifndef HULL_API_HAPROXY_CALL_H
#define HULL_API_HAPROXY_CALL_H

#include "common/error.h"
#include "common/loop.h"

struct haproxy_call;

/* `answer`: what it said, with a NUL; NULL when it did not, with `err` set. */
typedef void (*haproxy_fn)(void *ctx, const char *answer, const struct error *err);

/* Sends `command`, a line without its newline, with its payload if it has one. `fn` is called once, later. */
struct haproxy_call *haproxy_call(struct loop *loop, const char *socket_path, const char *command, haproxy_fn fn, void *ctx);
/* `fn` is not called any more; what was sent may have been done. NULL is fine. */
void haproxy_call_cancel(struct haproxy_call *call);

#endif
