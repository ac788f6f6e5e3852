/* One accepted connection: from the listener to a stream of the machine's agent.
 *
 * Theory of operation. A connection tries to reach the machine:
 *
 *	connect to its vsock socket ─▶ "CONNECT 1024\n" ─▶ "OK <port>\n" ─▶ STREAM request ─▶ reply 0 ─▶ relay
 *
 * A try that fails (no socket, no agent, nobody listening in the guest, no answer) is repeated after a pause that
 * doubles from 20 to 500 ms, until 30 s after the client came. Until there is a relay the connection is in
 * ingress->pending and one timer looks after all of them. Meanwhile nothing is read from the client, so what it sends
 * waits in its socket; that it has left is noticed at once. While the port's gate says "wait" or "wake" none is tried, though the time runs.
 *
 * Once the agent was asked for the stream, the program may have accepted it already, and only the agent's answer is on its way: from
 * then on the connection counts among those that have reached the machine, which no gate ends. */
#include "api/ingress/connection.h"

#include "api/ingress/control.h"
#include "common/io.h"
#include "common/log.h"
#include "common/relay.h"
#include "guest-kernel/hull_guest.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define WAIT_NS	      (30 * NS_PER_S)
#define TRY_NS	      (5 * NS_PER_S)
#define BACKOFF_MIN_NS (20 * NS_PER_MS)
#define BACKOFF_MAX_NS (500 * NS_PER_MS)
#define TICK_NS	      (10 * NS_PER_MS)

/* "OK 4294967295\n" */
#define OK_LINE_MAX 32

#define STRINGIFY_(x) #x
#define STRINGIFY(x)  STRINGIFY_(x)

enum step {
	STEP_PAUSE,    /* no socket; the next try is at `due_ns` */
	STEP_OK_LINE,  /* "CONNECT" was sent */
	STEP_REPLY,    /* the request was sent */
	STEP_STREAMING /* `relay` is there; not in ingress->pending any more */
};

struct connection {
	struct port *port;
	struct connection *next, **link;		 /* in port->connections */
	struct connection *next_pending, **pending_link; /* in ingress->pending; link NULL when not */
	enum step step;
	int client_fd, vsock_fd;
	struct loop_source *client, *vsock;
	uint64_t deadline_ns; /* then it is given up */
	uint64_t due_ns;      /* next try, or end of this one */
	uint64_t backoff_ns;
	char answer[OK_LINE_MAX]; /* of the step */
	size_t answer_len;
	struct relay *relay;
};

static bool has_reached(enum step step)
{
	return step == STEP_REPLY || step == STEP_STREAMING;
}

static void set_step(struct connection *c, enum step step)
{
	c->port->n_reached -= has_reached(c->step);
	c->step = step;
	c->port->n_reached += has_reached(step);
}

static void leave_pending(struct connection *c)
{
	if (!c->pending_link)
		return;
	*c->pending_link = c->next_pending;
	if (c->next_pending)
		c->next_pending->pending_link = c->pending_link;
	c->pending_link = NULL;
	c->port->n_waiting--;
}

static void enter_pending(struct connection *c)
{
	struct ingress *ingress = c->port->ingress;

	c->next_pending = ingress->pending;
	c->pending_link = &ingress->pending;
	if (c->next_pending)
		c->next_pending->pending_link = &c->next_pending;
	ingress->pending = c;
	c->port->n_waiting++;
}

