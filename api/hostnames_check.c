/* Whose a host name is. See hostnames.h. */
#include "api/hostnames.h"

#include "api/haproxy.h"
#include "api/machine.h"
#include "api/project.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool has_name(const struct machine_spec *spec, const char *hostname)
{
	const struct port_spec *ports = spec->ports.items;

	for (size_t i = 0; i < spec->ports.len; i++)
		if (ports[i].hostname && strcmp(ports[i].hostname, hostname) == 0)
			return true;
	return false;
}

bool hostnames_has(const struct hulld *hulld, const char *project, const char *hostname)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (strcmp(m->record.project, project) == 0 && has_name(&m->spec, hostname))
			return true;
	return false;
}

/* Those that there are, in order, with all of their ports. */
struct names {
	struct name {
		const char *hostname, *project;
	} *items;
	size_t len;
};

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->hostname, ((const struct name *)b)->hostname);
}

/* Borrows from the machines; `items` is owned by the caller. */
static struct names collect(const struct hulld *hulld)
{
	struct names names = {.items = NULL};
	size_t n = 0;

	for (const struct machine *m = hulld->machines; m; m = m->next)
		n += m->spec.ports.len;
	names.items = calloc(n + 1, sizeof(*names.items));
	if (!names.items)
		abort();
	for (const struct machine *m = hulld->machines; m; m = m->next)
		for (size_t i = 0; i < m->spec.ports.len; i++) {
			const struct port_spec *port = (const struct port_spec *)m->spec.ports.items + i;

			if (port->hostname)
				names.items[names.len++] = (struct name){port->hostname, m->record.project};
		}
	qsort(names.items, names.len, sizeof(*names.items), compare);
	return names;
}

static const struct name *find(const struct names *names, const char *hostname)
{
	return bsearch(&(struct name){.hostname = hostname}, names->items, names->len, sizeof(*names->items), compare);
}

static int check_name(struct hulld *hulld, const struct name *taken, const char *project, const char *hostname, const char *field,
	struct problem *problem)
{
	if (!hostnames_haproxy(hulld->hostnames)) {
		problem_set(problem, PROBLEM_INVALID_FIELD, field, "this host serves nothing by host name");
		return problem_set_hint(problem, "start hulld with --http or --https; `kvmhost up` takes them, too");
	}
	/* First, so that nobody learns of names that could not be its own. */
	if (quota_check_hostname(hulld, project, hostname, field, problem) < 0)
		return -ECANCELED;
	if (!taken || strcmp(taken->project, project) == 0)
		return 0;
	problem_set(problem, PROBLEM_NAME_TAKEN, field, "%.100s cannot be served: " PORT_IN_USE, hostname);
	return problem_set_hint(problem, "choose another host name");
}

/* Each name has a slot. */
static int check_number(const struct names *names, const char *project, size_t more, struct problem *problem)
{
	size_t all = more, own = more;

	for (size_t i = 0; i < names->len; i++) {
		if (i && compare(&names->items[i - 1], &names->items[i]) == 0)
			continue;
		all++;
		own += strcmp(names->items[i].project, project) == 0;
	}
	return quota_check_share(project, own, all, HAPROXY_SLOTS, "serves", "host names", problem);
}

int hostnames_check(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem)
{
	const struct port_spec *ports = spec->ports.items;
	size_t more = 0;
	struct names names = {.items = NULL};
	char field[40];
	int r = 0;

	for (size_t i = 0; r == 0 && i < spec->ports.len; i++) {
		const struct name *known;

		if (!ports[i].hostname || (changed && has_name(&changed->spec, ports[i].hostname)))
			continue;
		if (!names.items)
			names = collect(hulld);
		known = find(&names, ports[i].hostname);
		snprintf(field, sizeof(field), "ports[%zu].hostname", i);
		r = check_name(hulld, known, project, ports[i].hostname, field, problem);
		more += !known;
	}
	if (r == 0 && more)
		r = check_number(&names, project, more, problem);
	free(names.items);
	return r;
}
