/* Carries the workload's output from its pipe to the host: by vsock when the host listens there, else the console. */
#ifndef HULL_GUEST_OUTPUT_H
#define HULL_GUEST_OUTPUT_H

#include "common/error.h"
#include "common/loop.h"

struct output;

/* Connects to the host and begins. `pipe_fd` is the pipe's read end, non-blocking; owned on success. While the host takes
 * nothing, nothing is read, and the workload waits in write(): no byte is dropped. NULL with `err` set. */
struct output *output_new(struct loop *loop, int pipe_fd, struct error *err);

/* Calls `done(ctx)` once, when the pipe's end was reached and the host has everything, or `timeout_ms` are over. To be
 * called when nobody is left to write into the pipe. */
void output_drain(struct output *output, int timeout_ms, loop_fn done, void *ctx);

/* NULL is fine. */
void output_free(struct output *output);

#endif
