/* Asks the outside of an emulated host to forward ports to it (kvmhost), one line a question, one line an answer. */
#ifndef HULL_API_INGRESS_FORWARDER_H
#define HULL_API_INGRESS_FORWARDER_H

#include "common/error.h"
#include "common/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct forwarder;

/* `err` NULL: done. EADDRINUSE: the other side refused, with its reason. */
typedef void (*forwarder_done_fn)(void *ctx, const struct error *err);

/* `path`: a Unix socket or a character device, opened with the first question. NULL with errno set. */
struct forwarder *forwarder_new(struct loop *loop, const char *path);
void forwarder_free(struct forwarder *forwarder);

/* Asks; `done` is called from the loop, never at once. Questions are asked one after the other. */
void forwarder_add(
	struct forwarder *forwarder, const char *address, uint16_t port, bool udp, forwarder_done_fn done, void *ctx);
/* Asks; nobody waits for the answer. */
void forwarder_remove(struct forwarder *forwarder, const char *address, uint16_t port, bool udp);
/* `done` of this `ctx` is not called any more. */
void forwarder_cancel(struct forwarder *forwarder, const void *ctx);
/* Calls `drained(ctx)` from the loop once no question is left, or one has failed: the end of the process. */
void forwarder_drain(struct forwarder *forwarder, loop_fn drained, void *ctx);

#endif
