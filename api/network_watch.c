#include "api/network_watch.h"

#include "api/events.h"
#include "api/network/words.h"
#include "api/networks.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TOLD_AT_ONCE 16 /* each is an event, and so a commit */
#define LOST "what held its network has ended: it has no name server and no way out until it is started again"

struct network_watch {
	struct hulld *hulld;
	struct network_watch *next;
	char id[NETWORK_ID_BYTES + 1], project[NAME_MAX_BYTES + 1], name[NAME_MAX_BYTES + 1]; /* which a network keeps */
	struct subnet subnet;
	int sock; /* -1: who held it has ended */
	struct loop_source *source, *more; /* the socket; a timer: there is more to be told */
	bool heard; /* a report has come by that socket, */
	bool ever;  /* or by any: then who holds it knows what is asked */
	bool known; /* `report` is how it is; who has ended has no ports */
	struct network_report report;
	struct network_report coming;
	size_t come; /* bytes of it */
};

static struct network_watch *find(const struct hulld *hulld, const char *project, const char *name)
{
	struct network_watch *watch = hulld->network_watches;

	while (watch && (strcmp(watch->project, project) != 0 || strcmp(watch->name, name) != 0))
		watch = watch->next;
	return watch;
}

static bool has_port(const struct network_watch *watch, uint32_t address)
{
	uint32_t i = address - watch->subnet.base;

	return subnet_has_machine(&watch->subnet, address) && watch->report.ports[i / 8] & 1 << i % 8;
}

bool network_has_lost(const struct machine *m)
{
	const struct machine_spec *spec = machine_running_spec(m);
	const struct network_watch *watch;

	if (!m->up || !machine_is_active(m) || network_kind(spec) != NETWORK_NAMED)
		return false;
	watch = find(m->hulld, m->record.project, spec->network);
	return watch && watch->known && !has_port(watch, machine_address(m));
}

const char *network_fault(const struct hulld *hulld, const char *id)
{
	const struct network_watch *watch = hulld->network_watches;

	while (watch && strcmp(watch->id, id) != 0)
		watch = watch->next;
	return watch && watch->known && watch->report.errnum ? watch->report.message : NULL;
}

/* Each machine that has lost it is told of once. */
static void tell(void *ctx)
{
	struct network_watch *watch = ctx;
	unsigned told = 0;

	for (struct machine *m = watch->hulld->machines; m; m = m->next) {
		bool lost;

		if (find(watch->hulld, m->record.project, machine_running_spec(m)->network) != watch)
			continue;
		lost = network_has_lost(m);
		if (lost && !m->network_lost && told++ == TOLD_AT_ONCE) {
			loop_timer_arm(watch->more, 0);
			return;
		}
		if (lost && !m->network_lost) {
			log_warn("machine %s: " LOST, m->record.id);
			events_add(m, "machine.network_lost", LOST);
		}
		m->network_lost = lost;
	}
}

static void stop(struct network_watch *watch)
{
	loop_remove(watch->source);
	watch->source = NULL;
	watch->sock = close_fd(watch->sock);
	watch->come = 0;
	watch->heard = false;
}

static void lose(struct network_watch *watch)
{
	memset(&watch->report, 0, sizeof(watch->report));
	watch->known = true;
	tell(watch);
}

static void listen_to(struct network_watch *watch);

/* Who holds it has ended, or has reported more than was read in time: then it is still there. */
static void on_end(struct network_watch *watch)
{
	bool heard = watch->heard;

	stop(watch);
	if (heard)
		listen_to(watch);
	else if (watch->ever)
		lose(watch);
}

static void on_report(void *ctx, uint32_t events)
{
	struct network_watch *watch = ctx;
	ssize_t n = recv(watch->sock, (char *)&watch->coming + watch->come, sizeof(watch->coming) - watch->come, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		on_end(watch);
		return;
	}
	watch->come += (size_t)n;
	if (watch->come < sizeof(watch->coming))
		return;
	watch->come = 0;
	watch->report = watch->coming;
	watch->report.message[sizeof(watch->report.message) - 1] = '\0';
	watch->heard = watch->ever = watch->known = true;
	tell(watch);
}

/* Where nobody listens, who held it has ended. */
static void listen_to(struct network_watch *watch)
{
	const struct network_request request = {NETWORK_WATCH, 0};
	char folder[512], path[600];
	struct error err;
	int sock;

	snprintf(path, sizeof(path), "%s/" NETWORK_SOCKET, network_folder(watch->hulld, watch->id, folder, sizeof(folder)));
	watch->known = false;
	sock = unix_connect(path, 1, &err);
	if (sock < 0) {
		if (sock == -ECONNREFUSED || sock == -ENOENT)
			lose(watch);
		return;
	}
	watch->sock = sock;
	watch->source = loop_add_fd(watch->hulld->loop, sock, EPOLLIN, on_report, watch);
	if (!watch->source || send(sock, &request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		log_warn("%s: %s", path, strerror(errno));
		stop(watch);
	}
}

static struct network_watch *add(struct hulld *hulld, const char *project, const char *name)
{
	struct network_watch *watch;
	struct network_plan plan;
	struct error err;

	if (network_find(hulld, project, name, &plan, &err) < 0)
		return NULL;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		abort();
	*watch = (struct network_watch){.hulld = hulld, .next = hulld->network_watches, .subnet = plan.subnet, .sock = -1,
		.more = loop_add_timer(hulld->loop, tell, watch)};
	if (!watch->more)
		abort();
	memcpy(watch->id, plan.id, sizeof(watch->id));
	snprintf(watch->project, sizeof(watch->project), "%s", project);
	snprintf(watch->name, sizeof(watch->name), "%s", name);
	hulld->network_watches = watch;
	return watch;
}

void network_watch_machine(const struct machine *m)
{
	const struct machine_spec *spec = machine_running_spec(m);
	struct network_watch *watch;

	if (network_kind(spec) != NETWORK_NAMED)
		return;
	watch = find(m->hulld, m->record.project, spec->network);
	if (!watch)
		watch = add(m->hulld, m->record.project, spec->network);
	if (watch && watch->sock < 0)
		listen_to(watch);
}

void network_watch_end(struct hulld *hulld, const char *id)
{
	struct network_watch **link = &hulld->network_watches, *watch;

	while (*link && strcmp((*link)->id, id) != 0)
		link = &(*link)->next;
	watch = *link;
	if (!watch)
		return;
	*link = watch->next;
	stop(watch);
	loop_remove(watch->more);
	free(watch);
}

void network_watches_free(struct hulld *hulld)
{
	while (hulld->network_watches)
		network_watch_end(hulld, hulld->network_watches->id);
}
