#include "api/hostnames.h"

#include "api/haproxy.h"
#include "api/health.h"
#include "api/ingress_client.h"
#include "api/machine.h"
#include "api/tls.h"
#include "api/x509.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ROUND_NS  100000000ull	/* from the end of one to the next */
#define RETRY_NS  1000000000ull /* after one that failed, or could not remove all there was to be removed */
#define QUIET_NS  5000000000ull /* HAProxy may take so long until it answers */
#define RENEW_NS  (6 * 3600000000000ull) /* certificates are looked at */
#define NAME_SIZE 24		/* of a server: machine's id, "-", port */

enum service { SERVICE_NO, SERVICE_AS_IT_IS, SERVICE_YES };

/* What is to be: one port of a machine's. */
struct wanted {
	const char *hostname, *project; /* the machine's */
	char name[NAME_SIZE];
	enum service service;
	unsigned slot; /* of the hostname, once it is known */
};

/* What HAProxy has. */
struct server {
	unsigned slot;
	char name[NAME_SIZE];
	bool ready, wanted;
};

struct slot {
	char *hostname; /* owned; NULL: it is in no name's way */
	bool wanted;
	unsigned n_servers;
};

struct hostnames {
	struct hulld *hulld;
	struct haproxy *haproxy;
	struct tls *tls; /* NULL without --https */
	struct loop_source *timer, *renew;
	bool armed;
	uint64_t began_ns;
	/* A round. */
	struct haproxy_call *call;
	bool dirty; /* something has changed since it began */
	bool again; /* something is left for the next one */
	struct wanted *wanted; /* by host name */
	size_t n_wanted;
	struct slot slots[HAPROXY_SLOTS];
	uint64_t used_ns[HAPROXY_SLOTS]; /* when each was last seen with a name or a server */
	struct server *servers; /* by slot and name */
	size_t n_servers;
	char **commands; /* to be sent, owned, from `next` on */
	size_t n_commands, next;
};

void hostnames_socket_path(const struct machine *m, int64_t guest, char *ret)
{
	snprintf(ret, PORT_PLACE_MAX, "%s/http/machines/%s-%d", m->hulld->options.run, m->record.id, (int)guest);
}

const struct haproxy *hostnames_haproxy(const struct hostnames *hostnames)
{
	return haproxy_is_wanted(hostnames->haproxy) ? hostnames->haproxy : NULL;
}

/* What is to be. */

static enum service service_of(const struct machine *m)
{
	if (m->record.state != MACHINE_RUNNING || m->frozen || m->deleting)
		return SERVICE_NO;
	if (!m->spec.health || health_state(m) == HEALTH_HEALTHY)
		return SERVICE_YES;
	return health_state(m) == HEALTH_STARTING ? SERVICE_AS_IT_IS : SERVICE_NO;
}

static int compare_wanted(const void *a, const void *b)
{
	return strcmp(((const struct wanted *)a)->hostname, ((const struct wanted *)b)->hostname);
}

static void add_wanted(struct hostnames *h, const struct machine *m, const struct port_spec *port)
{
	struct wanted *wanted = &h->wanted[h->n_wanted++];

	*wanted = (struct wanted){.hostname = port->hostname, .project = m->record.project, .service = service_of(m), .slot = HAPROXY_SLOTS};
	snprintf(wanted->name, sizeof(wanted->name), "%s-%d", m->record.id, (int)port->guest);
}

/* Borrows from the machines: for as long as nothing else runs. */
static void collect_wanted(struct hostnames *h)
{
	size_t n = 0;

	for (const struct machine *m = h->hulld->machines; m; m = m->next)
		n += m->spec.ports.len;
	free(h->wanted);
	h->n_wanted = 0;
	h->wanted = calloc(n ? n : 1, sizeof(*h->wanted));
	if (!h->wanted)
		abort();
	for (const struct machine *m = h->hulld->machines; m; m = m->next)
		for (size_t i = 0; m->record.state != MACHINE_CREATING && i < m->spec.ports.len; i++)
			if (((const struct port_spec *)m->spec.ports.items)[i].hostname)
				add_wanted(h, m, &((const struct port_spec *)m->spec.ports.items)[i]);
	qsort(h->wanted, h->n_wanted, sizeof(*h->wanted), compare_wanted);
}

