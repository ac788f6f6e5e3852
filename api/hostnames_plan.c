/* What a round compares, and what has to be told. See hostnames_plan.h. */
#include "api/hostnames_plan.h"

#include "api/haproxy.h"
#include "api/health.h"
#include "api/idle.h"
#include "api/machine.h"
#include "api/tls.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SIZE 24 /* of a server: machine's id, "-", port */

enum service { SERVICE_NO, SERVICE_WAKES /* who comes would wake it */, SERVICE_AS_IT_IS, SERVICE_YES };

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

struct hostnames_plan {
	const struct hulld *hulld;
	const struct haproxy *haproxy;
	struct tls *tls; /* NULL without --https */
	struct wanted *wanted; /* by host name */
	size_t n_wanted;
	struct slot slots[HAPROXY_SLOTS];
	uint64_t used_ns[HAPROXY_SLOTS]; /* when each was last seen with a name or a server */
	struct server *servers; /* by slot and name */
	size_t n_servers;
	hostnames_say_fn say; /* while it composes */
	void *say_ctx;
};

struct hostnames_plan *hostnames_plan_new(const struct hulld *hulld, const struct haproxy *haproxy, struct tls *tls)
{
	struct hostnames_plan *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	p->hulld = hulld;
	p->haproxy = haproxy;
	p->tls = tls;
	return p;
}

void hostnames_plan_free(struct hostnames_plan *p)
{
	if (!p)
		return;
	hostnames_plan_forget(p);
	free(p->wanted);
	free(p);
}

/* What is to be. */

static enum service service_of(const struct machine *m)
{
	if (m->record.asleep && !m->deleting)
		return idle_backs_off(m) ? SERVICE_NO : SERVICE_WAKES;
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

static void add_wanted(struct hostnames_plan *p, const struct machine *m, const struct port_spec *port)
{
	struct wanted *wanted = &p->wanted[p->n_wanted++];

	*wanted = (struct wanted){.hostname = port->hostname, .project = m->record.project, .service = service_of(m), .slot = HAPROXY_SLOTS};
	snprintf(wanted->name, sizeof(wanted->name), "%s-%d", m->record.id, (int)port->guest);
}

/* Those that sleep serve a name while nobody does who is awake. */
static void decide_who_is_woken(struct wanted *wanted, size_t n)
{
	size_t next;

	for (size_t i = 0; i < n; i = next) {
		bool awake = false;

		for (next = i; next < n && strcmp(wanted[next].hostname, wanted[i].hostname) == 0; next++)
			awake |= wanted[next].service == SERVICE_YES;
		for (size_t j = i; j < next; j++)
			if (wanted[j].service == SERVICE_WAKES)
				wanted[j].service = awake ? SERVICE_NO : SERVICE_YES;
	}
}

void hostnames_plan_collect(struct hostnames_plan *p)
{
	size_t n = 0;

	for (const struct machine *m = p->hulld->machines; m; m = m->next)
		n += m->spec.ports.len;
	free(p->wanted);
	p->n_wanted = 0;
	p->wanted = calloc(n ? n : 1, sizeof(*p->wanted));
	if (!p->wanted)
		abort();
	for (const struct machine *m = p->hulld->machines; m; m = m->next)
		for (size_t i = 0; m->record.state != MACHINE_CREATING && i < m->spec.ports.len; i++)
			if (((const struct port_spec *)m->spec.ports.items)[i].hostname)
				add_wanted(p, m, &((const struct port_spec *)m->spec.ports.items)[i]);
	qsort(p->wanted, p->n_wanted, sizeof(*p->wanted), compare_wanted);
	decide_who_is_woken(p->wanted, p->n_wanted);
}

static bool is_first_of_name(const struct hostnames_plan *p, size_t i)
{
	return i == 0 || strcmp(p->wanted[i - 1].hostname, p->wanted[i].hostname) != 0;
}

bool hostnames_plan_certificates(struct hostnames_plan *p)
{
	if (!p->tls)
		return true;
	tls_begin(p->tls);
	for (size_t i = 0; i < p->n_wanted; i++)
		if (is_first_of_name(p, i))
			tls_want(p->tls, p->wanted[i].hostname, p->wanted[i].project);
	return !tls_prepare(p->tls);
}

/* What HAProxy has. */

void hostnames_plan_forget(struct hostnames_plan *p)
{
	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		free(p->slots[i].hostname);
	memset(p->slots, 0, sizeof(p->slots));
	free(p->servers);
	p->servers = NULL;
	p->n_servers = 0;
}

static int compare_servers(const void *a, const void *b)
{
	const struct server *first = a, *second = b;

	return first->slot != second->slot ? (first->slot < second->slot ? -1 : 1) : strcmp(first->name, second->name);
}

/* "0x7fd39803b0a0 web.localhost b7" of `show map`, or "10 b7 1 m…-80 - 2 0 …" of `show servers state`: backend's number and name,
 * server's number and name, address, operational and administrative state (of the latter 0: ready). */
static void read_line(struct hostnames_plan *p, const char *line)
{
	struct server server = {0};
	char hostname[HOSTNAME_MAX_BYTES + 1];
	unsigned admin = 0;

	if (sscanf(line, "0x%*x %253s b%u", hostname, &server.slot) == 2 && server.slot < HAPROXY_SLOTS) {
		free(p->slots[server.slot].hostname);
		p->slots[server.slot].hostname = strdup(hostname);
		if (!p->slots[server.slot].hostname)
			abort();
	} else if (sscanf(line, "%*u b%u %*u %23s %*s %*u %u", &server.slot, server.name, &admin) == 3 && server.slot < HAPROXY_SLOTS) {
		server.ready = admin == 0;
		p->slots[server.slot].n_servers++;
		p->servers[p->n_servers++] = server;
	}
}

void hostnames_plan_see(struct hostnames_plan *p, const char *text)
{
	size_t n = 1;

	hostnames_plan_forget(p);
	for (const char *c = text; *c; c++)
		n += *c == '\n';
	p->servers = calloc(n, sizeof(*p->servers));
	if (!p->servers)
		abort();
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!p->tls || !tls_read_line(p->tls, line))
			read_line(p, line);
	}
	qsort(p->servers, p->n_servers, sizeof(*p->servers), compare_servers);
	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (p->slots[i].hostname || p->slots[i].n_servers)
			p->used_ns[i] = monotonic_ns();
}

