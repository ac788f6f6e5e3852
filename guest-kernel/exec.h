/* Programs executed beside the workload for clients of the host (hull_guest.h, EXEC): their input, output, terminal,
 * signals and end. */
#ifndef HULL_GUEST_EXEC_H
#define HULL_GUEST_EXEC_H

#include "common/loop.h"
#include "guest-kernel/config.h"

#include <stdbool.h>
#include <sys/types.h>

struct execs;

/* `config` (borrowed) is the workload's: what a client does not say is as there. Loop thread, as everything
 * here. NULL without memory. */
struct execs *execs_new(struct loop *loop, const struct guest_config *config);
/* Kills all programs. NULL is fine. */
void execs_free(struct execs *execs);

/* A workload that waits until a client executes it. */
struct held_workload {
	int log_fd; /* a pipe's non-blocking write end, which gets a copy of what it writes; owned once it was handed over */
	void (*started)(void *ctx, pid_t pid);
	/* Once, when it has ended, and its client, unless that has gone, has heard so; `status` as a shell has it. */
	void (*ended)(void *ctx, int status);
	void *ctx;
};

/* Holds it until a client comes. */
void execs_hold_workload(struct execs *execs, const struct held_workload *workload);
/* Nobody may execute it any more, unless somebody does. */
void execs_drop_workload(struct execs *execs);

/* Speaks frames with a client on `fd`, a non-blocking stream socket, from its SPEC on; owned on success. 0,
 * -EAGAIN when there are too many already, -ENOMEM. */
int execs_serve(struct execs *execs, int fd);

/* A child has ended, one of these or another. */
void execs_child_ended(struct execs *execs, pid_t pid, int wait_status);

#endif
