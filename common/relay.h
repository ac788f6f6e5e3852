/* Copies a byte stream both ways between two sockets, without blocking and with bounded memory: the agent's streams
 * and the ingress's connections.
 *
 * Theory of operation. Each direction holds at most RELAY_BUFFER_BYTES that its target would not take yet, and reads
 * no more from its source meanwhile: back-pressure reaches the sender. Nothing is held while bytes flow, so an idle
 * relay costs no buffer. The end of one direction is passed on (shutdown of writing) while the other goes on;
 * the relay ends when both have ended. A target that takes no more bytes ends its direction, a source that fails
 * ends the relay. */
#ifndef HULL_COMMON_RELAY_H
#define HULL_COMMON_RELAY_H

#include "common/cleanup.h"
#include "common/loop.h"

#define RELAY_BUFFER_BYTES (64 * 1024)

struct relay;

/* Starts copying between `a` and `b`, connected non-blocking stream sockets. On success the relay owns both;
 * when it has ended it calls `done(ctx)` from the loop, once, and the callee frees it. On failure NULL with errno
 * set, and the descriptors stay the caller's. Loop thread. */
struct relay *relay_new(struct loop *loop, int a, int b, loop_fn done, void *ctx);

/* Closes both descriptors and drops what was not delivered. Does not call `done`. NULL is fine. Loop thread. */
void relay_free(struct relay *relay);
DEFINE_CLEANUP(struct relay *, relay_free)

#endif
