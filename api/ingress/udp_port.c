/* A published UDP port: its clients, each a session, and their one stream to the machine.
 *
 * Theory of operation. The first datagram of a client makes a session, which ends when the client has sent nothing for a minute, or
 * when its place is needed and nobody has been silent for longer. What the machine sends to a session goes to its client, and what it
 * sends to any other number nowhere: a machine reaches who has sent to it within the last minute, and nobody else. Nothing is sent
 * that the machine, or a client, has not sent: what cannot go on at once is dropped.
 *
 *	IDLE ──a datagram──▶ REACHING ──the agent agrees──▶ UP ──the stream, or the last session, ends──▶ IDLE
 *	                        └──30 s──▶ IDLE
 *
 * While it is being reached, or has to wait for the gate, datagrams wait in `out`, as far as there is room. Of a machine that is put to
 * sleep the stream ends, so that whoever sends again is waited for by hulld. */
#include "api/ingress/udp_port.h"

#include "api/agent.h"
#include "api/ingress/ingress.h"
#include "common/checked.h"
#include "common/frame.h"
#include "common/log.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SESSIONS       HULL_DATAGRAM_SESSIONS
#define BUCKETS	       1024 /* a power of two */
#define SESSION_NS     (60 * NS_PER_S)
#define WAIT_NS	       (30 * NS_PER_S)
#define TRY_MS	       5000
#define BACKOFF_MIN_NS (20 * NS_PER_MS)
#define BACKOFF_MAX_NS (500 * NS_PER_MS)
#define OUT_MAX	       (128 * 1024) /* bytes that wait for the machine */

/* Of one socket before another gets its turn; level-triggered epoll brings us back. */
#define ROUNDS_MAX 64

union peer {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

/* Which of the host's addresses a client has sent to: answers come from there. */
union local {
	struct in_pktinfo in4;
	struct in6_pktinfo in6;
};

struct session {
	uint32_t id; /* its place in `sessions`, modulo SESSIONS */
	union peer peer;
	union local local;
	uint64_t heard_ns;
	struct session *next_in_bucket;
	struct session *older, *younger;
};

enum state { STATE_IDLE, STATE_REACHING, STATE_UP };

struct udp_port {
	struct loop *loop;
	int fd;
	const char *machine, *vsock;
	uint16_t guest;
	enum gate gate;
	enum state state;
	struct agent_call *call;	  /* REACHING: a try, */
	struct loop_source *retry;	  /* or a pause before the next */
	uint64_t deadline_ns, backoff_ns; /* REACHING */
	int stream_fd;			  /* UP */
	struct loop_source *stream;
	struct frame_reader in;
	struct buf out;
	struct session *sessions[SESSIONS], *buckets[BUCKETS], *oldest, *youngest;
	size_t n;
	struct udp_sessions *counted;
	uint32_t turn; /* of the numbers of sessions: no two in a row are the same */
	size_t next_place;
	uint64_t heard_ns; /* 0: never */
	struct loop_source *expiry;
	uint64_t key; /* which addresses share a bucket is not known beforehand */
	bool complained;
};

/* ---- sessions ---- */

static struct session **bucket_of(struct udp_port *port, const union peer *peer)
{
	const uint8_t *bytes = (const uint8_t *)peer;
	uint64_t hash = port->key;

