/* The client of hull-ingress. See ingress_client.h.
 *
 * States: no connection (fd -1); waiting for a hull-ingress that was started (retry timer armed); connected. Requests
 * queue up in any of them; each is answered, or fails with the connection or its deadline. What a connection is asked first is what is
 * published, and nothing else before what is no machine's any more has been given up: a port that is asked for could be among that. */
#include "api/ingress_client.h"

#include "api/hostnames.h"
#include "api/hulld.h"
#include "api/idle.h"
#include "api/ingress/words.h"
#include "api/machine.h"
#include "api/process.h"
#include "api/supervisor.h"
#include "common/buf.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define ANSWER_MAX     (4u << 20) /* bytes: a list of many thousand ports */
#define CONNECT_NS     10000000000ull
#define ANSWER_NS      15000000000ull
#define RETRY_NS       20000000ull
#define RECONCILE_NS   1000000000ull

struct call {
	char *line; /* the request with its newline, owned */
	ingress_fn fn;
	void *ctx;
	struct call *next;
};

struct ingress_client {
	struct hulld *hulld;
	char socket_path[128];
	int fd;
	bool reconciled; /* on this connection: requests are sent as they come */
	bool told_no_sleep; /* on this connection: it has refused to, and the log says so */
	uint64_t give_up_ns; /* 0: no hull-ingress has been started for this attempt */
	struct loop_source *events, *retry, *deadline, *reconcile;
	struct process *started; /* the hull-ingress we started, to be reaped */
	struct buf in, out;
	struct call *first, **end;
};

static void pump(struct ingress_client *client);

static struct call *pop(struct ingress_client *client)
{
	struct call *call = client->first;

	client->first = call->next;
	if (!client->first)
		client->end = &client->first;
	return call;
}

static void call_free(struct call *call)
{
	free(call->line);
	free(call);
}

static void disconnect(struct ingress_client *client)
{
	loop_remove(client->events);
	client->events = NULL;
	client->fd = close_fd(client->fd);
	client->reconciled = client->told_no_sleep = false;
	buf_consume(&client->in, client->in.len);
	buf_consume(&client->out, client->out.len);
}

/* Nobody will say when their connections have ended. */
static void all_drained(struct ingress_client *client)
{
	for (struct machine *m = client->hulld->machines; m; m = m->next)
		supervisor_drained(m);
}

/* Fails everything that waits: what was sent may or may not have been done; the next reconciliation settles it. */
static void fail_all(struct ingress_client *client, const struct error *err)
{
	struct call *list = client->first;

	client->first = NULL;
	client->end = &client->first;
	client->give_up_ns = 0;
	loop_timer_arm(client->deadline, UINT64_MAX);
	disconnect(client);
	while (list) {
		struct call *call = list;

		list = call->next;
		if (call->fn)
			call->fn(call->ctx, NULL, err);
		call_free(call);
	}
	if (machines_publish_ports(client->hulld))
		loop_timer_arm(client->reconcile, RECONCILE_NS);
	all_drained(client);
}