static bool is_first_of_name(const struct hostnames *h, size_t i)
{
	return i == 0 || strcmp(h->wanted[i - 1].hostname, h->wanted[i].hostname) != 0;
}

/* Behind collect_wanted(). */
static void prepare_certificates(struct hostnames *h)
{
	if (!h->tls)
		return;
	tls_begin(h->tls);
	for (size_t i = 0; i < h->n_wanted; i++)
		if (is_first_of_name(h, i))
			tls_want(h->tls, h->wanted[i].hostname, h->wanted[i].project);
	if (tls_prepare(h->tls))
		h->dirty = true; /* the others in the next round */
}

/* What HAProxy has. */

static void forget_seen(struct hostnames *h)
{
	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		free(h->slots[i].hostname);
	memset(h->slots, 0, sizeof(h->slots));
	free(h->servers);
	h->servers = NULL;
	h->n_servers = 0;
}

static int compare_servers(const void *a, const void *b)
{
	const struct server *first = a, *second = b;

	return first->slot != second->slot ? (first->slot < second->slot ? -1 : 1) : strcmp(first->name, second->name);
}

/* "0x7fd39803b0a0 web.localhost b7" of `show map`, or "10 b7 1 m…-80 - 2 0 …" of `show servers state`: backend's number and name,
 * server's number and name, address, operational and administrative state (of the latter 0: ready). */
static void read_line(struct hostnames *h, const char *line)
{
	struct server server = {0};
	char hostname[HOSTNAME_MAX_BYTES + 1];
	unsigned admin = 0;

	if (sscanf(line, "0x%*x %253s b%u", hostname, &server.slot) == 2 && server.slot < HAPROXY_SLOTS) {
		free(h->slots[server.slot].hostname);
		h->slots[server.slot].hostname = strdup(hostname);
		if (!h->slots[server.slot].hostname)
			abort();
	} else if (sscanf(line, "%*u b%u %*u %23s %*s %*u %u", &server.slot, server.name, &admin) == 3 && server.slot < HAPROXY_SLOTS) {
		server.ready = admin == 0;
		h->slots[server.slot].n_servers++;
		h->servers[h->n_servers++] = server;
	}
}

static void read_seen(struct hostnames *h, const char *text)
{
	size_t n = 1;

	forget_seen(h);
	for (const char *c = text; *c; c++)
		n += *c == '\n';
	h->servers = calloc(n, sizeof(*h->servers));
	if (!h->servers)
		abort();
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!h->tls || !tls_read_line(h->tls, line))
			read_line(h, line);
	}
	qsort(h->servers, h->n_servers, sizeof(*h->servers), compare_servers);
	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (h->slots[i].hostname || h->slots[i].n_servers)
			h->used_ns[i] = monotonic_ns();
}

static struct server *find_server(const struct hostnames *h, unsigned slot, const char *name)
{
	struct server key = {.slot = slot};

	snprintf(key.name, sizeof(key.name), "%s", name);
	return bsearch(&key, h->servers, h->n_servers, sizeof(key), compare_servers);
}

/* Slots. Each name keeps its own, a new one takes one that has neither name nor servers. */

static int compare_slots(const void *a, const void *b)
{
	return strcmp((*(struct slot *const *)a)->hostname, (*(struct slot *const *)b)->hostname);
}

static size_t sort_slots(struct hostnames *h, struct slot *ret[HAPROXY_SLOTS])
{
	size_t n = 0;

	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (h->slots[i].hostname)
			ret[n++] = &h->slots[i];
	qsort(ret, n, sizeof(*ret), compare_slots);
	return n;
}

/* That which has been free for longest: what was asked of the name of before may still be tried again, for some seconds, in its backend, and is not for
 * another's machines. */
static unsigned find_free_slot(const struct hostnames *h)
{
	unsigned found = HAPROXY_SLOTS;

	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (!h->slots[i].hostname && !h->slots[i].wanted && !h->slots[i].n_servers && (found == HAPROXY_SLOTS || h->used_ns[i] < h->used_ns[found]))
			found = i;
	return found;
}