static void connection_end(void *ctx)
{
	struct connection *c = ctx;
	struct port *port = c->port;

	leave_pending(c);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	port->n_connections--;
	port->ingress->n_connections--;
	port_was_used(port);
	relay_free(c->relay);
	loop_remove(c->client);
	loop_remove(c->vsock);
	close_fd(c->client_fd);
	close_fd(c->vsock_fd);
	set_step(c, STEP_PAUSE);
	free(c);
	control_connection_ended(port->ingress, port->spec.machine);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Brings the common timer forward for this one. A timer that fires for one that has gone meanwhile does no harm; looking
 * at all that are pending each time a try of one of them fails would. */
static void arm_retry(const struct connection *c)
{
	struct ingress *ingress = c->port->ingress;
	uint64_t now, due = earlier(c->due_ns, c->deadline_ns);

	if (due >= ingress->retries_ns)
		return;
	now = monotonic_ns();
	ingress->retries_ns = due;
	loop_timer_arm(ingress->retries, due > now ? due - now : 0);
}

static void drop_vsock(struct connection *c)
{
	loop_remove(c->vsock);
	c->vsock = NULL;
	c->vsock_fd = close_fd(c->vsock_fd);
	c->answer_len = 0;
}

/* Is there nothing to wait for? */
static bool is_in_vain(const struct connection *c)
{
	if (port_gives_up(c->port))
		return true;
	return port_is_unix(c->port) && !port_waits(c->port) && access(c->port->spec.vsock, F_OK) < 0;
}

/* This try has failed; there will be another, once the gate is open. The caller arms the timer. */
static void pause_tries(struct connection *c)
{
	drop_vsock(c);
	set_step(c, STEP_PAUSE);
	control_connection_ended(c->port->ingress, c->port->spec.machine);
	if (port_waits(c->port)) {
		c->due_ns = UINT64_MAX;
		return;
	}
	/* Rounded up, so that one look at all that are pending serves many. */
	c->due_ns = (monotonic_ns() + c->backoff_ns + TICK_NS - 1) / TICK_NS * TICK_NS;
	c->backoff_ns = earlier(2 * c->backoff_ns, BACKOFF_MAX_NS);
}

static void try_failed(struct connection *c)
{
	if (port_gives_up(c->port)) {
		connection_end(c);
		return;
	}
	pause_tries(c);
	arm_retry(c);
}

static void begin_streaming(struct connection *c)
{
	int one = 1;

	leave_pending(c);
	set_step(c, STEP_STREAMING);
	loop_remove(c->client);
	loop_remove(c->vsock);
	c->client = c->vsock = NULL;
	/* The sender's Nagle, not ours, decides what belongs together. */
	setsockopt(c->client_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	c->relay = relay_new(c->port->ingress->loop, c->client_fd, c->vsock_fd, connection_end, c);
	if (!c->relay) {
		log_warn("cannot begin a stream: %s", strerror(errno));
		connection_end(c);
		return;
	}
	c->client_fd = c->vsock_fd = -1; /* the relay's */
}

/* Everything we say before the stream fits any socket's buffer. */
static bool say(struct connection *c, const void *data, size_t len)
{
	return send(c->vsock_fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static bool ask_for_stream(struct connection *c)
{
	const struct hull_agent_request request = {
		.magic = htole32(HULL_AGENT_MAGIC),
		.version = htole16(HULL_AGENT_VERSION),
		.verb = htole16(HULL_AGENT_STREAM),
		.arg = htole32((uint32_t)c->port->spec.guest),
	};

	set_step(c, STEP_REPLY);
	c->answer_len = 0;
	return say(c, &request, sizeof request);
}

/* The agent's reply is complete. */
static void take_reply(struct connection *c)
{
	struct hull_agent_reply reply;

	memcpy(&reply, c->answer, sizeof reply);
	if (le32toh(reply.magic) != HULL_AGENT_MAGIC || le32toh(reply.status) == EPROTONOSUPPORT) {
		log_warn("%s: its agent does not speak our protocol", c->port->spec.machine);
		connection_end(c);
	} else if (reply.status != 0) {
		try_failed(c); /* the program does not listen yet */
	} else {
		begin_streaming(c);
	}
}

/* Reads what the current step waits for, and not one byte more: what follows the reply is the stream. Before our
 * request the guest has nothing to say after the line's end; one that does is not believed. */
static void on_vsock(void *ctx, uint32_t events)
{
	struct connection *c = ctx;
	size_t want = c->step == STEP_OK_LINE ? sizeof c->answer : sizeof(struct hull_agent_reply);
	ssize_t n = recv(c->vsock_fd, c->answer + c->answer_len, want - c->answer_len, MSG_DONTWAIT);
	char *newline;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		try_failed(c);
		return;
	}
	c->answer_len += (size_t)n;
	if (c->step == STEP_REPLY) {
		if (c->answer_len == want)
			take_reply(c);
		return;
	}
	newline = memchr(c->answer, '\n', c->answer_len);
	if (!newline && c->answer_len < sizeof c->answer)
		return;
	if (!newline || newline + 1 != c->answer + c->answer_len || strncmp(c->answer, "OK ", 3) != 0 ||
		!ask_for_stream(c))
		try_failed(c);
}

/* One try. False: it has failed at once. */
static bool try_machine(struct connection *c)
{
	static const char greeting[] = "CONNECT " STRINGIFY(HULL_VSOCK_PORT_AGENT) "\n";

	c->vsock_fd = unix_connect(c->port->spec.vsock, 1, NULL);
	if (c->vsock_fd < 0) {
		c->vsock_fd = -1;
		return false;
	}
	set_step(c, STEP_OK_LINE);
	c->due_ns = monotonic_ns() + TRY_NS;
	c->vsock = loop_add_fd(c->port->ingress->loop, c->vsock_fd, EPOLLIN, on_vsock, c);
	return c->vsock && say(c, greeting, sizeof greeting - 1);
}

/* The client sent its FIN or is gone. With bytes waiting it may be one that asked and now only listens; without any it
 * has nothing to wait for. */
static void on_client(void *ctx, uint32_t events)
{
	struct connection *c = ctx;
	char byte;

	if (!(events & (EPOLLHUP | EPOLLERR)) && recv(c->client_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		loop_set_events(c->client, EPOLLERR);
	else
		connection_end(c);
}

void connection_retry(void *ctx)
{
	struct ingress *ingress = ctx;
	struct connection *c, *next;
	uint64_t now = monotonic_ns();

	ingress->retries_ns = UINT64_MAX;
	for (c = ingress->pending; c; c = next) {
		next = c->next_pending;
		if (now >= c->deadline_ns) {
			log_info("%s: port %d of the machine was not reached in time", c->port->spec.machine,
				(int)c->port->spec.guest);
			connection_end(c);
			continue;
		}
		if (now >= c->due_ns && (c->step != STEP_PAUSE || !try_machine(c))) {
			if (is_in_vain(c)) {
				connection_end(c);
				continue;
			}
			pause_tries(c);
		}
		arm_retry(c);
	}
}

/* A client whose host or network has gone never says so: after two minutes without a sign of life it is asked. */
static void keep_alive(int fd)
{
	int on = 1, idle_s = 120, every_s = 15, probes = 4;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof every_s);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

void connection_begin(struct port *port, int fd)
{
	struct ingress *ingress = port->ingress;
	struct connection *c = NULL;

	if (port->spec.gate != GATE_CLOSED && ingress->n_connections < ingress->connections_max &&
		port->n_waiting < INGRESS_WAITING_PER_PORT_MAX)
		c = calloc(1, sizeof *c);
	if (!c) {
		close_fd(fd);
		return;
	}
	c->port = port;
	c->client_fd = fd;
	c->vsock_fd = -1;
	c->deadline_ns = monotonic_ns() + WAIT_NS;
	c->backoff_ns = BACKOFF_MIN_NS;
	c->next = port->connections;
	c->link = &port->connections;
	if (c->next)
		c->next->link = &c->next;
	port->connections = c;
	port->n_connections++;
	ingress->n_connections++;
	enter_pending(c);
	keep_alive(fd);
	c->client = loop_add_fd(ingress->loop, fd, EPOLLRDHUP, on_client, c);
	if (!c->client) {
		connection_end(c);
		return;
	}
	if (port_waits(port) || !try_machine(c)) {
		if (is_in_vain(c)) {
			connection_end(c);
			return;
		}
		pause_tries(c);
	}
	arm_retry(c);
	port_is_waited_at(port);
}

void connection_gate_changed(struct port *port)
{
	struct connection *c, *next;

	for (c = port->connections; c; c = next) {
		next = c->next;
		if (has_reached(c->step))
			continue;
		if (port->spec.gate == GATE_CLOSED) {
			connection_end(c);
			continue;
		}
		if (port_waits(port)) {
			pause_tries(c);
		} else if (c->step == STEP_PAUSE) {
			c->due_ns = monotonic_ns();
			c->backoff_ns = BACKOFF_MIN_NS;
		}
		arm_retry(c);
	}
}

void connection_close_all(struct port *port)
{
	while (port->connections)
		connection_end(port->connections);
}
