/* The control socket: requests and answers as JSON objects, one a line.
 *
 * Theory of operation. A client's requests are answered in order, one at a time: while one waits for the forwarder, or its
 * answers are not taken, no more is read from that client. A line that is not a request is answered and forgotten; one
 * that is too long ends the client, since nobody knows where the next begins. */
#include "api/ingress/control.h"

#include "api/ingress/port.h"
#include "common/buf.h"
#include "common/json.h"
#include "common/log.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* A machine whose last connection a client wants to hear of. */
struct drain {
	struct drain *next;
	char machine[];
};

struct client {
	struct ingress *ingress;
	struct client *next, **link; /* in ingress->clients */
	int fd;
	struct loop_source *source;
	struct buf in, out;
	struct port_request *waiting; /* for the forwarder's answer */
	struct drain *drains;
	size_t n_drains;
	bool at_end;		      /* nothing more is read; ends when everything was answered */
	loop_fn shut_down;
	void *shut_down_ctx;
};

struct publish_request {
	char *op;
	struct port_spec port;
};

struct machine_request {
	char *op, *machine, *address; /* NULL: all of its ports */
	int64_t host;
	int protocol; /* enum protocol */
};

struct gate_request {
	char *op, *machine;
	int gate; /* enum gate */
};

struct drain_request {
	char *op, *machine;
};

struct sleep_request {
	char *op, *machine;
	int64_t idle_ms;
};

struct plain_request {
	char *op;
};

static int check_path(const char *value, struct error *err)
{
	return *value == '/' ? 0 : error_set(err, EINVAL, "must be an absolute path");
}

static const struct json_field publish_fields[] = {
	{"op", JSON_FIELD_STRING, offsetof(struct publish_request, op), .required = true},
	{"machine", JSON_FIELD_STRING, offsetof(struct publish_request, port.machine), .required = true, .min = 1,
		.max = 128, .help = "id of the machine"},
	{"address", JSON_FIELD_STRING, offsetof(struct publish_request, port.address), .max = 107,
		.def_string = "127.0.0.1", .help = "address on the host, or the path of a Unix socket"},
	{"host", JSON_FIELD_INT, offsetof(struct publish_request, port.host), .max = 65535,
		.help = "port on the host; 0 with a path"},
	{"guest", JSON_FIELD_INT, offsetof(struct publish_request, port.guest), .required = true, .min = 1,
		.max = 65535, .help = "port in the machine"},
	{"vsock", JSON_FIELD_STRING, offsetof(struct publish_request, port.vsock), .required = true, .min = 1,
		.max = 107, .check = check_path, .help = "the machine's vsock socket"},
	{"gate", JSON_FIELD_ENUM, offsetof(struct publish_request, port.gate), .names = gate_names,
		.help = "what becomes of new connections"},
	{"protocol", JSON_FIELD_ENUM, offsetof(struct publish_request, port.protocol), .names = protocol_names},
};
static const struct json_table publish_table = JSON_TABLE("Publish", struct publish_request, publish_fields);

static const struct json_field machine_fields[] = {
	{"op", JSON_FIELD_STRING, offsetof(struct machine_request, op), .required = true},
	{"machine", JSON_FIELD_STRING, offsetof(struct machine_request, machine), .required = true, .min = 1,
		.max = 128, .help = "id of the machine"},
	{"address", JSON_FIELD_STRING, offsetof(struct machine_request, address), .max = 107,
		.help = "address on the host, with `host`: only that port"},
	{"host", JSON_FIELD_INT, offsetof(struct machine_request, host), .max = 65535},
	{"protocol", JSON_FIELD_ENUM, offsetof(struct machine_request, protocol), .names = protocol_names},
};
static const struct json_table machine_table = JSON_TABLE("Unpublish", struct machine_request, machine_fields);

static const struct json_field gate_fields[] = {
	{"op", JSON_FIELD_STRING, offsetof(struct gate_request, op), .required = true},
	{"machine", JSON_FIELD_STRING, offsetof(struct gate_request, machine), .required = true, .min = 1, .max = 128,
		.help = "id of the machine"},
	{"gate", JSON_FIELD_ENUM, offsetof(struct gate_request, gate), .required = true, .names = gate_names,
		.help = "what becomes of new connections"},
};
static const struct json_table gate_table = JSON_TABLE("Gate", struct gate_request, gate_fields);