	for (size_t i = 0; i < sizeof(*peer); i++)
		hash = (hash ^ bytes[i]) * 0x9e3779b97f4a7c15u;
	return &port->buckets[(hash >> 40) % BUCKETS];
}

static void leave_order(struct udp_port *port, struct session *session)
{
	*(session->older ? &session->older->younger : &port->oldest) = session->younger;
	*(session->younger ? &session->younger->older : &port->youngest) = session->older;
}

static void enter_order(struct udp_port *port, struct session *session)
{
	session->heard_ns = port->heard_ns = monotonic_ns();
	session->older = port->youngest;
	session->younger = NULL;
	*(port->youngest ? &port->youngest->younger : &port->oldest) = session;
	port->youngest = session;
}

static void session_end(struct udp_port *port, struct session *session)
{
	struct session **link = bucket_of(port, &session->peer);

	while (*link != session)
		link = &(*link)->next_in_bucket;
	*link = session->next_in_bucket;
	leave_order(port, session);
	port->sessions[session->id % SESSIONS] = NULL;
	port->n--;
	for (struct udp_sessions *count = port->counted; count; count = count->whole)
		count->n--;
	free(session);
}

/* The machine is told, too; it would find out by itself only when the place is taken. */
static void session_close(struct udp_port *port, struct session *session)
{
	frame_put_number(&port->out, HULL_FRAME_CLOSE, session->id);
	session_end(port, session);
}

/* A place that nobody has; there is one. Each time another, so that a number comes again as late as can be. */
static uint32_t take_number(struct udp_port *port)
{
	while (port->sessions[port->next_place])
		port->next_place = (port->next_place + 1) % SESSIONS;
	return (uint32_t)(port->next_place + SESSIONS * (size_t)port->turn++);
}

static bool has_room(const struct udp_port *port)
{
	const struct udp_sessions *count = port->counted;

	while (count && count->n < count->max)
		count = count->whole;
	return !count && port->n < SESSIONS;
}

static bool waits_for_gate(const struct udp_port *port)
{
	return port->gate == GATE_WAIT || port->gate == GATE_WAKE;
}

static struct session *session_of(struct udp_port *port, const union peer *peer)
{
	struct session *session, **bucket = bucket_of(port, peer);

	for (session = *bucket; session; session = session->next_in_bucket)
		if (memcmp(&session->peer, peer, sizeof(*peer)) == 0) {
			leave_order(port, session);
			enter_order(port, session);
			return session;
		}
	if (port->gate == GATE_CLOSED || (waits_for_gate(port) && port->state == STATE_UP))
		return NULL;
	if (port->oldest && !has_room(port))
		session_close(port, port->oldest);
	session = has_room(port) ? calloc(1, sizeof(*session)) : NULL;
	if (!session)
		return NULL;
	session->id = take_number(port);
	session->peer = *peer;
	bucket = bucket_of(port, peer);
	session->next_in_bucket = *bucket;
	*bucket = session;
	port->sessions[session->id % SESSIONS] = session;
	if (port->n++ == 0)
		loop_timer_arm(port->expiry, SESSION_NS);
	for (struct udp_sessions *count = port->counted; count; count = count->whole)
		count->n++;
	enter_order(port, session);
	return session;
}

/* ---- the stream ---- */

static void set_events(struct udp_port *port)
{
	loop_set_events(port->stream, EPOLLIN | (port->out.len ? EPOLLOUT : 0));
}

/* All sessions, and what waits, are gone with it. */
static void become_idle(struct udp_port *port)
{
	agent_cancel(port->call);
	port->call = NULL;
	loop_timer_arm(port->retry, UINT64_MAX);
	loop_timer_arm(port->expiry, UINT64_MAX);
	loop_remove(port->stream);
	port->stream = NULL;
	port->stream_fd = close_fd(port->stream_fd);
	frame_reader_done(&port->in);
	frame_reader_init(&port->in, sizeof(uint32_t) + HULL_DATAGRAM_MAX);
	buf_done(&port->out);
	buf_init(&port->out, OUT_MAX);
	while (port->oldest)
		session_end(port, port->oldest);
	port->state = STATE_IDLE;
}

static void flush(struct udp_port *port)
{
	if (port->state != STATE_UP)
		return;
	if (buf_send(&port->out, port->stream_fd) < 0)
		become_idle(port);
	else
		set_events(port);
}

static void send_to_client(const struct udp_port *port, const struct session *session, const char *data, size_t len)
{
	bool ipv6 = session->peer.any.sa_family == AF_INET6;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(union local))];
	} control = {0};
	struct iovec iov = {(char *)data, len};
	struct msghdr message = {.msg_name = (union peer *)&session->peer,
		.msg_namelen = ipv6 ? sizeof(session->peer.in6) : sizeof(session->peer.in4),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = ipv6 ? CMSG_SPACE(sizeof(session->local.in6)) : CMSG_SPACE(sizeof(session->local.in4))};

	control.header = (struct cmsghdr){.cmsg_len = ipv6 ? CMSG_LEN(sizeof(session->local.in6)) : CMSG_LEN(sizeof(session->local.in4)),
		.cmsg_level = ipv6 ? IPPROTO_IPV6 : IPPROTO_IP,
		.cmsg_type = ipv6 ? IPV6_PKTINFO : IP_PKTINFO};
	memcpy(CMSG_DATA(&control.header), &session->local, ipv6 ? sizeof(session->local.in6) : sizeof(session->local.in4));
	/* What is not taken is lost, as on any network. */
	while (sendmsg(port->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR)
		;
}