static struct server *find_server(const struct hostnames_plan *p, unsigned slot, const char *name)
{
	struct server key = {.slot = slot};

	snprintf(key.name, sizeof(key.name), "%s", name);
	return bsearch(&key, p->servers, p->n_servers, sizeof(key), compare_servers);
}

/* Slots. Each name keeps its own, a new one takes one that has neither name nor servers. */

static int compare_slots(const void *a, const void *b)
{
	return strcmp((*(struct slot *const *)a)->hostname, (*(struct slot *const *)b)->hostname);
}

static size_t sort_slots(struct hostnames_plan *p, struct slot *ret[HAPROXY_SLOTS])
{
	size_t n = 0;

	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (p->slots[i].hostname)
			ret[n++] = &p->slots[i];
	qsort(ret, n, sizeof(*ret), compare_slots);
	return n;
}

/* That which has been free for longest: what was asked of the name of before may still be tried again, for some seconds, in its
 * backend, and is not for another's machines. */
static unsigned find_free_slot(const struct hostnames_plan *p)
{
	unsigned found = HAPROXY_SLOTS;

	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (!p->slots[i].hostname && !p->slots[i].wanted && !p->slots[i].n_servers &&
			(found == HAPROXY_SLOTS || p->used_ns[i] < p->used_ns[found]))
			found = i;
	return found;
}

/* Both are in order, and so walked through once. A name without a slot (HAPROXY_SLOTS) waits for the next round. */
bool hostnames_plan_assign(struct hostnames_plan *p)
{
	struct slot *known[HAPROXY_SLOTS];
	size_t n = sort_slots(p, known), next = 0;
	bool all = true;

	for (size_t i = 0; i < p->n_wanted; i++) {
		struct wanted *wanted = &p->wanted[i];

		if (i && strcmp(wanted[-1].hostname, wanted->hostname) == 0) {
			wanted->slot = wanted[-1].slot;
			continue;
		}
		while (next < n && strcmp(known[next]->hostname, wanted->hostname) < 0)
			next++;
		if (next < n && strcmp(known[next]->hostname, wanted->hostname) == 0)
			wanted->slot = (unsigned)(known[next] - p->slots);
		else
			wanted->slot = find_free_slot(p);
		if (wanted->slot < HAPROXY_SLOTS)
			p->slots[wanted->slot].wanted = true;
		else
			all = false;
	}
	return all;
}

