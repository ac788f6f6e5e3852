/* A connection to the agent inside a machine on which a SPEC is sent and frames come back: EXEC, ORDER and FILES (guest-kernel/hull_guest.h).
 * Loop thread, all of it; allocation failure aborts. */
#ifndef HULL_API_AGENT_FRAMES_H
#define HULL_API_AGENT_FRAMES_H

#include "common/frame.h"
#include "common/json.h"
#include "common/loop.h"

struct agent_frames;

/* Both may free it. */
struct agent_frames_ops {
	void (*opened)(void *ctx, int r); /* `r` as agent_open()'s, or -ENOMEM: nothing else will come but its freeing */
	void (*ready)(void *ctx);	  /* there may be a frame, or the end; or room for more */
};

/* `spec` is taken. `timeout_ms`: until it is opened. `ops` are called later, never from within. */
struct agent_frames *agent_frames_open(struct loop *loop, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, json_t *spec, const struct agent_frames_ops *ops, void *ctx);
void agent_frames_free(struct agent_frames *frames); /* NULL is fine */

/* As frame_read(). What an agent that has gone does not take is dropped: what it said before is to be read. Once it was opened. */
int agent_frames_read(struct agent_frames *frames, struct frame *ret);
/* Behind what waits to be sent, opened or not; who sends a lot sees to it that agent_frames_waiting() stays below 7 * HULL_FRAME_MAX. */
void agent_frames_put(struct agent_frames *frames, enum hull_frame_type type, const void *data, uint32_t len);
size_t agent_frames_waiting(const struct agent_frames *frames); /* bytes */

/* Whether `ready` is called, and what waits is sent; it is from the beginning. */
void agent_frames_listen(struct agent_frames *frames, bool listen);

/* Frees it but for the connection, whose next byte follows the last frame that was read. */
int agent_frames_steal_fd(struct agent_frames *frames);

#endif