static int take(const struct udp_port *port, const struct frame *frame)
{
	const struct session *session;
	uint32_t id;

	if (frame->type != HULL_FRAME_DATAGRAM || frame->len < sizeof(id))
		return -EPROTO;
	memcpy(&id, frame->data, sizeof(id));
	id = le32toh(id);
	session = port->sessions[id % SESSIONS];
	if (session && session->id == id)
		send_to_client(port, session, frame->data + sizeof(id), frame->len - sizeof(id));
	return 0;
}

/* Once: clients could write a log else. */
static void complain(struct udp_port *port, const char *of)
{
	if (!port->complained)
		log_warn("%s: %s", port->machine, of);
	port->complained = true;
}

static void on_stream(void *ctx, uint32_t events)
{
	struct udp_port *port = ctx;
	struct frame frame;
	int r = 1;

	for (int round = 0; round < ROUNDS_MAX && r > 0; round++) {
		r = frame_read(&port->in, port->stream_fd, &frame);
		if (r > 0)
			r = take(port, &frame) < 0 ? -EPROTO : 1;
	}
	if (r == -EPROTO)
		complain(port, "its agent sends what is no datagram");
	if (r < 0)
		become_idle(port);
	else if (events & EPOLLOUT)
		flush(port);
}

static void on_open(void *ctx, int r, int fd);

static void try_machine(struct udp_port *port)
{
	port->call = agent_open(port->loop, port->vsock, HULL_AGENT_DATAGRAMS, port->guest, TRY_MS, on_open, port);
	if (!port->call)
		become_idle(port);
}

static void pause_tries(struct udp_port *port)
{
	uint64_t now = monotonic_ns(), left = port->deadline_ns > now ? port->deadline_ns - now : 0;

	if (waits_for_gate(port) || port->backoff_ns > left)
		loop_timer_arm(port->retry, left);
	else
		loop_timer_arm(port->retry, port->backoff_ns);
	port->backoff_ns = port->backoff_ns * 2 < BACKOFF_MAX_NS ? port->backoff_ns * 2 : BACKOFF_MAX_NS;
}

static void on_retry(void *ctx)
{
	struct udp_port *port = ctx;

	if (monotonic_ns() < port->deadline_ns) {
		try_machine(port);
		return;
	}
	log_info("%s: UDP port %d of the machine was not reached in time", port->machine, port->guest);
	become_idle(port);
}

static void on_open(void *ctx, int r, int fd)
{
	struct udp_port *port = ctx;

	port->call = NULL;
	if (r == EPROTONOSUPPORT) {
		complain(port, "its agent is too old for UDP");
		become_idle(port);
		return;
	}
	if (r != 0) {
		pause_tries(port);
		return;
	}
	port->state = STATE_UP;
	port->stream_fd = fd;
	port->stream = loop_add_fd(port->loop, fd, EPOLLIN, on_stream, port);
	if (port->stream)
		flush(port);
	else
		become_idle(port);
}

static void reach(struct udp_port *port)
{
	port->state = STATE_REACHING;
	port->deadline_ns = monotonic_ns() + WAIT_NS;
	port->backoff_ns = BACKOFF_MIN_NS;
	if (waits_for_gate(port))
		pause_tries(port);
	else
		try_machine(port);
}

/* ---- the socket ---- */

/* The rest of `from` is zero already: addresses are compared as bytes. */
static void read_local(struct msghdr *message, union local *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO) {
			memcpy(&ret->in4, CMSG_DATA(header), sizeof(ret->in4));
			ret->in4.ipi_ifindex = 0; /* the routes may have changed since */
		} else if (header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
			memcpy(&ret->in6, CMSG_DATA(header), sizeof(ret->in6));
		}
	}
}