/* Both are in order, and so walked through once. A name without a slot (HAPROXY_SLOTS) waits for the next round: those of before are in its way. */
static void assign_slots(struct hostnames *h)
{
	struct slot *known[HAPROXY_SLOTS];
	size_t n = sort_slots(h, known), next = 0;

	for (size_t i = 0; i < h->n_wanted; i++) {
		struct wanted *wanted = &h->wanted[i];

		if (i && strcmp(wanted[-1].hostname, wanted->hostname) == 0) {
			wanted->slot = wanted[-1].slot;
			continue;
		}
		while (next < n && strcmp(known[next]->hostname, wanted->hostname) < 0)
			next++;
		if (next < n && strcmp(known[next]->hostname, wanted->hostname) == 0)
			wanted->slot = (unsigned)(known[next] - h->slots);
		else
			wanted->slot = find_free_slot(h);
		if (wanted->slot < HAPROXY_SLOTS)
			h->slots[wanted->slot].wanted = true;
		else
			h->again = true;
	}
}

/* The difference. */

static void command(struct hostnames *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void command(struct hostnames *h, const char *fmt, ...)
{
	va_list args;

	h->commands = realloc(h->commands, (h->n_commands + 1) * sizeof(*h->commands));
	if (!h->commands)
		abort();
	va_start(args, fmt);
	if (vasprintf(&h->commands[h->n_commands++], fmt, args) < 0)
		abort();
	va_end(args);
}

static void stop_serving(struct hostnames *h, struct server *server)
{
	if (server->ready)
		command(h, "disable server b%u/%s", server->slot, server->name);
	server->ready = false;
}

static void add_server(struct hostnames *h, const struct wanted *wanted)
{
	struct buf line;

	buf_init(&line, 512);
	if (haproxy_print_server(h->haproxy, &line, wanted->name) < 0)
		abort();
	command(h, "add server b%u/%s", wanted->slot, line.data);
	buf_done(&line);
	command(h, "enable server b%u/%s", wanted->slot, wanted->name); /* which is not served at first */
}

static void serve(struct hostnames *h, const struct wanted *wanted)
{
	struct server *server = find_server(h, wanted->slot, wanted->name);

	if (server)
		server->wanted = true;
	if (wanted->service == SERVICE_YES && !server)
		add_server(h, wanted);
	else if (wanted->service == SERVICE_YES && !server->ready)
		command(h, "enable server b%u/%s", wanted->slot, wanted->name);
	else if (wanted->service == SERVICE_NO && server)
		stop_serving(h, server);
}

static void say(void *ctx, const char *text)
{
	command(ctx, "%s", text);
}

/* What is to serve less comes first; a name is told when who serves it has been. */
static void compose_commands(struct hostnames *h)
{
	for (size_t i = 0; i < h->n_wanted; i++)
		if (h->wanted[i].slot < HAPROXY_SLOTS && h->wanted[i].service == SERVICE_NO)
			serve(h, &h->wanted[i]);
	for (size_t i = 0; i < h->n_wanted; i++)
		if (h->wanted[i].slot < HAPROXY_SLOTS && h->wanted[i].service != SERVICE_NO)
			serve(h, &h->wanted[i]);
	if (h->tls)
		tls_compose(h->tls, say, h);
	for (size_t i = 0; i < h->n_wanted; i++)
		if (h->wanted[i].slot < HAPROXY_SLOTS && !h->slots[h->wanted[i].slot].hostname &&
			is_first_of_name(h, i))
			command(h, "add map %s %s b%u", haproxy_map_path(h->haproxy), h->wanted[i].hostname, h->wanted[i].slot);
	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (h->slots[i].hostname && !h->slots[i].wanted)
			command(h, "del map %s %s", haproxy_map_path(h->haproxy), h->slots[i].hostname);
	for (size_t i = 0; i < h->n_servers; i++)
		if (!h->servers[i].wanted) {
			stop_serving(h, &h->servers[i]);
			command(h, "del server b%u/%s", h->servers[i].slot, h->servers[i].name);
		}
}

/* A round. */

static void arm(struct hostnames *h, uint64_t delay_ns)
{
	loop_timer_arm(h->timer, delay_ns);
	h->armed = true;
}

static void end_round(struct hostnames *h)
{
	for (size_t i = 0; i < h->n_commands; i++)
		x509_wipe(h->commands[i]); /* which may have a key */
	free(h->commands);
	h->commands = NULL;
	h->n_commands = h->next = 0;
	h->call = NULL;
	forget_seen(h);
	if (h->dirty)
		arm(h, ROUND_NS);
	else if (h->again)
		arm(h, RETRY_NS);
}

static void fail_round(struct hostnames *h, const struct error *err)
{
	if (monotonic_ns() - h->began_ns >= QUIET_NS)
		log_error_object(err, "host names");
	h->again = true;
	h->dirty = false;
	end_round(h);
	if (monotonic_ns() - h->began_ns < QUIET_NS)
		arm(h, ROUND_NS);
}

/* What an answer is when all went well; what else there is to it is left to the next round. */
static bool is_done(const char *said, const char *answer)
{
	static const struct {
		const char *command, *answer, *or;
	} known[] = {
		{"del server ", "Server deleted.", NULL},
		{"add server ", "New server registered.", NULL},
		{"new ssl cert ", "New empty certificate store", "already exists"},
		{"set ssl cert ", "Transaction created", NULL},
		{"commit ssl cert ", "Success!", NULL},
		{"abort ssl cert ", "Transaction aborted", NULL},
		{"add ssl crt-list ", "Success!", NULL},
		{"del ssl crt-list ", "deleted", NULL},
		{"del ssl cert ", "deleted", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strncmp(said, known[i].command, strlen(known[i].command)) == 0)
			return strstr(answer, known[i].answer) || (known[i].or && strstr(answer, known[i].or));
	return answer[strspn(answer, "\n")] == '\0';
}

/* A hulld that was killed has left a certificate half told, which what we say is taken for: nothing more of this round. */
static void abort_transaction(struct hostnames *h, const char *answer)
{
	static const char about[] = "Transaction updated for certificate ";
	const char *path = strstr(answer, about);

	if (!path)
		return;
	path += sizeof(about) - 1;
	while (h->n_commands > h->next + 1)
		x509_wipe(h->commands[--h->n_commands]);
	command(h, "abort ssl cert %.*s", (int)strcspn(path, "!\n"), path);
}

static void tell_next(struct hostnames *h);

static void on_told(void *ctx, const char *answer, const struct error *err)
{
	struct hostnames *h = ctx;
	const char *said = h->commands[h->next];

	h->call = NULL;
	if (!answer) {
		fail_round(h, err);
		return;
	}
	if (is_done(said, answer)) {
		if (h->tls)
			tls_told(h->tls, said);
	} else {
		h->again = true;
		if (strncmp(said, "del server", 10) != 0) /* one that is still busy */
			log_warn("haproxy: %.*s: %.*s", (int)strcspn(said, "\n"), said, (int)strcspn(answer, "\n"), answer);
		abort_transaction(h, answer);
	}
	h->next++;
	tell_next(h);
}

static void tell_next(struct hostnames *h)
{
	if (h->next == h->n_commands)
		end_round(h);
	else
		h->call = haproxy_call(h->hulld->loop, haproxy_socket_path(h->haproxy), h->commands[h->next], on_told, h);
}

static void on_seen(void *ctx, const char *answer, const struct error *err)
{
	struct hostnames *h = ctx;

	h->call = NULL;
	if (!answer) {
		fail_round(h, err);
		return;
	}
	h->dirty = false; /* what changed until now is looked at */
	collect_wanted(h);
	prepare_certificates(h);
	read_seen(h, answer);
	assign_slots(h);
	compose_commands(h);
	tell_next(h);
}

static void on_timer(void *ctx)
{
	struct hostnames *h = ctx;
	char question[512];

	h->armed = false;
	if (!haproxy_is_running(h->haproxy))
		return; /* it begins with what is then, and says so */
	h->dirty = h->again = false;
	snprintf(question, sizeof(question), "show map %s; show servers state%s%s", haproxy_map_path(h->haproxy),
		h->tls ? "; show ssl crt-list -n " : "", h->tls ? tls_list_path(h->tls) : "");
	h->call = haproxy_call(h->hulld->loop, haproxy_socket_path(h->haproxy), question, on_seen, h);
}

void hostnames_changed(struct hulld *hulld)
{
	struct hostnames *h = hulld->hostnames;

	if (!h || !haproxy_is_running(h->haproxy))
		return;
	if (h->call)
		h->dirty = true;
	else if (!h->armed)
		arm(h, 0);
}

/* HAProxy. */

static void write_servers(void *ctx, unsigned slot, struct buf *config)
{
	struct hostnames *h = ctx;

	for (size_t i = 0; i < h->n_wanted; i++) {
		const struct wanted *wanted = &h->wanted[i];

		if (wanted->slot != slot || wanted->service != SERVICE_YES)
			continue;
		buf_printf(config, "	server ");
		haproxy_print_server(h->haproxy, config, wanted->name);
		buf_printf(config, "\n");
	}
}

/* Comes first: a process begins with nothing else. */
static void write_map(void *ctx, struct buf *map)
{
	struct hostnames *h = ctx;

	if (h->call)
		haproxy_call_cancel(h->call);
	h->dirty = false;
	end_round(h);
	collect_wanted(h);
	assign_slots(h);
	for (size_t i = 0; i < h->n_wanted; i++)
		if (h->wanted[i].slot < HAPROXY_SLOTS && is_first_of_name(h, i))
			buf_printf(map, "%s b%u\n", h->wanted[i].hostname, h->wanted[i].slot);
}

/* Behind write_map(). */
static void write_certificates(void *ctx, struct buf *list)
{
	struct hostnames *h = ctx;

	prepare_certificates(h);
	tls_write(h->tls, list);
}

static void on_renew(void *ctx)
{
	struct hostnames *h = ctx;

	hostnames_changed(h->hulld);
	loop_timer_arm(h->renew, RENEW_NS);
}

static void on_started(void *ctx)
{
	struct hostnames *h = ctx;

	h->began_ns = monotonic_ns();
	hostnames_changed(h->hulld);
}

struct hostnames *hostnames_new(struct hulld *hulld, struct error *err)
{
	struct hostnames *h = calloc(1, sizeof(*h));
	struct haproxy_state state = {.write_servers = write_servers, .write_map = write_map,
		.write_certificates = write_certificates, .started = on_started, .ctx = h};

	if (!h)
		abort();
	h->hulld = hulld;
	h->timer = loop_add_timer(hulld->loop, on_timer, h);
	h->renew = loop_add_timer(hulld->loop, on_renew, h);
	if (!h->timer || !h->renew)
		abort();
	h->haproxy = haproxy_new(hulld, &state, err);
	if (h->haproxy && hulld->options.https)
		h->tls = tls_new(hulld, haproxy_folder(h->haproxy), err);
	if (h->haproxy && !hulld->options.https == !h->tls)
		return h;
	hostnames_free(h);
	return NULL;
}

void hostnames_free(struct hostnames *h)
{
	if (!h)
		return;
	haproxy_call_cancel(h->call);
	end_round(h);
	free(h->wanted);
	loop_remove(h->timer);
	loop_remove(h->renew);
	tls_free(h->tls);
	haproxy_free(h->haproxy);
	free(h);
}

void hostnames_begin(struct hostnames *h)
{
	haproxy_begin(h->haproxy);
	if (h->tls)
		loop_timer_arm(h->renew, RENEW_NS);
}

void hostnames_end(struct hostnames *h)
{
	haproxy_end(h->haproxy);
}

/* The host's own certificate authority. */

static const struct json_field ca_fields[] = {
	{"certificate", JSON_FIELD_STRING, offsetof(struct ca_view, certificate), .read_only = true, .help = "PEM."},
	{"expires_at", JSON_FIELD_STRING, offsetof(struct ca_view, expires_at), .read_only = true},
};
const struct json_table ca_table = JSON_TABLE("CertificateAuthority", struct ca_view, ca_fields);

void hostnames_http_ca(struct request *req, void *ctx)
{
	const struct tls *tls = ((struct hulld *)ctx)->hostnames->tls;
	cleanup_free char *expires_at = NULL;
	int64_t expires_ms;
	struct ca_view view;

	if (!tls) {
		struct problem problem;

		problem_set(&problem, PROBLEM_NOT_FOUND, NULL, "this host serves nothing over HTTPS");
		problem_set_hint(&problem, "start hulld with --https");
		request_refuse(req, &problem);
		return;
	}
	view.certificate = (char *)tls_authority(tls, &expires_ms);
	view.expires_at = expires_at = format_time(expires_ms);
	request_reply(req, 200, json_dump(&ca_table, &view));
}

void hostnames_forget_certificate(struct hulld *hulld, const char *hostname)
{
	if (!hulld->hostnames->tls)
		return;
	tls_forget(hulld->hostnames->tls, hostname);
	hostnames_changed(hulld);
}
