/* Datagrams between clients of a published UDP port and the program in the machine, over one stream of the host's. */
#ifndef HULL_GUEST_DATAGRAMS_H
#define HULL_GUEST_DATAGRAMS_H

#include "common/loop.h"

#include <stddef.h>
#include <stdint.h>

struct datagrams;

/* Serves `host_fd`, a connected non-blocking stream socket, by the rules of DATAGRAMS (hull_guest.h), and owns it on success. `n_sessions`
 * (borrowed) counts those of all. When the host has gone, or breaks the rules, `done(ctx)` is called from the loop, once, and the
 * callee frees it. NULL without memory. Loop thread. */
struct datagrams *datagrams_new(
	struct loop *loop, int host_fd, uint16_t port, size_t *n_sessions, loop_fn done, void *ctx);

/* Ends all sessions. Does not call `done`. NULL is fine. */
void datagrams_free(struct datagrams *datagrams);

#endif
