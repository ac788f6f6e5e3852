/* One request to the agent inside a machine, through the machine's vsock socket (guest-kernel/hull_guest.h). */
#ifndef HULL_API_AGENT_H
#define HULL_API_AGENT_H

#include "common/loop.h"
#include "guest-kernel/hull_guest.h"

struct agent_call;

/* `r` is 0, an errno of the guest (positive), or -errno: nobody answered. The call is over and freed afterwards. */
typedef void (*agent_fn)(void *ctx, int r);

/* `fn` is always called later, never from within, unless the call is cancelled. NULL when there is no memory. */
struct agent_call *agent_call(struct loop *loop, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, agent_fn fn, void *ctx);

/* `r` as above; 0: `fd`, the callee's from now on, is a non-blocking socket whose next byte follows the
 * agent's reply. */
typedef void (*agent_open_fn)(void *ctx, int r, int fd);

/* A request that the connection goes on after. Otherwise as agent_call(). */
struct agent_call *agent_open(struct loop *loop, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, agent_open_fn fn, void *ctx);

void agent_cancel(struct agent_call *call); /* NULL is fine */

#endif
