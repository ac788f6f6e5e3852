/* Whose a host name is. See hostnames.h. */
#include "api/hostnames.h"

#include "api/haproxy.h"
#include "api/machine.h"
#include "api/project.h"

#include <errno.h>
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

static int check_name(struct hulld *hulld, const char *project, const char *hostname, const char *field, struct problem *problem)
{
	if (!hostnames_haproxy(hulld->hostnames)) {
		problem_set(problem, PROBLEM_INVALID_FIELD, field, "this host serves nothing by host name");
		return problem_set_hint(problem, "start hulld with --http or --https");
	}
	/* First, so that nobody learns of names that could not be its own. */
	if (quota_check_hostname(hulld, project, hostname, field, problem) < 0)
		return -ECANCELED;
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (strcmp(m->record.project, project) != 0 && has_name(&m->spec, hostname)) {
			problem_set(problem, PROBLEM_NAME_TAKEN, field, "%.100s cannot be served: " PORT_IN_USE, hostname);
			return problem_set_hint(problem, "choose another host name");
		}
	return 0;
}

static bool is_new(const struct hulld *hulld, const char *hostname)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (has_name(&m->spec, hostname))
			return false;
	return true;
}

/* Each name has a slot. */
static int check_number(struct hulld *hulld, size_t more, struct problem *problem)
{
	more += hostnames_count(hulld->hostnames);
	if (more <= HAPROXY_SLOTS)
		return 0;
	return problem_set(problem, PROBLEM_QUOTA_EXCEEDED, "ports", "this host serves %d host names, and no more", HAPROXY_SLOTS);
}

int hostnames_check(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem)
{
	const struct port_spec *ports = spec->ports.items;
	size_t more = 0;
	char field[40];

	for (size_t i = 0; i < spec->ports.len; i++) {
		if (!ports[i].hostname || (changed && has_name(&changed->spec, ports[i].hostname)))
			continue;
		snprintf(field, sizeof(field), "ports[%zu].hostname", i);
		if (check_name(hulld, project, ports[i].hostname, field, problem) < 0)
			return -ECANCELED;
		more += is_new(hulld, ports[i].hostname);
	}
	return more ? check_number(hulld, more, problem) : 0;
}
