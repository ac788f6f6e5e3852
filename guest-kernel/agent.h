/* The agent: answers the host's requests on vsock (hull_guest.h has the protocol). */
#ifndef HULL_GUEST_AGENT_H
#define HULL_GUEST_AGENT_H

#include "common/error.h"
#include "common/loop.h"
#include "guest-kernel/config.h"
#include "guest-kernel/exec.h"

#include <stdint.h>
#include <sys/types.h>

struct agent;

/* Asked by the host to stop: the workload gets its stop signal, and SIGKILL after `timeout_ms`. */
typedef void (*agent_stop_fn)(void *ctx, uint32_t timeout_ms);

/* An agent that only agent_serve() feeds. `config` is borrowed, and kept as the machine is. NULL with `err` set. */
struct agent *agent_new(struct loop *loop, struct guest_config *config, agent_stop_fn stop, void *ctx,
	struct error *err);

/* Has it listen for the host; without a vsock device there is nobody to listen for. 0 or -errno with `err` set. */
int agent_listen(struct agent *agent, struct error *err);

/* Serves one connection, a non-blocking stream socket; takes the descriptor in any case. What the listener
 * does with each connection of the host. */
void agent_serve(struct agent *agent, int fd);

/* As execs_hold_workload() and execs_drop_workload(). */
void agent_hold_workload(struct agent *agent, const struct held_workload *workload);
void agent_drop_workload(struct agent *agent);

/* A child has ended; it may be one that a client of the host asked for. */
void agent_child_ended(struct agent *agent, pid_t pid, int wait_status);

/* The machine is to end: what the host has frozen runs. */
void agent_thaw(struct agent *agent);

/* Ends all connections, and the programs that were executed for them. NULL is fine. */
void agent_free(struct agent *agent);

#endif
