/* Published ports: a listener on the host each, TCP or a Unix socket, and the connections it accepted; or a UDP socket. */
#include "api/ingress/port.h"

#include "api/ingress/connection.h"
#include "api/ingress/control.h"
#include "api/ingress/forwarder.h"
#include "api/ingress/listen.h"
#include "common/log.h"
#include "guest-kernel/hull_guest.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define ACCEPTS_A_ROUND 64
#define RESUME_NS	(100 * NS_PER_MS)

const char *const gate_names[] = GATE_NAMES;
const char *const protocol_names[] = PROTOCOL_NAMES;

/* What a machine's ports have in common; goes with the last of them. */
struct machine_ports {
	size_t n_ports;
	struct udp_sessions sessions;
	struct client *waker; /* to be told, once, that somebody waits; NULL: nobody is */
	uint64_t used_ns;     /* when the last connection ended; at first, when it came to have ports */
};

/* Between asking the forwarder and its answer. Belongs to the port; the asker may leave before. */
struct port_request {
	struct port *port;
	port_done_fn done; /* NULL: cancelled */
	void *ctx;
};

/* A Unix socket: nobody outside this host reaches it, and so no forwarder hears of it. */
static bool is_unix(const struct port_spec *spec)
{
	return spec->address[0] == '/';
}

static bool is_udp(const struct port_spec *spec)
{
	return spec->protocol == PROTOCOL_UDP;
}

bool port_is_unix(const struct port *port)
{
	return is_unix(&port->spec);
}

bool port_waits(const struct port *port)
{
	return port->spec.gate == GATE_WAIT || port->spec.gate == GATE_WAKE;
}

bool port_gives_up(const struct port *port)
{
	return port->spec.gate == GATE_CLOSED || (port->spec.gate == GATE_OPEN && port->told != GATE_OPEN);
}

/* Whoever comes by a Unix socket has been told by hulld which machines to take: one that sleeps among them, and then what follows on that. */
static enum gate gate_for(const struct port_spec *spec, enum gate before, enum gate gate)
{
	if (!is_unix(spec) || gate == GATE_WAKE || (gate == GATE_WAIT && before != GATE_OPEN))
		return gate;
	return GATE_OPEN;
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
	udp_port_free(port->udp);
	if (port->of_machine && --port->of_machine->n_ports == 0)
		free(port->of_machine);
	loop_remove(port->listener);
	loop_remove(port->resume);
	if (port->listen_fd >= 0 && is_unix(&port->spec))
		unlink(port->spec.address);
	close_fd(port->listen_fd);
	close_fd(port->undecided_fd);
	if (port->forwarded)
		forwarder_remove(ingress->forwarder, port->spec.address, (uint16_t)port->spec.host, is_udp(&port->spec));
	free(port->request);
	free(port->spec.machine);
	free(port->spec.address);
	free(port->spec.vsock);
	free(port);
	ingress_check_idle(ingress);
}

/* The gate is closed, and whether it still is, control has not read yet. Who was told that the machine starts comes behind that. */
static bool is_undecided(const struct port *port)
{
	return port->spec.gate == GATE_CLOSED && control_is_behind(port->ingress);
}

/* False: it is undecided what becomes of the client, who is kept, and no other is accepted, until it is. */
static bool begin(struct port *port, int fd)
{
	if (is_undecided(port)) {
		port->undecided_fd = fd;
		loop_set_events(port->listener, 0);
		loop_timer_arm(port->resume, 0);
		return false;
	}
	connection_begin(port, fd);
	return true;
}

