/* Datagrams between clients of a published UDP port and the program in the machine.
 *
 * Theory of operation. Every session has a socket of its own, so that the program tells clients apart and answers each. Nobody is waited
 * for: what a socket, or the stream to the host, does not take at once is dropped, as on any network. */
#include "guest-kernel/datagrams.h"

#include "common/frame.h"
#include "guest-kernel/dial.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Of one socket before another gets its turn; level-triggered epoll brings us back. */
#define ROUNDS_MAX 16

/* To the host, and not taken yet. */
#define OUT_MAX (256 * 1024)

struct session {
	struct datagrams *datagrams;
	uint32_t id;
	bool ipv6; /* nobody listens at 127.0.0.1 */
	int fd;
	struct loop_source *source;
};

struct datagrams {
	struct loop *loop;
	int host_fd;
	struct loop_source *host;
	uint16_t port;
	struct frame_reader in;
	struct buf out;
	bool ended;
	size_t *n_sessions;
	loop_fn done;
	void *ctx;
	struct session *sessions[HULL_DATAGRAM_SESSIONS]; /* by id modulo that */
};

static void want(struct datagrams *d)
{
	loop_set_events(d->host, EPOLLIN | (d->out.len ? EPOLLOUT : 0));
}

static void finish(struct datagrams *d)
{
	d->ended = true;
	loop_set_events(d->host, 0);
	d->done(d->ctx);
}

static void disconnect(struct session *session)
{
	loop_remove(session->source);
	session->source = NULL;
	session->fd = close_fd(session->fd);
}

static void session_free(struct session *session)
{
	struct datagrams *d = session->datagrams;

	d->sessions[session->id % HULL_DATAGRAM_SESSIONS] = NULL;
	--*d->n_sessions;
	disconnect(session);
	free(session);
}

/* Nobody listens: the next datagram is tried with the other address. */
static void try_other_address(struct session *session)
{
	session->ipv6 = !session->ipv6;
	disconnect(session);
}

static void to_host(struct datagrams *d, const struct session *session, char *frame, size_t len)
{
	uint32_t id = htole32(session->id);

	memcpy(frame, &id, sizeof(id));
	frame_put(&d->out, HULL_FRAME_DATAGRAM, frame, (uint32_t)(sizeof(id) + len)); /* without room it is dropped */
}

static void on_answer(void *ctx, uint32_t events)
{
	static char frame[sizeof(uint32_t) + HULL_DATAGRAM_MAX + 1]; /* of the loop thread; never holds anything between calls */
	struct session *session = ctx;
	struct datagrams *d = session->datagrams;

	(void)events;
	if (d->ended)
		return;
	for (int round = 0; round < ROUNDS_MAX; round++) {
		ssize_t n = recv(session->fd, frame + sizeof(uint32_t), HULL_DATAGRAM_MAX + 1, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			try_other_address(session);
			break;
		}
		if (n < 0)
			break;
		if ((size_t)n <= HULL_DATAGRAM_MAX) /* over IPv6 there may be more */
			to_host(d, session, frame, (size_t)n);
	}
	if (buf_send(&d->out, d->host_fd) < 0)
		finish(d);
	else
		want(d);
}

/* False: there is no socket to be had now. */
static bool is_connected(struct session *session)
{
	struct datagrams *d = session->datagrams;

	if (session->fd >= 0)
		return true;
	session->fd = socket(session->ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (session->fd >= 0 && dial_loopback(session->fd, d->port, session->ipv6) == 0)
		session->source = loop_add_fd(d->loop, session->fd, EPOLLIN, on_answer, session);
	if (session->source)
		return true;
	try_other_address(session); /* a kernel may have no IPv6 */
	return false;
}

static struct session *session_of(struct datagrams *d, uint32_t id)
{
	struct session *session = d->sessions[id % HULL_DATAGRAM_SESSIONS];

	if (session && session->id != id) {
		session_free(session);
		session = NULL;
	}
	if (session || *d->n_sessions >= HULL_DATAGRAM_SESSIONS_ALL)
		return session;
	session = calloc(1, sizeof(*session));
	if (!session)
		return NULL;
	*session = (struct session){.datagrams = d, .id = id, .fd = -1};
	d->sessions[id % HULL_DATAGRAM_SESSIONS] = session;
	++*d->n_sessions;
	return session;
}

/* A program that was not there yet for the one before is asked again, at its other address, with this one. */
static void to_program(struct session *session, const char *data, size_t len)
{
	for (int tries = 0; tries < 2; tries++) {
		if (!is_connected(session))
			continue;
		if (send(session->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 || errno != ECONNREFUSED)
			return;
		try_other_address(session);
	}
}

static int take(struct datagrams *d, const struct frame *frame)
{
	struct session *session;
	uint32_t id;

	if (frame->len < sizeof(id) || frame->len > sizeof(id) + HULL_DATAGRAM_MAX)
		return -EPROTO;
	memcpy(&id, frame->data, sizeof(id));
	id = le32toh(id);
	if (frame->type == HULL_FRAME_DATAGRAM) {
		session = session_of(d, id);
		if (session)
			to_program(session, frame->data + sizeof(id), frame->len - sizeof(id));
		return 0;
	}
	if (frame->type != HULL_FRAME_CLOSE || frame->len != sizeof(id))
		return -EPROTO;
	session = d->sessions[id % HULL_DATAGRAM_SESSIONS];
	if (session && session->id == id)
		session_free(session);
	return 0;
}

static void on_host(void *ctx, uint32_t events)
{
	struct datagrams *d = ctx;
	struct frame frame;
	int r = 1;

	if (d->ended)
		return;
	for (int round = 0; round < ROUNDS_MAX && r > 0; round++) {
		r = frame_read(&d->in, d->host_fd, &frame);
		if (r > 0 && take(d, &frame) < 0)
			r = -EPROTO;
	}
	if (r >= 0 && (events & EPOLLOUT))
		r = buf_send(&d->out, d->host_fd);
	if (r < 0)
		finish(d);
	else
		want(d);
}

struct datagrams *datagrams_new(
	struct loop *loop, int host_fd, uint16_t port, size_t *n_sessions, loop_fn done, void *ctx)
{
	struct datagrams *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->loop = loop;
	d->port = port;
	d->n_sessions = n_sessions;
	d->done = done;
	d->ctx = ctx;
	frame_reader_init(&d->in, sizeof(uint32_t) + HULL_DATAGRAM_MAX);
	buf_init(&d->out, OUT_MAX);
	d->host = loop_add_fd(loop, host_fd, EPOLLIN, on_host, d);
	d->host_fd = d->host ? host_fd : -1; /* it stays the caller's */
	if (d->host)
		return d;
	datagrams_free(d);
	return NULL;
}

void datagrams_free(struct datagrams *d)
{
	if (!d)
		return;
	d->ended = true;
	for (size_t i = 0; i < HULL_DATAGRAM_SESSIONS; i++)
		if (d->sessions[i])
			session_free(d->sessions[i]);
	loop_remove(d->host);
	close_fd(d->host_fd);
	frame_reader_done(&d->in);
	buf_done(&d->out);
	free(d);
}