/* -EAGAIN: there is none. Else the datagram's length. */
static ssize_t receive(const struct udp_port *port, char *data, size_t size, union peer *from, union local *to)
{
	char control[256];
	struct iovec iov = {data, size};
	struct msghdr message = {.msg_name = from,
		.msg_namelen = sizeof(*from),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	ssize_t n;

	memset(from, 0, sizeof(*from));
	n = recvmsg(port->fd, &message, MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	read_local(&message, to);
	return n;
}

void udp_port_receive(struct udp_port *port)
{
	static char frame[sizeof(uint32_t) + HULL_DATAGRAM_MAX + 1]; /* of the loop thread; never holds anything between calls */

	for (int round = 0; round < ROUNDS_MAX; round++) {
		struct session *session;
		union local to;
		union peer from;
		uint32_t id;
		ssize_t n = receive(port, frame + sizeof(id), HULL_DATAGRAM_MAX + 1, &from, &to);

		if (n == -EAGAIN)
			break;
		if (n < 0 || n > (ssize_t)HULL_DATAGRAM_MAX || !(session = session_of(port, &from)))
			continue;
		session->local = to;
		id = htole32(session->id);
		memcpy(frame, &id, sizeof(id));
		frame_put(&port->out, HULL_FRAME_DATAGRAM, frame, (uint32_t)(sizeof(id) + (size_t)n));
		if (port->state == STATE_IDLE)
			reach(port);
	}
	flush(port);
}

static void on_expiry(void *ctx)
{
	struct udp_port *port = ctx;
	uint64_t now = monotonic_ns();

	while (port->oldest && now - port->oldest->heard_ns >= SESSION_NS)
		session_close(port, port->oldest);
	if (!port->n) {
		become_idle(port);
		return;
	}
	loop_timer_arm(port->expiry, port->oldest->heard_ns + SESSION_NS - now);
	flush(port);
}

/* ---- from outside ---- */

void udp_port_set_gate(struct udp_port *port, enum gate gate)
{
	port->gate = gate;
	if (gate == GATE_WAKE && port->state == STATE_UP)
		become_idle(port);
	if (port->state != STATE_REACHING)
		return;
	if (gate == GATE_CLOSED) {
		become_idle(port);
		return;
	}
	agent_cancel(port->call);
	port->call = NULL;
	port->backoff_ns = BACKOFF_MIN_NS;
	if (waits_for_gate(port)) {
		pause_tries(port);
		return;
	}
	loop_timer_arm(port->retry, UINT64_MAX);
	try_machine(port);
}

void udp_port_set_guest(struct udp_port *port, uint16_t guest)
{
	if (port->guest == guest)
		return;
	port->guest = guest;
	become_idle(port);
}

size_t udp_port_count(const struct udp_port *port)
{
	return port->n;
}

bool udp_port_waits(const struct udp_port *port)
{
	return port->state == STATE_REACHING && waits_for_gate(port);
}

uint64_t udp_port_heard_ns(const struct udp_port *port)
{
	return port->heard_ns;
}

struct udp_port *udp_port_new(
	struct loop *loop, int fd, const char *machine, const char *vsock, uint16_t guest, struct udp_sessions *sessions)
{
	struct udp_port *port = calloc(1, sizeof(*port));

	if (!port)
		return NULL;
	*port = (struct udp_port){.loop = loop, .fd = fd, .machine = machine, .vsock = vsock, .guest = guest, .stream_fd = -1,
		.counted = sessions};
	frame_reader_init(&port->in, sizeof(uint32_t) + HULL_DATAGRAM_MAX);
	buf_init(&port->out, OUT_MAX);
	port->retry = loop_add_timer(loop, on_retry, port);
	port->expiry = loop_add_timer(loop, on_expiry, port);
	if (port->retry && port->expiry && getentropy(&port->key, sizeof(port->key)) == 0)
		return port;
	udp_port_free(port);
	return NULL;
}

void udp_port_free(struct udp_port *port)
{
	if (!port)
		return;
	if (port->retry && port->expiry)
		become_idle(port);
	loop_remove(port->retry);
	loop_remove(port->expiry);
	frame_reader_done(&port->in);
	buf_done(&port->out);
	free(port);
}