/* The difference. */

static void command(struct hostnames_plan *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void command(struct hostnames_plan *p, const char *fmt, ...)
{
	char *text;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		abort();
	va_end(args);
	p->say(p->say_ctx, text);
	free(text);
}

static void stop_serving(struct hostnames_plan *p, struct server *server)
{
	if (server->ready)
		command(p, "disable server b%u/%s", server->slot, server->name);
	server->ready = false;
}

static void add_server(struct hostnames_plan *p, const struct wanted *wanted)
{
	struct buf line;

	buf_init(&line, 512);
	if (haproxy_print_server(p->haproxy, &line, wanted->name) < 0)
		abort();
	command(p, "add server b%u/%s", wanted->slot, line.data);
	buf_done(&line);
	command(p, "enable server b%u/%s", wanted->slot, wanted->name); /* which is not served at first */
}

static void serve(struct hostnames_plan *p, const struct wanted *wanted)
{
	struct server *server = find_server(p, wanted->slot, wanted->name);

	if (server)
		server->wanted = true;
	if (wanted->service == SERVICE_YES && !server)
		add_server(p, wanted);
	else if (wanted->service == SERVICE_YES && !server->ready)
		command(p, "enable server b%u/%s", wanted->slot, wanted->name);
	else if (wanted->service == SERVICE_NO && server)
		stop_serving(p, server);
}

/* What is to serve less comes first; a name is told when who serves it has been. */
void hostnames_plan_compose(struct hostnames_plan *p, hostnames_say_fn say, void *ctx)
{
	p->say = say;
	p->say_ctx = ctx;
	for (size_t i = 0; i < p->n_wanted; i++)
		if (p->wanted[i].slot < HAPROXY_SLOTS && p->wanted[i].service == SERVICE_NO)
			serve(p, &p->wanted[i]);
	for (size_t i = 0; i < p->n_wanted; i++)
		if (p->wanted[i].slot < HAPROXY_SLOTS && p->wanted[i].service != SERVICE_NO)
			serve(p, &p->wanted[i]);
	if (p->tls)
		tls_compose(p->tls, say, ctx);
	for (size_t i = 0; i < p->n_wanted; i++)
		if (p->wanted[i].slot < HAPROXY_SLOTS && !p->slots[p->wanted[i].slot].hostname &&
			is_first_of_name(p, i))
			command(p, "add map %s %s b%u", haproxy_map_path(p->haproxy), p->wanted[i].hostname, p->wanted[i].slot);
	for (unsigned i = 0; i < HAPROXY_SLOTS; i++)
		if (p->slots[i].hostname && !p->slots[i].wanted)
			command(p, "del map %s %s", haproxy_map_path(p->haproxy), p->slots[i].hostname);
	for (size_t i = 0; i < p->n_servers; i++)
		if (!p->servers[i].wanted) {
			stop_serving(p, &p->servers[i]);
			command(p, "del server b%u/%s", p->servers[i].slot, p->servers[i].name);
		}
}

/* For a process that begins with it. */

void hostnames_plan_write_map(const struct hostnames_plan *p, struct buf *map)
{
	for (size_t i = 0; i < p->n_wanted; i++)
		if (p->wanted[i].slot < HAPROXY_SLOTS && is_first_of_name(p, i))
			buf_printf(map, "%s b%u\n", p->wanted[i].hostname, p->wanted[i].slot);
}

void hostnames_plan_write_servers(const struct hostnames_plan *p, unsigned slot, struct buf *config)
{
	for (size_t i = 0; i < p->n_wanted; i++) {
		const struct wanted *wanted = &p->wanted[i];

		if (wanted->slot != slot || wanted->service != SERVICE_YES)
			continue;
		buf_printf(config, "	server ");
		haproxy_print_server(p->haproxy, config, wanted->name);
		buf_printf(config, "\n");
	}
}
