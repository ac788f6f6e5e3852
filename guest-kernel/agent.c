/* The agent: answers the host's requests on vsock.
 *
 * Theory of operation. A connection is in one of these states, told by what it owns: a `source` on the host's socket
 * (the request is being read), a `dial` (connecting to a program), a `relay` (streaming), `datagrams`. Each ends by
 * connection_free(); the list is the agent's. An EXEC's socket becomes an exec's (exec.c), an ORDER's an order's (orders.c),
 * a FILES' a child's (files.c). */
#include "guest-kernel/agent.h"

#include "common/cleanup.h"
#include "common/relay.h"
#include "guest-kernel/datagrams.h"
#include "guest-kernel/dial.h"
#include "guest-kernel/exec.h"
#include "guest-kernel/files.h"
#include "guest-kernel/hull_guest.h"
#include "guest-kernel/orders.h"

#include <endian.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <string.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 4096
#define ACCEPTS_A_ROUND 64
#define DATAGRAMS_MAX	64

struct connection {
	struct agent *agent;
	struct connection *next, **link;
	int host_fd, tcp_fd;
	struct loop_source *source;
	struct dial *dial;
	struct relay *relay;
	struct datagrams *datagrams;
	struct hull_agent_request request; /* as it comes */
	size_t request_len;
};

struct agent {
	struct loop *loop;
	int listen_fd;
	struct loop_source *listener;
	agent_stop_fn stop;
	void *ctx;
	struct connection *connections;
	size_t n_connections, n_datagrams, n_sessions;
	struct execs *execs;
	struct orders *orders;
	struct files files;
};

static void connection_free(void *ctx)
{
	struct connection *c = ctx;

	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->agent->n_connections--;
	loop_remove(c->source);
	dial_cancel(c->dial);
	relay_free(c->relay);
	if (c->datagrams)
		c->agent->n_datagrams--;
	datagrams_free(c->datagrams);
	close_fd(c->host_fd);
	close_fd(c->tcp_fd);
	free(c);
}

/* A reply fits any socket's buffer: what is not taken whole goes to a peer that is gone. */
static bool reply(struct connection *c, int status)
{
	struct hull_agent_reply message = {htole32(HULL_AGENT_MAGIC), htole32((uint32_t)status)};

	return send(c->host_fd, &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof message;
}

static void reply_and_end(struct connection *c, int status)
{
	reply(c, status);
	connection_free(c);
}

static void begin_stream(struct connection *c)
{
	if (!reply(c, 0)) {
		connection_free(c);
		return;
	}
	c->relay = relay_new(c->agent->loop, c->host_fd, c->tcp_fd, connection_free, c);
	if (!c->relay) {
		connection_free(c);
		return;
	}
	c->host_fd = c->tcp_fd = -1; /* the relay's */
}

static void on_dialled(void *ctx, int r, int fd)
{
	struct connection *c = ctx;

	c->dial = NULL;
	c->tcp_fd = fd;
	if (r < 0)
		reply_and_end(c, -r);
	else
		begin_stream(c);
}

static void begin_connecting(struct connection *c, uint32_t port)
{
	if (port == 0 || port > UINT16_MAX) {
		reply_and_end(c, EINVAL);
		return;
	}
	loop_remove(c->source); /* a host that leaves meanwhile is noticed when the reply is sent */
	c->source = NULL;
	c->dial = dial_new(c->agent->loop, (uint16_t)port, on_dialled, c);
	if (!c->dial)
		reply_and_end(c, ENOMEM);
}

static void begin_datagrams(struct connection *c, uint32_t port)
{
	struct agent *agent = c->agent;

	if (port == 0 || port > UINT16_MAX) {
		reply_and_end(c, EINVAL);
		return;
	}
	if (agent->n_datagrams >= DATAGRAMS_MAX) {
		reply_and_end(c, EAGAIN);
		return;
	}
	loop_remove(c->source); /* the descriptor gets another */
	c->source = NULL;
	c->datagrams = datagrams_new(agent->loop, c->host_fd, (uint16_t)port, &agent->n_sessions, connection_free, c);
	if (!c->datagrams) {
		reply_and_end(c, ENOMEM);
		return;
	}
	agent->n_datagrams++;
	reply(c, 0); /* to a peer that has gone it is no loss: it is noticed at once */
	c->host_fd = -1; /* the datagrams' */
}

/* Hands the connection over, to an exec or an order. */
static void begin_frames(struct connection *c, bool is_exec, uint32_t arg)
{
	struct agent *agent = c->agent;
	int r;

	loop_remove(c->source); /* the descriptor gets another */
	c->source = NULL;
	if (!is_exec)
		r = orders_serve(agent->orders, c->host_fd, arg);
	else if (orders_hold_still(agent->orders))
		r = -EBUSY;
	else
		r = execs_serve(agent->execs, c->host_fd);
	reply(c, -r); /* to a peer that has gone it is no loss: the next owner will notice */
	if (r == 0)
		c->host_fd = -1;
	connection_free(c);
}

/* The child has the connection, and replies. */
static void begin_files(struct connection *c)
{
	struct agent *agent = c->agent;
	int r = orders_hold_still(agent->orders) ? -EBUSY : files_serve(&agent->files, c->host_fd);

	if (r < 0)
		reply(c, -r);
	connection_free(c);
}

static void handle_request(struct connection *c)
{
	const struct hull_agent_request *request = &c->request;
	uint32_t arg = le32toh(request->arg);

	if (le32toh(request->magic) != HULL_AGENT_MAGIC) {
		connection_free(c); /* not our protocol: nothing we say would be understood */
		return;
	}
	if (le16toh(request->version) != HULL_AGENT_VERSION) {
		reply_and_end(c, EPROTONOSUPPORT);
		return;
	}
	switch (le16toh(request->verb)) {
	case HULL_AGENT_PING:
		reply_and_end(c, 0); /* the agent listens only once the workload was started, or waits for a client */
		return;
	case HULL_AGENT_STREAM:
		begin_connecting(c, arg);
		return;
	case HULL_AGENT_STOP: {
		struct agent *agent = c->agent;

		reply_and_end(c, 0);
		agent->stop(agent->ctx, arg);
		return;
	}
	case HULL_AGENT_EXEC:
	case HULL_AGENT_ORDER:
		begin_frames(c, le16toh(request->verb) == HULL_AGENT_EXEC, arg);
		return;
	case HULL_AGENT_FILES:
		begin_files(c);
		return;
	case HULL_AGENT_DATAGRAMS:
		begin_datagrams(c, arg);
		return;
	default:
		reply_and_end(c, EPROTONOSUPPORT);
	}
}

/* Never reads past the request: what follows belongs to the stream. */
static void on_request(void *ctx, uint32_t events)
{
	struct connection *c = ctx;
	ssize_t n = read(c->host_fd, (char *)&c->request + c->request_len, sizeof c->request - c->request_len);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		connection_free(c);
		return;
	}
	c->request_len += (size_t)n;
	if (c->request_len == sizeof c->request)
		handle_request(c);
}

