/* A byte stream copied both ways between two sockets, for the agent in a guest and for the ingress on the host. */
#include "common/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Rounds of read and write before another connection gets its turn; level-triggered epoll brings us back. */
#define ROUNDS_MAX 16

struct side {
	struct relay *relay;
	struct side *peer;
	int fd;
	struct loop_source *source;
	bool at_end;	 /* read to the end, or not to be read any more */
	bool shut;	 /* nothing is written to it any more */
	bool hung_up;	 /* EPOLLHUP or EPOLLERR was seen: waiting for it again would spin */
	char *held;	 /* owned; read from the peer, not yet taken by this side; NULL when there is none */
	size_t held_off, held_len;
};

struct relay {
	struct loop *loop;
	struct side a, b;
	loop_fn done;
	void *ctx;
	bool ended;
};

static void drop_held(struct side *side)
{
	free(side->held);
	side->held = NULL;
	side->held_off = side->held_len = 0;
}

/* `to` takes no more bytes: its direction is over, and so is reading what would have gone there. */
static void end_direction(struct side *to)
{
	drop_held(to);
	to->shut = true;
	to->peer->at_end = true;
}

/* Writes as much as `to` takes. Bytes written, or -1 when its direction has ended with this. */
static ssize_t put(struct side *to, const char *data, size_t len)
{
	size_t put_len = 0;

	while (put_len < len) {
		ssize_t n = send(to->fd, data + put_len, len - put_len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			end_direction(to);
			return -1;
		}
		put_len += (size_t)n;
	}
	return (ssize_t)put_len;
}

static void flush_held(struct side *to)
{
	ssize_t n;

	if (!to->held)
		return;
	n = put(to, to->held + to->held_off, to->held_len);
	if (n < 0)
		return;
	to->held_off += (size_t)n;
	to->held_len -= (size_t)n;
	if (to->held_len == 0)
		drop_held(to);
}

/* Keeps what `to` did not take. Without memory for it the stream would have a hole: false, and the relay ends. */
static bool hold(struct side *to, const char *data, size_t len)
{
	to->held = malloc(len);
	if (!to->held)
		return false;
	memcpy(to->held, data, len);
	to->held_off = 0;
	to->held_len = len;
	return true;
}

/* Copies from `from` to its peer until one of them would block. False: the relay has failed. */
static bool pump(struct side *from)
{
	static char chunk[RELAY_BUFFER_BYTES]; /* of the loop thread; never holds anything between calls */
	struct side *to = from->peer;

	for (int round = 0; round < ROUNDS_MAX && !from->at_end && !to->held; round++) {
		ssize_t n = recv(from->fd, chunk, sizeof chunk, MSG_DONTWAIT), taken;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0) {
			from->at_end = true;
			break;
		}
		taken = put(to, chunk, (size_t)n);
		if (taken >= 0 && taken < n && !hold(to, chunk + taken, (size_t)(n - taken)))
			return false;
	}
	if (from->at_end && !to->held && !to->shut) {
		to->shut = true;
		shutdown(to->fd, SHUT_WR);
	}
	return true;
}

static void want(struct side *side)
{
	uint32_t events = 0;

	if (!side->at_end && !side->peer->held)
		events |= EPOLLIN;
	if (side->held)
		events |= EPOLLOUT;
	/* With neither, still hear of its death, unless that was heard already. */
	if (!events && !side->hung_up)
		events = EPOLLERR;
	loop_set_events(side->source, events);
}

static void finish(struct relay *relay)
{
	relay->ended = true;
	loop_set_events(relay->a.source, 0);
	loop_set_events(relay->b.source, 0);
	relay->done(relay->ctx);
}

static void on_ready(void *ctx, uint32_t events)
{
	struct side *side = ctx;
	struct relay *relay = side->relay;

	if (relay->ended)
		return;
	if (events & (EPOLLHUP | EPOLLERR))
		side->hung_up = true;
	flush_held(side);
	if (!pump(side) || !pump(side->peer)) {
		finish(relay);
		return;
	}
	/* Both ways are closed below us: what it has sent can still be read, but nothing can be written to it. */
	if ((events & EPOLLHUP) && !side->shut)
		end_direction(side);
	if (relay->a.at_end && relay->b.at_end && !relay->a.held && !relay->b.held) {
		finish(relay);
		return;
	}
	want(&relay->a);
	want(&relay->b);
}

static bool side_init(struct side *side, struct relay *relay, struct side *peer, int fd)
{
	side->relay = relay;
	side->peer = peer;
	side->fd = fd;
	side->source = loop_add_fd(relay->loop, fd, EPOLLIN, on_ready, side);
	return side->source;
}

struct relay *relay_new(struct loop *loop, int a, int b, loop_fn done, void *ctx)
{
	struct relay *relay = calloc(1, sizeof *relay);

	if (!relay)
		return NULL;
	relay->loop = loop;
	relay->done = done;
	relay->ctx = ctx;
	if (side_init(&relay->a, relay, &relay->b, a) && side_init(&relay->b, relay, &relay->a, b))
		return relay;
	relay->a.fd = relay->b.fd = -1; /* they stay the caller's */
	relay_free(relay);
	return NULL;
}

static void side_done(struct side *side)
{
	loop_remove(side->source);
	close_fd(side->fd);
	drop_held(side);
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	relay->ended = true;
	side_done(&relay->a);
	side_done(&relay->b);
	free(relay);
}
