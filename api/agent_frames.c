/* A connection to the agent inside a machine: the SPEC, and frames in both directions. The machine and its agent are hostile. */
#include "api/agent_frames.h"

#include "api/agent.h"
#include "common/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OUT_MAX (8 * HULL_FRAME_MAX + 2 * HULL_SPEC_MAX)

struct agent_frames {
	struct loop *loop;
	struct agent_call *opening;
	int fd; /* -1: not yet */
	struct loop_source *events;
	bool deaf;
	struct frame_reader reader;
	struct buf out;
	const struct agent_frames_ops *ops;
	void *ctx;
};

void agent_frames_free(struct agent_frames *frames)
{
	if (!frames)
		return;
	agent_cancel(frames->opening);
	loop_remove(frames->events);
	close_fd(frames->fd);
	frame_reader_done(&frames->reader);
	buf_done(&frames->out);
	free(frames);
}

int agent_frames_steal_fd(struct agent_frames *frames)
{
	int fd = steal_fd(&frames->fd);

	agent_frames_free(frames);
	return fd;
}

static void wait_for_events(struct agent_frames *frames)
{
	uint32_t events = frames->out.len ? EPOLLIN | EPOLLOUT : EPOLLIN;

	if (frames->events)
		loop_set_events(frames->events, frames->deaf ? 0 : events);
}

void agent_frames_listen(struct agent_frames *frames, bool listen)
{
	frames->deaf = !listen;
	wait_for_events(frames);
}

static void on_agent(void *ctx, uint32_t events)
{
	struct agent_frames *frames = ctx;

	if ((events & EPOLLOUT) && buf_send(&frames->out, frames->fd) < 0)
		buf_consume(&frames->out, frames->out.len);
	wait_for_events(frames);
	frames->ops->ready(frames->ctx);
}

static void on_opened(void *ctx, int r, int fd)
{
	struct agent_frames *frames = ctx;

	frames->opening = NULL;
	frames->fd = fd;
	if (r == 0 && !(frames->events = loop_add_fd(frames->loop, fd, EPOLLIN | EPOLLOUT, on_agent, frames)))
		r = -ENOMEM;
	wait_for_events(frames);
	frames->ops->opened(frames->ctx, r);
}

int agent_frames_read(struct agent_frames *frames, struct frame *ret)
{
	return frame_read(&frames->reader, frames->fd, ret);
}

void agent_frames_put(struct agent_frames *frames, enum hull_frame_type type, const void *data, uint32_t len)
{
	if (frame_put(&frames->out, type, data, len) < 0)
		abort();
	wait_for_events(frames);
}

size_t agent_frames_waiting(const struct agent_frames *frames)
{
	return frames->out.len;
}

struct agent_frames *agent_frames_open(struct loop *loop, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, json_t *spec, const struct agent_frames_ops *ops, void *ctx)
{
	struct agent_frames *frames = calloc(1, sizeof(*frames));
	cleanup_free char *text = json_dumps(spec, JSON_COMPACT);

	json_decref(spec);
	if (!frames || !text)
		abort();
	*frames = (struct agent_frames){.loop = loop, .fd = -1, .ops = ops, .ctx = ctx};
	frame_reader_init(&frames->reader, HULL_FRAME_MAX);
	buf_init(&frames->out, OUT_MAX);
	agent_frames_put(frames, HULL_FRAME_SPEC, text, (uint32_t)strlen(text));
	frames->opening = agent_open(loop, vsock_path, verb, arg, timeout_ms, on_opened, frames);
	if (!frames->opening)
		abort();
	return frames;
}
