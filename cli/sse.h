/* Server-Sent Events (WHATWG HTML, section 9.2.6), as bytes come. */
#ifndef HULL_CLI_SSE_H
#define HULL_CLI_SSE_H

#include "common/buf.h"

#include <stdbool.h>

#define SSE_TEXT_MAX (4u << 20) /* bytes of a line, and of an event's data */

struct sse {
	struct buf line, data;
	bool after_cr; /* a LF that follows is of the same end of a line */
	bool has_data;
	long long id, next_id; /* the last event's; of the one that is being read. -1: none was given */
	int retry_ms;	       /* as the server wishes; -1: it has not said */
	int (*on_event)(void *ctx, const char *data, size_t len);
	void *ctx;
};

void sse_init(struct sse *sse, int (*on_event)(void *ctx, const char *data, size_t len), void *ctx);
void sse_done(struct sse *sse);
/* A new connection: what was begun on the old one is nothing. */
void sse_restart(struct sse *sse);
/* 0, what on_event() returned when that was negative, -EMSGSIZE for more than SSE_TEXT_MAX, -ENOMEM. */
int sse_feed(struct sse *sse, const char *data, size_t len);

#endif
