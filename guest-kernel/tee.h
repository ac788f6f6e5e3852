/* A copy of what a program writes, into a pipe that is not always emptied at once. */
#ifndef HULL_GUEST_TEE_H
#define HULL_GUEST_TEE_H

#include "common/loop.h"

#include <stddef.h>

struct tee;

/* Into `fd`, a pipe's non-blocking write end, owned in any case. `ready(ctx)` is called when it is idle again. NULL without memory. */
struct tee *tee_new(struct loop *loop, int fd, loop_fn ready, void *ctx);
void tee_free(struct tee *tee); /* NULL is fine */

/* Writes now or soon. Not before it is idle. 0 or -ENOMEM. A reader that is gone wants nothing. */
int tee_put(struct tee *tee, const void *data, size_t len);
/* Is nothing of it still to be written? Also of NULL. */
bool tee_is_idle(const struct tee *tee);

#endif
