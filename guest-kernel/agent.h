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

/* Without a vsock device there is nobody to listen for: an agent that only agent_serve() feeds. `config` is
 * borrowed. NULL with `err` set. */
struct agent *agent_new(struct loop *loop, const struct guest_config *config, agent_stop_fn stop, void *ctx,
	struct error *err);

/* Serves one connection, a non-blocking stream socket; takes the descriptor in any case. What the listener
 * does with each connection of the host. */
void agent_serve(struct agent *agent, int fd);

/* As execs_hold_workload() and execs_drop_workload(). */
void agent_hold_workload(struct agent *agent, const struct held_workload *workload);
void agent_drop_workload(struct agent *agent);

/* A child has ended; it may be one that a client of the host asked for. */
void agent_child_ended(struct agent *agent, pid_t pid, int wait_status);

/* Ends all connections, and the programs that were executed for them. NULL is fine. */
void agent_free(struct agent *agent);

#endif
