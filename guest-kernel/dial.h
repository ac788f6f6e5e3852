/* A TCP connection to a program in the machine, by the loopback. */
#ifndef HULL_GUEST_DIAL_H
#define HULL_GUEST_DIAL_H

#include "common/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct dial;

/* `r` is 0, and `fd`, the callee's from now on, a connected non-blocking socket; or -errno. The dial is over and freed. */
typedef void (*dial_fn)(void *ctx, int r, int fd);

/* To 127.0.0.1, and when nobody listens there, ::1. `fn` is called later, never from within, unless it is cancelled. There
 * is no deadline. NULL without memory. Loop thread. */
struct dial *dial_new(struct loop *loop, uint16_t port, dial_fn fn, void *ctx);
void dial_cancel(struct dial *dial); /* NULL is fine */

/* connect() of a socket of that family: 0, or -1 with errno set. */
int dial_loopback(int fd, uint16_t port, bool ipv6);

#endif