static const struct json_field drain_fields[] = {
	{"op", JSON_FIELD_STRING, offsetof(struct drain_request, op), .required = true},
	{"machine", JSON_FIELD_STRING, offsetof(struct drain_request, machine), .required = true, .min = 1, .max = 128,
		.help = "id of the machine"},
};
static const struct json_table drain_table = JSON_TABLE("Drain", struct drain_request, drain_fields);

static const struct json_field sleep_fields[] = {
	{"op", JSON_FIELD_STRING, offsetof(struct sleep_request, op), .required = true},
	{"machine", JSON_FIELD_STRING, offsetof(struct sleep_request, machine), .required = true, .min = 1, .max = 128,
		.help = "id of the machine"},
	{"idle_ms", JSON_FIELD_INT, offsetof(struct sleep_request, idle_ms), .required = true, .max = INT64_MAX,
		.help = "for how long nobody may have used its ports"},
};
static const struct json_table sleep_table = JSON_TABLE("Sleep", struct sleep_request, sleep_fields);

static const struct json_field plain_fields[] = {
	{"op", JSON_FIELD_STRING, offsetof(struct plain_request, op), .required = true},
};
static const struct json_table plain_table = JSON_TABLE("Plain", struct plain_request, plain_fields);

static void serve(struct client *client);

static void forget_drain(struct client *client, struct drain **link)
{
	struct drain *drain = *link;

	*link = drain->next;
	client->n_drains--;
	free(drain);
}

static void client_end(struct client *client)
{
	struct ingress *ingress = client->ingress;

	*client->link = client->next;
	if (client->next)
		client->next->link = client->link;
	while (client->drains)
		forget_drain(client, &client->drains);
	port_request_cancel(client->waiting);
	port_forget_waker(ingress, client);
	loop_remove(client->source);
	close_fd(client->fd);
	buf_done(&client->in);
	buf_done(&client->out);
	free(client);
	ingress->n_clients--;
	ingress_check_idle(ingress);
}

/* Queues one answer; takes the reference. */
static void answer(struct client *client, json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT);

	json_decref(object);
	if (!text || buf_append(&client->out, text, strlen(text)) < 0 || buf_append(&client->out, "\n", 1) < 0)
		client->at_end = true; /* cannot be answered: what follows would be taken for the answer */
	free(text);
}

static void answer_ok(struct client *client)
{
	answer(client, json_pack("{s:b}", "ok", 1));
}

/* The closed set of codes: a program decides by them, a person reads the message. */
static const char *code_of(int errnum)
{
	switch (errnum) {
	case EADDRINUSE:
		return "port_taken";
	case EINVAL:
	case ENOKEY:  /* an unknown field */
	case ENODATA: /* a missing one */
		return "invalid";
	case EADDRNOTAVAIL:
		return "address_unavailable";
	case EACCES:
	case EPERM:
		return "permission_denied";
	case ENOSPC:
	case EMFILE:
	case ENFILE:
		return "limit";
	case ECANCELED:
		return "cancelled";
	default:
		return "internal";
	}
}

static void answer_error(struct client *client, const struct error *err)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX];

	answer(client, json_pack("{s:b, s:s, s:s+}", "ok", 0, "code", code_of(err->errnum), "message",
			       error_line(err, line, sizeof line), ""));
}

static void on_published(void *ctx, const struct error *err)
{
	struct client *client = ctx;

	if (err)
		answer_error(client, err);
	else
		answer_ok(client);
	if (client->waiting) { /* later: the client was waiting for this */
		client->waiting = NULL;
		serve(client);
	}
}

static void do_publish(struct client *client, const json_t *object)
{
	struct publish_request request;
	struct error err;

	if (json_read(&publish_table, object, &request, &err) < 0) {
		answer_error(client, &err);
		return;
	}
	client->waiting = port_publish(client->ingress, &request.port, on_published, client);
	if (request.port.gate == GATE_WAKE)
		port_set_waker(client->ingress, request.port.machine, client);
	json_done(&publish_table, &request);
}

static void do_unpublish(struct client *client, const json_t *object)
{
	struct machine_request request;
	struct error err;

	if (json_read(&machine_table, object, &request, &err) < 0) {
		answer_error(client, &err);
		return;
	}
	port_unpublish(client->ingress, request.machine, request.address, request.host, (enum protocol)request.protocol);
	json_done(&machine_table, &request);
	answer_ok(client);
}