/* One that ends before it listens, or while it holds ports: the connection tells the latter. */
static void on_ingress_end(void *ctx, int status)
{
	struct ingress_client *client = ctx;
	struct error err;

	process_free(client->started);
	client->started = NULL;
	if (client->fd >= 0 || !client->first)
		return;
	error_set(&err, ECHILD, "hull-ingress ended before it listened, with status %d",
		status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	fail_all(client, &err);
}

static int start_ingress(struct ingress_client *client, struct error *err)
{
	const struct options *options = &client->hulld->options;
	const char *argv[] = {options->ingress, "--socket", client->socket_path,
		options->ingress_forwarder ? "--forwarder" : NULL, options->ingress_forwarder, NULL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fds[] = {null, null, 2}, gate;
	struct process_id id;

	if (client->started)
		return 0; /* still coming up */
	client->started = process_spawn(client->hulld->loop, argv, fds, 3, on_ingress_end, client, &id, &gate, err);
	close_fd(null);
	if (!client->started)
		return -err->errnum;
	process_open_gate(gate);
	return 0;
}

static void flush(struct ingress_client *client)
{
	int r = buf_send(&client->out, client->fd);
	struct error err;

	if (r < 0) {
		error_set_errno(&err, -r, "hull-ingress does not listen");
		fail_all(client, &err);
		return;
	}
	loop_set_events(client->events, EPOLLIN | (client->out.len ? EPOLLOUT : 0));
}

/* Which an answer or an event is about; NULL: there is none any more. */
static struct machine *machine_of(struct ingress_client *client, const json_t *value)
{
	const char *id = json_string_value(json_object_get(value, "machine"));

	return id ? machine_by_id(client->hulld, id) : NULL;
}

/* What it says by itself; of other events than these we know nothing. */
static void event(struct ingress_client *client, const json_t *value)
{
	const char *word = json_string_value(json_object_get(value, "event"));
	struct machine *m = machine_of(client, value);

	if (m && word && strcmp(word, "drained") == 0)
		supervisor_drained(m);
	else if (m && word && strcmp(word, "wanted") == 0)
		idle_wanted(m);
}

static void answer(struct ingress_client *client, const char *line, size_t len)
{
	struct error err;
	json_t *value = json_parse(line, len, &err);
	struct call *call;

	if (json_object_get(value, "event")) {
		event(client, value);
		json_decref(value);
		return;
	}
	if (!json_is_object(value) || !client->first) {
		json_decref(value);
		error_set(&err, EPROTO, "hull-ingress answers nonsense");
		fail_all(client, &err);
		return;
	}
	call = pop(client);
	loop_timer_arm(client->deadline, client->first ? ANSWER_NS : UINT64_MAX);
	if (call->fn)
		call->fn(call->ctx, value, NULL);
	call_free(call);
	json_decref(value);
}

static void on_events(void *ctx, uint32_t events)
{
	struct ingress_client *client = ctx;
	struct error err;
	ssize_t n;

	if (events & EPOLLOUT)
		flush(client);
	if (client->fd < 0 || !(events & ~(uint32_t)EPOLLOUT))
		return;
	n = buf_read_fd(&client->in, client->fd, 65536);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		error_set(&err, ECONNRESET, "hull-ingress has gone");
		fail_all(client, &err);
		return;
	}
	while (client->fd >= 0 && client->in.len) {
		char *newline = memchr(client->in.data, '\n', client->in.len);
		size_t len = newline ? (size_t)(newline - client->in.data) : 0;

		if (!newline)
			break;
		answer(client, client->in.data, len);
		if (client->fd >= 0)
			buf_consume(&client->in, len + 1);
	}
}

static struct call *call_new(json_t *request, ingress_fn fn, void *ctx)
{
	struct call *call = calloc(1, sizeof(*call));
	char *text = json_dumps(request, JSON_COMPACT);

	if (!call || !text || asprintf(&call->line, "%s\n", text) < 0)
		abort();
	free(text);
	json_decref(request);
	call->fn = fn;
	call->ctx = ctx;
	return call;
}

static void enqueue(struct ingress_client *client, json_t *request, ingress_fn fn, void *ctx)
{
	struct call *call = call_new(request, fn, ctx);

	if (!client->first)
		loop_timer_arm(client->deadline, ANSWER_NS);
	*client->end = call;
	client->end = &call->next;
	if (client->reconciled) {
		buf_append(&client->out, call->line, strlen(call->line));
		buf_send(&client->out, client->fd); /* now: who is told next that a machine starts, may be there before it is held otherwise */
	}
	loop_timer_arm(client->retry, 0); /* sends the rest, connects, or fails, from the loop: `fn` is never called from here */
}

static void log_refusal(void *ctx, const json_t *reply, const struct error *err)
{
	const char *message = reply ? json_string_value(json_object_get(reply, "message")) : err->message;

	(void)ctx;
	if (!reply || !json_is_true(json_object_get(reply, "ok")))
		log_warn("hull-ingress: %s", message ? message : "refused without a reason");
}

/* Where hull-ingress has a port of the machine: its address, or the path of a socket for what is served by host name. Returns `ret`. */
static const char *port_place(const struct machine *m, const struct port_spec *port, char ret[PORT_PLACE_MAX])
{
	if (port->hostname)
		hostnames_socket_path(m, port->guest, ret);
	else
		snprintf(ret, PORT_PLACE_MAX, "%s", port->address);
	return ret;
}

/* Gives up a port of the list that is no machine's, or not any more. */
static void look_at_port(struct ingress_client *client, const json_t *port)
{
	const char *id = json_string_value(json_object_get(port, "machine"));
	const char *protocol = json_string_value(json_object_get(port, "protocol"));
	const struct port_spec listed = {.host = json_integer_value(json_object_get(port, "host")),
		.address = (char *)json_string_value(json_object_get(port, "address")),
		.protocol = protocol && strcmp(protocol, "udp") == 0 ? PROTOCOL_UDP : PROTOCOL_TCP};
	const struct machine *m = id ? machine_by_id(client->hulld, id) : NULL;
	const struct port_spec *ports = m ? m->spec.ports.items : NULL;
	char place[PORT_PLACE_MAX];

	if (id && !m)
		ingress_unpublish(client, id, log_refusal, NULL);
	/* One that is being changed settles its ports itself. */
	if (!m || !listed.address || m->patching)
		return;
	for (size_t i = 0; i < m->spec.ports.len; i++)
		if (listed.host ? ports_are_same(&ports[i], &listed) : strcmp(port_place(m, &ports[i], place), listed.address) == 0)
			return;
	ingress_unpublish_port(client, m, &listed);
}

/* Gives up what belongs to no machine, publishes what belongs to one. */
static void on_list(void *ctx, const json_t *reply, const struct error *err)
{
	struct ingress_client *client = ctx;
	struct call *waiting, **end;
	const json_t *port;
	size_t i;

	if (!reply) {
		log_warn("hull-ingress: %s", err->message);
		return;
	}
	waiting = client->first;
	end = client->end;
	client->first = NULL;
	client->end = &client->first;
	client->reconciled = true;
	json_array_foreach(json_object_get(reply, "ports"), i, port)
		look_at_port(client, port);
	for (struct machine *m = client->hulld->machines; m; m = m->next) {
		/* Those are published by their creation, and given up by their removal: behind that it would stay. */
		if (m->record.state == MACHINE_CREATING || m->removing)
			continue;
		ingress_tell_gate(client, m);
		for (i = 0; i < m->spec.ports.len; i++)
			ingress_publish(client, m, &((const struct port_spec *)m->spec.ports.items)[i], NULL, NULL);
	}
	if (!waiting)
		return;
	*client->end = waiting;
	client->end = end;
	for (; waiting; waiting = waiting->next)
		buf_append(&client->out, waiting->line, strlen(waiting->line));
	loop_timer_arm(client->deadline, ANSWER_NS);
	loop_timer_arm(client->retry, 0);
}

static int try_connect(struct ingress_client *client, struct error *err)
{
	int fd = unix_connect(client->socket_path, 1, err);
	struct call *list;

	if (fd < 0)
		return fd;
	client->events = loop_add_fd(client->hulld->loop, fd, EPOLLIN, on_events, client);
	if (!client->events) {
		close_fd(fd);
		return error_set_errno(err, ENOMEM, "cannot watch hull-ingress");
	}
	client->fd = fd;
	client->give_up_ns = 0;
	list = call_new(json_pack("{s:s}", "op", "list"), on_list, client);
	list->next = client->first;
	client->first = list;
	if (!list->next)
		client->end = &list->next;
	buf_append(&client->out, list->line, strlen(list->line));
	loop_timer_arm(client->deadline, ANSWER_NS);
	return 0;
}

/* From the retry timer: connect, start, try again, or send. */
static void pump(struct ingress_client *client)
{
	struct error err;

	if (!client->first)
		return;
	if (client->fd < 0 && try_connect(client, &err) < 0) {
		if (!client->give_up_ns) {
			client->give_up_ns = monotonic_ns() + CONNECT_NS;
			if (start_ingress(client, &err) < 0) {
				fail_all(client, &err);
				return;
			}
		}
		if (monotonic_ns() > client->give_up_ns) {
			error_prefix(&err, "hull-ingress does not come up: ");
			fail_all(client, &err);
			return;
		}
		loop_timer_arm(client->retry, RETRY_NS);
		return;
	}
	flush(client);
}

static void on_retry(void *ctx)
{
	pump(ctx);
}

static void on_deadline(void *ctx)
{
	struct ingress_client *client = ctx;
	struct error err;

	error_set(&err, ETIMEDOUT, "hull-ingress does not answer");
	fail_all(client, &err);
}

static void on_reconcile(void *ctx)
{
	struct ingress_client *client = ctx;

	/* Connecting asks for the list by itself. */
	if (client->fd < 0 || !client->reconciled)
		enqueue(client, json_pack("{s:s}", "op", "list"), log_refusal, NULL);
}

struct ingress_client *ingress_client_new(struct hulld *hulld, struct error *err)
{
	struct ingress_client *client = calloc(1, sizeof(*client));

	if (!client) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	client->hulld = hulld;
	client->fd = -1;
	client->end = &client->first;
	snprintf(client->socket_path, sizeof(client->socket_path), "%s/ingress.sock", hulld->options.run);
	buf_init(&client->in, ANSWER_MAX);
	buf_init(&client->out, ANSWER_MAX);
	client->retry = loop_add_timer(hulld->loop, on_retry, client);
	client->deadline = loop_add_timer(hulld->loop, on_deadline, client);
	client->reconcile = loop_add_timer(hulld->loop, on_reconcile, client);
	if (client->retry && client->deadline && client->reconcile)
		return client;
	error_set(err, ENOMEM, "out of memory");
	ingress_client_free(client);
	return NULL;
}

void ingress_client_free(struct ingress_client *client)
{
	if (!client)
		return;
	disconnect(client);
	while (client->first)
		call_free(pop(client));
	loop_remove(client->retry);
	loop_remove(client->deadline);
	loop_remove(client->reconcile);
	process_free(client->started);
	buf_done(&client->in);
	buf_done(&client->out);
	free(client);
}

void ingress_reconcile(struct ingress_client *client)
{
	/* One that nobody needs is not started only to be told so; a living one may hold ports of machines that are gone. */
	if (machines_publish_ports(client->hulld) || access(client->socket_path, F_OK) == 0)
		loop_timer_arm(client->reconcile, 0);
}

static json_t *gate_text(int gate)
{
	static const char *const names[] = GATE_NAMES;

	return json_string(names[gate]);
}

void ingress_tell_gate(struct ingress_client *client, struct machine *machine)
{
	int gate = ingress_gate_of(machine);

	if (machine->gate == gate)
		return;
	machine->gate = gate;
	if (machine->spec.ports.len || machine->patching)
		enqueue(client,
			json_pack("{s:s, s:s, s:o}", "op", "gate", "machine", machine->record.id, "gate", gate_text(gate)),
			log_refusal, NULL);
}

static void on_drain_answer(void *ctx, const json_t *reply, const struct error *err)
{
	struct ingress_client *client = ctx;

	struct machine *m = machine_of(client, reply);

	log_refusal(NULL, reply, err);
	if (!json_is_true(json_object_get(reply, "ok")))
		all_drained(client);
	else if (m && json_integer_value(json_object_get(reply, "connections")) == 0)
		supervisor_drained(m);
}

void ingress_drain(struct ingress_client *client, const struct machine *machine)
{
	enqueue(client, json_pack("{s:s, s:s}", "op", "drain", "machine", machine->record.id), on_drain_answer, client);
}

static void on_sleep_answer(void *ctx, const json_t *reply, const struct error *err)
{
	struct ingress_client *client = ctx;
	const char *message = json_string_value(json_object_get(reply, "message"));
	struct machine *m = machine_of(client, reply);

	if (m)
		idle_answered(m, json_integer_value(json_object_get(reply, "idle_ms")), json_is_true(json_object_get(reply, "held")));
	else if (!reply)
		log_refusal(NULL, reply, err);
	else if (message && !client->told_no_sleep) {
		client->told_no_sleep = true;
		log_warn("a machine is not put to sleep: hull-ingress, perhaps an older one, says: %s", message);
	}
}

void ingress_sleep(struct ingress_client *client, const struct machine *machine, int64_t idle_ms)
{
	enqueue(client,
		json_pack("{s:s, s:s, s:I}", "op", "sleep", "machine", machine->record.id, "idle_ms", (json_int_t)idle_ms),
		on_sleep_answer, client);
}

/* What is as it always was, a hull-ingress that is older than this hulld is not told: it knows no word for it. */
static void set_protocol(json_t *request, const struct port_spec *port)
{
	if (port->protocol == PROTOCOL_UDP)
		json_object_set_new(request, "protocol", json_string("udp"));
}

void ingress_publish(struct ingress_client *client, const struct machine *machine, const struct port_spec *port, ingress_fn fn,
	void *ctx)
{
	char vsock[160], place[PORT_PLACE_MAX];
	int gate = ingress_gate_of(machine);
	json_t *request;

	machine_run_path(machine, "vsock.sock", vsock, sizeof(vsock));
	request = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "op", "publish", "machine", machine->record.id, "address",
		port_place(machine, port, place), "host", (json_int_t)port->host, "guest", (json_int_t)port->guest, "vsock", vsock);
	if (gate != GATE_OPEN)
		json_object_set_new(request, "gate", gate_text(gate));
	set_protocol(request, port);
	enqueue(client, request, fn ? fn : log_refusal, ctx);
}

void ingress_unpublish_port(struct ingress_client *client, const struct machine *machine, const struct port_spec *port)
{
	char place[PORT_PLACE_MAX];
	json_t *request = json_pack("{s:s, s:s, s:s, s:I}", "op", "unpublish", "machine", machine->record.id, "address",
		port_place(machine, port, place), "host", (json_int_t)port->host);

	set_protocol(request, port);
	enqueue(client, request, log_refusal, NULL);
}

void ingress_unpublish(struct ingress_client *client, const char *machine_id, ingress_fn fn, void *ctx)
{
	enqueue(client, json_pack("{s:s, s:s}", "op", "unpublish", "machine", machine_id), fn, ctx);
}

bool ingress_shut_down(struct ingress_client *client, ingress_fn fn, void *ctx)
{
	if (client->fd < 0 && access(client->socket_path, F_OK) < 0)
		return false;
	enqueue(client, json_pack("{s:s}", "op", "shutdown"), fn, ctx);
	return true;
}