void agent_serve(struct agent *agent, int fd)
{
	struct connection *c = agent->n_connections < CONNECTIONS_MAX ? calloc(1, sizeof *c) : NULL;

	if (!c) {
		close_fd(fd);
		return;
	}
	c->agent = agent;
	c->host_fd = fd;
	c->tcp_fd = -1;
	c->next = agent->connections;
	c->link = &agent->connections;
	if (c->next)
		c->next->link = &c->next;
	agent->connections = c;
	agent->n_connections++;
	c->source = loop_add_fd(agent->loop, fd, EPOLLIN, on_request, c);
	if (!c->source)
		connection_free(c);
}

static void on_accept(void *ctx, uint32_t events)
{
	struct agent *agent = ctx;

	(void)events;
	for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
		struct sockaddr_vm peer = {0};
		socklen_t len = sizeof peer;
		int fd = accept4(agent->listen_fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		/* Programs in the machine can reach us by the loopback CID; the agent is the host's. */
		if (peer.svm_cid == VMADDR_CID_HOST)
			agent_serve(agent, fd);
		else
			close_fd(fd);
	}
}

int agent_listen(struct agent *agent, struct error *err)
{
	struct sockaddr_vm any = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = HULL_VSOCK_PORT_AGENT};
	cleanup_close int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 && (errno == EAFNOSUPPORT || errno == ENODEV))
		return 0;
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0 || listen(fd, SOMAXCONN) < 0)
		return error_set_errno(err, errno, "listen on vsock port %d", HULL_VSOCK_PORT_AGENT);
	agent->listener = loop_add_fd(agent->loop, fd, EPOLLIN, on_accept, agent);
	if (!agent->listener)
		return error_set_errno(err, errno, "watch the agent's socket");
	agent->listen_fd = steal_fd(&fd);
	return 0;
}

struct agent *agent_new(
	struct loop *loop, struct guest_config *config, agent_stop_fn stop, void *ctx, struct error *err)
{
	struct agent *agent = calloc(1, sizeof *agent);

	if (agent)
		*agent = (struct agent){.loop = loop, .listen_fd = -1, .stop = stop, .ctx = ctx,
			.execs = execs_new(loop, config), .orders = orders_new(loop, config)};
	if (agent && agent->execs && agent->orders)
		return agent;
	error_set_errno(err, ENOMEM, "agent");
	agent_free(agent);
	return NULL;
}

void agent_hold_workload(struct agent *agent, const struct held_workload *workload)
{
	execs_hold_workload(agent->execs, workload);
}

void agent_drop_workload(struct agent *agent)
{
	execs_drop_workload(agent->execs);
}

void agent_child_ended(struct agent *agent, pid_t pid, int wait_status)
{
	execs_child_ended(agent->execs, pid, wait_status);
	orders_child_ended(agent->orders, pid, wait_status);
	files_child_ended(&agent->files, pid);
}

void agent_thaw(struct agent *agent)
{
	orders_thaw(agent->orders);
}

void agent_free(struct agent *agent)
{
	if (!agent)
		return;
	while (agent->connections)
		connection_free(agent->connections);
	execs_free(agent->execs);
	orders_free(agent->orders);
	files_done(&agent->files);
	loop_remove(agent->listener);
	close_fd(agent->listen_fd);
	free(agent);
}