static void do_gate(struct client *client, const json_t *object)
{
	struct gate_request request;
	struct error err;

	if (json_read(&gate_table, object, &request, &err) < 0) {
		answer_error(client, &err);
		return;
	}
	port_set_gate(client->ingress, request.machine, (enum gate)request.gate);
	answer_ok(client);
	port_set_waker(client->ingress, request.machine, request.gate == GATE_WAKE ? client : NULL);
	json_done(&gate_table, &request);
}

/* Nobody comes in between: who does now, waits. */
static void do_sleep(struct client *client, const json_t *object)
{
	struct sleep_request request;
	struct error err;
	int64_t idle_ms;
	bool held;

	if (json_read(&sleep_table, object, &request, &err) < 0) {
		answer_error(client, &err);
		return;
	}
	idle_ms = port_idle_ms(client->ingress, request.machine);
	held = idle_ms >= 0 && idle_ms >= request.idle_ms;
	if (idle_ms < 0) {
		error_set_field(&err, EINVAL, "machine", "has no port");
		answer_error(client, &err);
	} else {
		answer(client, json_pack("{s:b, s:s, s:I, s:b}", "ok", 1, "machine", request.machine, "idle_ms", (json_int_t)idle_ms,
				       "held", (int)held));
	}
	if (held) {
		port_set_gate(client->ingress, request.machine, GATE_WAKE);
		port_set_waker(client->ingress, request.machine, client);
	}
	json_done(&sleep_table, &request);
}

static struct drain **find_drain(struct client *client, const char *machine)
{
	struct drain **link = &client->drains;

	while (*link && strcmp((*link)->machine, machine) != 0)
		link = &(*link)->next;
	return link;
}

/* 0, also when it is remembered already. */
static int remember_drain(struct client *client, const char *machine)
{
	size_t len = strlen(machine) + 1;
	struct drain *drain;

	if (*find_drain(client, machine))
		return 0;
	drain = client->n_drains < INGRESS_PORTS_MAX ? malloc(sizeof *drain + len) : NULL;
	if (!drain)
		return -ENOSPC;
	memcpy(drain->machine, machine, len);
	drain->next = client->drains;
	client->drains = drain;
	client->n_drains++;
	return 0;
}

static void do_drain(struct client *client, const json_t *object)
{
	struct drain_request request;
	struct error err;
	size_t n;

	if (json_read(&drain_table, object, &request, &err) < 0) {
		answer_error(client, &err);
		return;
	}
	port_take_in(client->ingress, request.machine);
	n = port_count_reached(client->ingress, request.machine);
	if (n && remember_drain(client, request.machine) < 0) {
		error_set(&err, ENOSPC, "the ends of too many machines' connections are waited for");
		answer_error(client, &err);
	} else {
		answer(client, json_pack("{s:b, s:s, s:I}", "ok", 1, "machine", request.machine, "connections", (json_int_t)n));
	}
	json_done(&drain_table, &request);
}

void control_connection_ended(struct ingress *ingress, const char *machine)
{
	for (struct client *client = ingress->clients; client; client = client->next) {
		struct drain **link = find_drain(client, machine);

		if (!*link || port_count_reached(ingress, machine))
			continue;
		forget_drain(client, link);
		answer(client, json_pack("{s:s, s:s}", "event", "drained", "machine", machine));
		loop_set_events(client->source, EPOLLOUT); /* sent from the loop: this may be in the middle of anything */
	}
}

void control_wanted(struct client *client, const char *machine)
{
	answer(client, json_pack("{s:s, s:s}", "event", "wanted", "machine", machine));
	loop_set_events(client->source, EPOLLOUT); /* as above */
}

/* An op that has nothing but its name. */
static bool is_plain(struct client *client, const json_t *object)
{
	struct plain_request request;
	struct error err;

	if (json_read(&plain_table, object, &request, &err) < 0) {
		answer_error(client, &err);
		return false;
	}
	json_done(&plain_table, &request);
	return true;
}

static void do_list(struct client *client, const json_t *object)
{
	if (is_plain(client, object))
		answer(client, json_pack("{s:b, s:o}", "ok", 1, "ports", port_list(client->ingress)));
}

static void do_shutdown(struct client *client, const json_t *object)
{
	if (!is_plain(client, object))
		return;
	answer_ok(client);
	client->shut_down(client->shut_down_ctx);
}

