/* Frames copied between a client of HTTP and the agent in a machine, until both have ended. */
#ifndef HULL_API_EXEC_STREAM_H
#define HULL_API_EXEC_STREAM_H

#include "api/http.h"
#include "common/loop.h"

struct exec_stream;

/* Owns `conn` and `agent_fd` in any case. `early` goes to the agent first. `done(ctx)` is called once, from
 * the loop, when it is over; the callee frees. NULL when it cannot begin. */
struct exec_stream *exec_stream_new(struct loop *loop, struct http_upgraded *conn, int agent_fd, const char *early,
	size_t early_len, loop_fn done, void *ctx);
void exec_stream_free(struct exec_stream *stream); /* NULL is fine */

#endif
