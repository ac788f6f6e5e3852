/* Hears that the agent inside a machine listens, once: the guest connects to the host's HULL_VSOCK_PORT_READY, which the monitor's
 * vsock device makes a connection to a socket beside its own (docs/interfaces.md). Whether it is true, only a call can tell. */
#ifndef HULL_API_AGENT_READY_H
#define HULL_API_AGENT_READY_H

#include "common/error.h"
#include "common/loop.h"

struct agent_ready;

/* Listens beside the socket at `vsock_path`, in the place of whatever lies there. `fn` is called from the loop, once, and may free
 * this. NULL with `err` set. */
struct agent_ready *agent_ready_new(struct loop *loop, const char *vsock_path, loop_fn fn, void *ctx, struct error *err);
/* Removes the socket. NULL is fine. */
void agent_ready_free(struct agent_ready *ready);

#endif