static void on_accept(void *ctx, uint32_t events)
{
	struct port *port = ctx;

	(void)events;
	for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
		int fd = accept4(port->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			if (!begin(port, fd))
				return;
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

static void on_datagrams(void *ctx, uint32_t events)
{
	struct port *port = ctx;

	(void)events;
	if (is_undecided(port))
		return; /* they are still there in the next round */
	udp_port_receive(port->udp);
	if (udp_port_waits(port->udp))
		port_is_waited_at(port);
}

static void on_resume(void *ctx)
{
	struct port *port = ctx;
	int fd = port->undecided_fd;

	port->undecided_fd = -1;
	if (fd < 0 || begin(port, fd))
		loop_set_events(port->listener, EPOLLIN);
}

/* The same, but for where in the machine it leads. */
static bool is_same_port(const struct port_spec *a, const struct port_spec *b)
{
	return strcmp(a->machine, b->machine) == 0 && strcmp(a->address, b->address) == 0 &&
	       strcmp(a->vsock, b->vsock) == 0 && a->host == b->host && a->protocol == b->protocol;
}

static struct port *find(const struct ingress *ingress, const struct port_spec *spec)
{
	struct port *port = ingress->ports;

	while (port && (port->spec.host != spec->host || port->spec.protocol != spec->protocol ||
			       strcmp(port->spec.address, spec->address) != 0))
		port = port->next;
	return port;
}

/* NULL without memory. */
static struct machine_ports *machine_ports_of(struct ingress *ingress, const char *machine)
{
	struct port *port = ingress->ports;
	struct machine_ports *ports;

	while (port && strcmp(port->spec.machine, machine) != 0)
		port = port->next;
	ports = port ? port->of_machine : calloc(1, sizeof *ports);
	if (!ports)
		return NULL;
	if (ports->n_ports++ == 0)
		ports->used_ns = monotonic_ns();
	ports->sessions.max = HULL_DATAGRAM_SESSIONS_ALL;
	ports->sessions.whole = &ingress->sessions;
	return ports;
}

/* A port with nothing open yet. NULL without memory. */
static struct port *port_alloc(struct ingress *ingress, const struct port_spec *spec)
{
	struct port *port = calloc(1, sizeof *port);

	if (!port)
		return NULL;
	port->ingress = ingress;
	port->listen_fd = port->undecided_fd = -1;
	port->spec = (struct port_spec){strdup(spec->machine), strdup(spec->address), strdup(spec->vsock),
		spec->host, spec->guest, gate_for(spec, GATE_OPEN, (enum gate)spec->gate), spec->protocol};
	port->told = (enum gate)spec->gate;
	port->request = calloc(1, sizeof *port->request);
	port->of_machine = machine_ports_of(ingress, spec->machine);
	if (!port->request || !port->of_machine || !port->spec.machine || !port->spec.address || !port->spec.vsock) {
		port_free(port);
		return NULL;
	}
	return port;
}

static int port_open(struct port *port, struct error *err)
{
	/* Connections to an emulated host arrive at the address its network gave it, whatever was published. */
	const char *address = port->forwarded ? "0.0.0.0" : port->spec.address;
	struct loop *loop = port->ingress->loop;
	uint16_t number = (uint16_t)port->spec.host;
	int fd = is_unix(&port->spec) ? listen_unix(address, err) :
		 is_udp(&port->spec)  ? listen_udp(address, number, err) :
					listen_tcp(address, number, err);

	if (fd < 0)
		return fd;
	port->listen_fd = fd;
	if (is_udp(&port->spec)) {
		port->udp = udp_port_new(loop, fd, port->spec.machine, port->spec.vsock, (uint16_t)port->spec.guest,
			&port->of_machine->sessions);
		if (!port->udp)
			return error_set_errno(err, errno, "serve port %d", (int)number);
		udp_port_set_gate(port->udp, (enum gate)port->spec.gate);
	}
	port->listener = loop_add_fd(loop, fd, EPOLLIN, port->udp ? on_datagrams : on_accept, port);
	port->resume = loop_add_timer(loop, on_resume, port);
	if (!port->listener || !port->resume)
		return error_set_errno(err, errno, "watch port %d", (int)number);
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
		log_info("published %s:%d%s for %s", port->spec.address, (int)port->spec.host, is_udp(&port->spec) ? "/udp" : "",
			port->spec.machine);
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

	if (is_unix(spec) && is_udp(spec))
		return error_set_field(err, EINVAL, "protocol", "a path has none but tcp");
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
	port->told = gate;
	gate = gate_for(&port->spec, (enum gate)port->spec.gate, gate);
	if ((enum gate)port->spec.gate == gate)
		return;
	port->spec.gate = gate;
	connection_gate_changed(port);
	if (port->udp)
		udp_port_set_gate(port->udp, gate);
}

void port_take_in(struct ingress *ingress, const char *machine)
{
	for (struct port *port = ingress->ports; port; port = port->next)
		if (is_unix(&port->spec) && port->listener && strcmp(port->spec.machine, machine) == 0)
			on_accept(port, EPOLLIN);
}

size_t port_count_reached(const struct ingress *ingress, const char *machine)
{
	size_t n = 0;

	for (const struct port *port = ingress->ports; port; port = port->next)
		if (strcmp(port->spec.machine, machine) == 0)
			n += is_unix(&port->spec) && !port_waits(port) ? port->n_connections : port->n_reached;
	return n;
}

void port_set_gate(struct ingress *ingress, const char *machine, enum gate gate)
{
	for (struct port *port = ingress->ports; port; port = port->next)
		if (strcmp(port->spec.machine, machine) == 0)
			set_gate(port, gate);
	control_connection_ended(ingress, machine); /* some may not count any more */
}

static bool is_waited_at(const struct port *port)
{
	return port->udp ? udp_port_waits(port->udp) : port->n_waiting > 0;
}

void port_is_waited_at(struct port *port)
{
	struct client *waker = port->of_machine->waker;

	if (port->spec.gate != GATE_WAKE || !waker)
		return;
	port->of_machine->waker = NULL;
	control_wanted(waker, port->spec.machine);
}

void port_set_waker(struct ingress *ingress, const char *machine, struct client *waker)
{
	for (struct port *port = ingress->ports; port; port = port->next) {
		if (strcmp(port->spec.machine, machine) != 0)
			continue;
		port->of_machine->waker = waker;
		if (!is_waited_at(port))
			continue;
		port_is_waited_at(port);
		return;
	}
}

void port_forget_waker(struct ingress *ingress, const struct client *waker)
{
	for (struct port *port = ingress->ports; port; port = port->next)
		if (port->of_machine->waker == waker)
			port->of_machine->waker = NULL;
}

void port_was_used(struct port *port)
{
	port->of_machine->used_ns = monotonic_ns();
}

int64_t port_idle_ms(const struct ingress *ingress, const char *machine)
{
	uint64_t used_ns = 0;

	for (const struct port *port = ingress->ports; port; port = port->next) {
		if (strcmp(port->spec.machine, machine) != 0)
			continue;
		if (port->n_connections)
			return 0;
		if (port->of_machine->used_ns > used_ns)
			used_ns = port->of_machine->used_ns;
		if (port->udp && udp_port_heard_ns(port->udp) > used_ns)
			used_ns = udp_port_heard_ns(port->udp);
	}
	return used_ns ? (int64_t)((monotonic_ns() - used_ns) / NS_PER_MS) : -ENOENT;
}

struct port_request *port_publish(
	struct ingress *ingress, const struct port_spec *spec, port_done_fn done, void *ctx)
{
	struct port *port = find(ingress, spec);
	struct error err = {0};

	if (port && !port->request && is_same_port(&port->spec, spec)) {
		port->spec.guest = spec->guest;
		if (port->udp)
			udp_port_set_guest(port->udp, (uint16_t)spec->guest);
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
	forwarder_add(ingress->forwarder, spec->address, (uint16_t)spec->host, is_udp(spec), on_forwarded, port);
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

	log_info("unpublished %s:%d%s of %s", port->spec.address, (int)port->spec.host, is_udp(&port->spec) ? "/udp" : "",
		port->spec.machine);
	if (!port->request) {
		port_free(port);
		return;
	}
	forwarder_cancel(port->ingress->forwarder, port);
	error_set(&err, ECANCELED, "unpublished meanwhile");
	complete(port, &err);
}

void port_unpublish(struct ingress *ingress, const char *machine, const char *address, int64_t host, enum protocol protocol)
{
	struct port *port = ingress->ports;

	while (port) {
		if (strcmp(port->spec.machine, machine) != 0 ||
			(address && (port->spec.host != host || port->spec.protocol != (int)protocol ||
					    strcmp(port->spec.address, address) != 0))) {
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
				json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:I}", "machine", port->spec.machine, "address",
					port->spec.address, "host", (json_int_t)port->spec.host, "guest",
					(json_int_t)port->spec.guest, "vsock", port->spec.vsock, "gate",
					gate_names[port->spec.gate], "protocol", protocol_names[port->spec.protocol], "connections",
					(json_int_t)(port->udp ? udp_port_count(port->udp) : port->n_connections)));
	return list;
}
