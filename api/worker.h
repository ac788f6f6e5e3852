/* Work that may take long, beside the loop: each piece of it has a thread of its own.
 *
 * Theory of operation. The context of a piece of work is the thread's from worker_begin() until `done` is called with it, on the loop's
 * thread, which has joined the other by then: neither needs a lock. What hulld knows is the loop's, so the context has copies of it, and
 * descriptors of its own. Who begins work keeps it in a list, and empties that at the end. */
#ifndef HULL_API_WORKER_H
#define HULL_API_WORKER_H

#include "common/loop.h"

struct worker;

/* Begins work(ctx), and calls done(ctx) once it has returned; until then it is in `list`, whose head is NULL at first. 0, or -errno
 * where no thread is to be had: nothing is called then. Aborts without memory. Loop thread, as is the other. */
int worker_begin(struct worker **list, struct loop *loop, loop_fn work, loop_fn done, void *ctx);

/* Waits for all work in `list`, and calls `fn` (NULL: nothing) with the context of each instead of its `done`. After loop_run() has
 * returned for good: the loop may have been told already that a piece of work is done. */
void workers_end(struct worker **list, loop_fn fn);

#endif