static const struct {
	const char *name;
	void (*run)(struct client *client, const json_t *object);
} ops[] = {
	{"publish", do_publish},
	{"unpublish", do_unpublish},
	{"gate", do_gate},
	{"drain", do_drain},
	{"sleep", do_sleep},
	{"list", do_list},
	{"shutdown", do_shutdown},
};

static void run(struct client *client, const char *line, size_t len)
{
	struct error err;
	json_t *object = json_parse(line, len, &err);
	const char *op = json_string_value(json_object_get(object, "op"));
	size_t i = 0;

	while (op && i < ARRAY_SIZE(ops) && strcmp(op, ops[i].name) != 0)
		i++;
	if (!object) {
		err.errnum = EINVAL;
		answer_error(client, &err);
	} else if (!op || i == ARRAY_SIZE(ops)) {
		error_set_field(&err, EINVAL, "op", "must be one of publish, unpublish, gate, drain, sleep, list, shutdown");
		answer_error(client, &err);
	} else {
		ops[i].run(client, object);
	}
	json_decref(object);
}

/* Runs the requests that are there, until one has to wait. */
static void run_lines(struct client *client)
{
	char *newline;

	while (!client->waiting && client->out.len == 0 && client->in.len > 0 &&
		(newline = memchr(client->in.data, '\n', client->in.len))) {
		size_t len = (size_t)(newline - client->in.data);
		char *line = strndup(client->in.data, len);

		buf_consume(&client->in, len + 1);
		if (line)
			run(client, line, len);
		else
			client->at_end = true;
		free(line);
	}
}

/* Does what can be done now and sets what to wait for. */
static void serve(struct client *client)
{
	bool alive = true;
	size_t before;

	/* Answers first: behind one that was waited for, requests may be here already, of which no event tells any more. */
	do {
		alive = buf_send(&client->out, client->fd) == 0;
		before = client->in.len;
		if (alive)
			run_lines(client);
	} while (alive && client->in.len < before);
	if (!alive || (client->at_end && !client->waiting && client->out.len == 0)) {
		client_end(client);
		return;
	}
	if (client->out.len > 0)
		loop_set_events(client->source, EPOLLOUT);
	else
		loop_set_events(client->source, client->waiting || client->at_end ? 0 : EPOLLIN);
}

static void on_client(void *ctx, uint32_t events)
{
	struct client *client = ctx;
	ssize_t n;

	if (!(events & EPOLLIN)) {
		if (events & (EPOLLHUP | EPOLLERR))
			client_end(client);
		else
			serve(client);
		return;
	}
	n = buf_read_fd(&client->in, client->fd, 16 * 1024);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n == -EMSGSIZE) {
		struct error err;

		error_set(&err, EINVAL, "a request has at most %d bytes", INGRESS_REQUEST_BYTES_MAX);
		answer_error(client, &err);
		buf_consume(&client->in, client->in.len);
		client->at_end = true;
	} else if (n <= 0) {
		client->at_end = true;
	}
	serve(client);
}

bool control_is_behind(const struct ingress *ingress)
{
	char first;

	for (const struct client *client = ingress->clients; client; client = client->next)
		if (!client->waiting && !client->at_end && !client->out.len && recv(client->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
			return true;
	return false;
}

static void client_begin(struct ingress *ingress, int fd, loop_fn shut_down, void *ctx)
{
	struct client *client = ingress->n_clients < INGRESS_CLIENTS_MAX ? calloc(1, sizeof *client) : NULL;

	if (!client) {
		log_warn("a control connection more than possible was closed");
		close_fd(fd);
		return;
	}
	client->ingress = ingress;
	client->fd = fd;
	client->shut_down = shut_down;
	client->shut_down_ctx = ctx;
	buf_init(&client->in, INGRESS_REQUEST_BYTES_MAX);
	buf_init(&client->out, INGRESS_ANSWER_BYTES_MAX);
	client->next = ingress->clients;
	client->link = &ingress->clients;
	if (client->next)
		client->next->link = &client->next;
	ingress->clients = client;
	ingress->n_clients++;
	client->source = loop_add_fd(ingress->loop, fd, EPOLLIN, on_client, client);
	if (!client->source)
		client_end(client);
	ingress_check_idle(ingress);
}

void control_accept(struct ingress *ingress, int listen_fd, loop_fn shut_down, void *ctx)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0)
		client_begin(ingress, fd, shut_down, ctx);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		log_error("control socket: %s", strerror(errno));
}

void control_end(struct ingress *ingress)
{
	while (ingress->clients)
		client_end(ingress->clients);
}
