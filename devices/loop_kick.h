/* Brings work to the loop thread: for device code that runs on a vCPU thread (a reset, a doorbell that came
 * as an exit) and may not touch loop sources there, and for work cut off by its budget. */
#ifndef HULL_DEVICES_LOOP_KICK_H
#define HULL_DEVICES_LOOP_KICK_H

#include "common/loop.h"

#include <pthread.h>

struct loop_kick {
	int fd; /* eventfd; -1 while not initialised */
	struct loop_source *source;
	loop_fn fn;
	void *ctx;
	pthread_t thread;  /* the loop's, once it is known */
	bool thread_known; /* atomic; set at the first call of `fn` */
};

/* `fn(ctx)` is called on the loop thread after each loop_kick() (many before the call count as one). 0 or
 * -errno; on failure loop_kick_done() may still be called. */
int loop_kick_init(struct loop_kick *kick, struct loop *loop, loop_fn fn, void *ctx);
/* Loop thread. `fn` is not called any more. */
void loop_kick_done(struct loop_kick *kick);
/* Any thread. */
void loop_kick(struct loop_kick *kick);
/* Whether the calling thread is known to be the loop's; false until `fn` has been called once. Any thread. */
bool loop_kick_is_loop_thread(const struct loop_kick *kick);

#endif
