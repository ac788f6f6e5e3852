/* Starts the one program the machine is for. */
#ifndef HULL_GUEST_WORKLOAD_H
#define HULL_GUEST_WORKLOAD_H

#include "common/error.h"
#include "guest-kernel/config.h"

#include <stdbool.h>
#include <sys/types.h>

/* Runs the command as its user, in its folder (made, and given to the user, when missing), in a session of its own,
 * with /dev/null as input and `output_fd` (borrowed) as output and error output. Returns once the program is executing:
 * 0 with `*ret_pid`, or -errno with `err` and `*ret_status` set. Needs the machine's root, and no other threads. */
int workload_start(
	const struct guest_config *config, int output_fd, pid_t *ret_pid, int *ret_status, struct error *err);

/* Has the kernel killed any of what the workload is, for want of memory? */
bool workload_ran_out_of_memory(void);

#endif
