/* A program that the agent itself runs, for what it has to say: a health check, a hook. */
#ifndef HULL_GUEST_ERRAND_H
#define HULL_GUEST_ERRAND_H

#include "common/loop.h"
#include "guest-kernel/process.h"

struct errands;
struct errand;

/* How it ended: `err` NULL, the exit status and the last line of its output, one that can be shown, or ""; or `err` says why it
 * could not be run. The errand is over and freed. */
typedef void (*errand_fn)(void *ctx, const struct error *err, int status, const char *line);

/* They are in a cgroup of their own, which is not frozen with the workload's. NULL without memory. Loop thread, as everything
 * here. */
struct errands *errands_new(struct loop *loop);
/* All errands must be over. NULL is fine. */
void errands_free(struct errands *errands);

/* Runs what `spec` says; its input, output and cgroup are the errand's. `fn` is called later, unless it is cancelled, and
 * there is no deadline. NULL with `err` set. */
struct errand *errand_new(
	struct errands *errands, const struct process_spec *spec, errand_fn fn, void *ctx, struct error *err);
/* Kills the program and all it has started. NULL is fine. */
void errand_cancel(struct errand *errand);

/* A child has ended, one of these or another. */
void errands_child_ended(struct errands *errands, pid_t pid, int wait_status);

#endif
