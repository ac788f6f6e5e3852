/* Published ports: a listener on the host each, TCP or a Unix socket, and the connections it accepted. */
#include "api/ingress/port.h"

#include "api/ingress/connection.h"
#include "api/ingress/forwarder.h"
#include "common/io.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG	4096
#define ACCEPTS_A_ROUND 64
#define RESUME_NS	(100 * NS_PER_MS)

const char *const gate_names[] = GATE_NAMES;

/* Between asking the forwarder and its answer. Belongs to the port; the asker may leave before. */
struct port_request {
	struct port *port;
	port_done_fn done; /* NULL: cancelled */
	void *ctx;
};

union address {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

/* A Unix socket: nobody outside this host reaches it, and so no forwarder hears of it. */
static bool is_unix(const struct port_spec *spec)
{
	return spec->address[0] == '/';
}

static void port_free(struct port *port)
{
	struct ingress *ingress = port->ingress;
	struct port **link = &ingress->ports;

	while (*link && *link != port)
		link = &(*link)->next;
	if (*link) {
		*link = port->next;
		ingress->n_ports--;
	}
	connection_close_all(port);
	loop_remove(port->listener);
	loop_remove(port->resume);
	if (port->listen_fd >= 0 && is_unix(&port->spec))
		unlink(port->spec.address);
	close_fd(port->listen_fd);
	if (port->forwarded)
		forwarder_remove(ingress->forwarder, port->spec.address, (uint16_t)port->spec.host);
	free(port->request);
	free(port->spec.machine);
	free(port->spec.address);
	free(port->spec.vsock);
	free(port);
	ingress_check_idle(ingress);
}

static void on_accept(void *ctx, uint32_t events)
{
	struct port *port = ctx;

	(void)events;
	for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
		int fd = accept4(port->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			connection_begin(port, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			/* The connection stays in the backlog and would wake us at once, for nothing. */
			log_warn("cannot accept on port %d: %s", (int)port->spec.host, strerror(errno));
			loop_set_events(port->listener, 0);
			loop_timer_arm(port->resume, RESUME_NS);
		}
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

static void on_resume(void *ctx)
{
	struct port *port = ctx;

	loop_set_events(port->listener, EPOLLIN);
}

static int parse_address(const char *text, uint16_t number, union address *ret, socklen_t *ret_len)
{
	memset(ret, 0, sizeof *ret);
	if (inet_pton(AF_INET, text, &ret->in4.sin_addr) == 1) {
		ret->in4.sin_family = AF_INET;
		ret->in4.sin_port = htons(number);
		*ret_len = sizeof ret->in4;
	} else if (inet_pton(AF_INET6, text, &ret->in6.sin6_addr) == 1) {
		ret->in6.sin6_family = AF_INET6;
		ret->in6.sin6_port = htons(number);
		*ret_len = sizeof ret->in6;
	} else {
		return -EINVAL;
	}
	return 0;
}

static int listen_tcp(const char *text, uint16_t number, struct error *err)
{
	cleanup_close int fd = -1;
	union address address;
	socklen_t len;
	int one = 1;

	if (parse_address(text, number, &address, &len) < 0)
		return error_set_field(err, EINVAL, "address", "\"%s\" is no IP address", text);
	fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "make a socket");
	/* Not held up by connections of before in TIME_WAIT; two listeners still exclude each other. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (address.any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(fd, &address.any, len) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
		return errno == EADDRINUSE ?
			       error_set(err, EADDRINUSE, "%s:%d is already in use", text, number) :
			       error_set_errno(err, errno, "listen on %s:%d", text, number);
	return steal_fd(&fd);
}

/* The same, but for where in the machine it leads. */
static bool is_same_port(const struct port_spec *a, const struct port_spec *b)
{
	return strcmp(a->machine, b->machine) == 0 && strcmp(a->address, b->address) == 0 &&
	       strcmp(a->vsock, b->vsock) == 0 && a->host == b->host;
}

static struct port *find(const struct ingress *ingress, const struct port_spec *spec)
{
	struct port *port = ingress->ports;

	while (port && (port->spec.host != spec->host || strcmp(port->spec.address, spec->address) != 0))
		port = port->next;
	return port;
}

/* A port with nothing open yet. NULL without memory. */
static struct port *port_alloc(struct ingress *ingress, const struct port_spec *spec)
{
	struct port *port = calloc(1, sizeof *port);

	if (!port)
		return NULL;
	port->ingress = ingress;
	port->listen_fd = -1;
	port->spec = (struct port_spec){strdup(spec->machine), strdup(spec->address), strdup(spec->vsock),
		spec->host, spec->guest, spec->gate};
	port->request = calloc(1, sizeof *port->request);
	if (!port->request || !port->spec.machine || !port->spec.address || !port->spec.vsock) {
		port_free(port);
		return NULL;
	}
	return port;
}

static int port_open(struct port *port, struct error *err)
{
	/* Connections to an emulated host arrive at the address its network gave it, whatever was published. */
	const char *address = port->forwarded ? "0.0.0.0" : port->spec.address;
	int fd = is_unix(&port->spec) ? unix_listen(address, LISTEN_BACKLOG, 0660, err) :
					listen_tcp(address, (uint16_t)port->spec.host, err);

	if (fd < 0)
		return fd;
	port->listen_fd = fd;
	port->listener = loop_add_fd(port->ingress->loop, fd, EPOLLIN, on_accept, port);
	port->resume = loop_add_timer(port->ingress->loop, on_resume, port);
	if (!port->listener || !port->resume)
		return error_set_errno(err, errno, "watch port %d", (int)port->spec.host);
	if (port->forwarded)
		loop_set_events(port->listener, 0); /* until the forwarder has it too */
	return 0;
}

/* The end of a publication, good or bad. */
static void complete(struct port *port, const struct error *err)
{
	struct port_request *request = port->request;

	port->request = NULL;
	if (err) {
		port_free(port);
	} else {
		loop_set_events(port->listener, EPOLLIN);
		log_info("published %s:%d for %s", port->spec.address, (int)port->spec.host, port->spec.machine);
	}
	if (request->done)
		request->done(request->ctx, err);
	free(request);
}

static void on_forwarded(void *ctx, const struct error *err)
{
	struct port *port = ctx;

	/* Refused: it has nothing to remove. After any other failure nobody knows, so it is told to. */
	if (err && err->errnum == EADDRINUSE)
		port->forwarded = false;
	complete(port, err);
}

static int check_new(const struct ingress *ingress, const struct port_spec *spec, struct error *err)
{
	const struct port *other = find(ingress, spec);

	if (is_unix(spec) != (spec->host == 0))
		return error_set_field(err, EINVAL, "host", is_unix(spec) ? "a path has none" : "is required, from 1 to 65535");
	if (other && other->request)
		return error_set(err, EADDRINUSE, "%s:%d is being published for %s", spec->address, (int)spec->host,
			other->spec.machine);
	if (other)
		return error_set(err, EADDRINUSE, "%s:%d is already published for %s", spec->address,
			(int)spec->host, other->spec.machine);
	if (ingress->n_ports >= INGRESS_PORTS_MAX)
		return error_set(err, ENOSPC, "%d ports are published, no more are possible", INGRESS_PORTS_MAX);
	return 0;
}

static void set_gate(struct port *port, enum gate gate)
{
	if ((enum gate)port->spec.gate == gate)
		return;
	port->spec.gate = gate;
	connection_gate_changed(port);
}

size_t port_count_served(const struct ingress *ingress, const char *machine)
{
	size_t n = 0;

	for (const struct port *port = ingress->ports; port; port = port->next)
		if (strcmp(port->spec.machine, machine) == 0)
			n += port->n_connections - port->n_waiting;
	return n;
}

void port_set_gate(struct ingress *ingress, const char *machine, enum gate gate)
{
	for (struct port *port = ingress->ports; port; port = port->next)
		if (strcmp(port->spec.machine, machine) == 0)
			set_gate(port, gate);
}

struct port_request *port_publish(
	struct ingress *ingress, const struct port_spec *spec, port_done_fn done, void *ctx)
{
	struct port *port = find(ingress, spec);
	struct error err = {0};

	if (port && !port->request && is_same_port(&port->spec, spec)) {
		port->spec.guest = spec->guest;
		set_gate(port, (enum gate)spec->gate);
		done(ctx, NULL);
		return NULL;
	}
	port = check_new(ingress, spec, &err) == 0 ? port_alloc(ingress, spec) : NULL;
	if (!port) {
		if (!err.errnum)
			error_set_errno(&err, ENOMEM, "publish");
		done(ctx, &err);
		return NULL;
	}
	port->request->port = port;
	port->request->done = done;
	port->request->ctx = ctx;
	port->next = ingress->ports;
	ingress->ports = port;
	ingress->n_ports++;
	ingress_check_idle(ingress);
	port->forwarded = ingress->forwarder && !is_unix(spec);
	if (port_open(port, &err) < 0) {
		port->forwarded = false; /* nothing was announced */
		complete(port, &err);
		return NULL;
	}
	if (!port->forwarded) {
		complete(port, NULL);
		return NULL;
	}
	forwarder_add(ingress->forwarder, spec->address, (uint16_t)spec->host, on_forwarded, port);
	return port->request;
}

void port_request_cancel(struct port_request *request)
{
	if (request)
		request->done = NULL;
}

/* Takes it away, also in the middle of being published: then its asker hears of that. */
static void take_away(struct port *port)
{
	struct error err;

	log_info("unpublished %s:%d of %s", port->spec.address, (int)port->spec.host, port->spec.machine);
	if (!port->request) {
		port_free(port);
		return;
	}
	forwarder_cancel(port->ingress->forwarder, port);
	error_set(&err, ECANCELED, "unpublished meanwhile");
	complete(port, &err);
}

void port_unpublish(struct ingress *ingress, const char *machine, const char *address, int64_t host)
{
	struct port *port = ingress->ports;

	while (port) {
		if (strcmp(port->spec.machine, machine) != 0 ||
			(address && (port->spec.host != host || strcmp(port->spec.address, address) != 0))) {
			port = port->next;
			continue;
		}
		take_away(port);
		port = ingress->ports; /* whoever waited for that one may have gone on, and taken any other away */
	}
}

void port_unpublish_all(struct ingress *ingress)
{
	while (ingress->ports)
		take_away(ingress->ports);
}

json_t *port_list(const struct ingress *ingress)
{
	json_t *list = json_array();

	for (const struct port *port = ingress->ports; port; port = port->next)
		if (!port->request)
			json_array_append_new(list,
				json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:I}", "machine", port->spec.machine, "address",
					port->spec.address, "host", (json_int_t)port->spec.host, "guest",
					(json_int_t)port->spec.guest, "vsock", port->spec.vsock, "gate",
					gate_names[port->spec.gate], "connections", (json_int_t)port->n_connections));
	return list;
}
