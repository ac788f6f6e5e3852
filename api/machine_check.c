/* What a machine is to be, looked at beside all others before it is made or changed. */
#include "api/folders.h"
#include "api/hostnames.h"
#include "api/image.h"
#include "api/machine.h"
#include "api/networks.h"
#include "api/project.h"
#include "api/secrets.h"
#include "api/start_order.h"
#include "api/volume.h"

#include <errno.h>
#include <string.h>

/* A port that another machine of the project publishes, or is about to. Others' are looked at when they are published (machine_publish.c). */
static int check_ports(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem)
{
	const struct port_spec *ports = spec->ports.items;
	char field[40];

	for (const struct machine *m = spec->ports.len ? hulld->machines : NULL; m; m = m->next) {
		if (m == changed || strcmp(m->record.project, project) != 0)
			continue;
		for (size_t i = 0; i < spec->ports.len; i++) {
			if (!machine_spec_collides(&m->spec, &ports[i]))
				continue;
			snprintf(field, sizeof(field), "ports[%zu].host", i);
			problem_set(problem, PROBLEM_PORT_TAKEN, field, "%s:%lld is published by machine %s", ports[i].address,
				(long long)ports[i].host, m->record.name);
			return problem_set_hint(problem, "choose another host port");
		}
	}
	return 0;
}

/* Is there one among them that the machine has not? */
static bool has_new_port(const struct machine *changed, const struct machine_spec *spec)
{
	const struct port_spec *ports = spec->ports.items, *held = changed ? changed->spec.ports.items : NULL;
	size_t n_held = changed ? changed->spec.ports.len : 0, j;

	for (size_t i = 0; i < spec->ports.len; i++) {
		for (j = 0; j < n_held && !ports_are_same(&ports[i], &held[j]); j++)
			;
		if (j == n_held)
			return true;
	}
	return false;
}

/* hull-ingress holds so many. While a machine is changed, there are those that it has and those that it is to have. */
static int check_number_of_ports(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem)
{
	size_t all = spec->ports.len, own = all, coming = 0;

	if (!has_new_port(changed, spec))
		return 0;
	for (const struct machine *m = hulld->machines; m; m = m->next) {
		bool is_own = strcmp(m->record.project, project) == 0;

		if (m == changed)
			continue;
		all += m->spec.ports.len + m->patch_ports;
		own += is_own ? m->spec.ports.len + m->patch_ports : 0;
		coming += is_own ? m->patch_ports : 0;
	}
	/* Others in the place of those that it has. */
	if (!coming && spec->ports.len <= (changed ? changed->spec.ports.len : 0))
		return 0;
	return quota_check_share(project, own, all, INGRESS_PORTS_MAX, "publishes", "ports", problem);
}

int machine_check_image(struct hulld *hulld, const char *project, const char *name, struct image_view *ret, struct problem *problem)
{
	struct error err;

	if (image_load(hulld, project, name, ret, &err) == 0)
		return 0;
	if (err.errnum != ENOENT)
		return problem_from_error(problem, &err);
	problem_set(problem, PROBLEM_NOT_FOUND, "image", "%s", err.message);
	return problem_set_hint(problem, "create it with POST /v1/images");
}

int machine_check_spec(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	const struct image_config *config, struct problem *problem)
{
	const struct machine *named = spec->name ? machine_find(hulld, project, spec->name) : NULL;
	struct error err;
	int r;

	if (machine_spec_check(spec, hulld->host_memory_mib, &err) < 0)
		return problem_from_error(problem, &err);
	if (!spec->command.len && !config->command.len)
		return problem_set(problem, PROBLEM_MISSING_FIELD, "command", "is required: image \"%s\" has none", spec->image);
	if (named && named != changed)
		return problem_set(problem, PROBLEM_NAME_TAKEN, "name", "a machine \"%s\" exists already", spec->name);
	r = secrets_check(hulld, project, spec, problem);
	if (r == 0)
		r = volumes_check(hulld, project, spec, problem);
	if (r == 0)
		r = network_check(hulld, project, changed, spec, problem);
	if (r == 0)
		r = folders_check(hulld, project, spec, problem);
	if (r == 0)
		r = start_order_check(hulld, project, changed, spec, problem);
	if (r == 0)
		r = check_ports(hulld, project, changed, spec, problem);
	if (r == 0)
		r = check_number_of_ports(hulld, project, changed, spec, problem);
	if (r == 0)
		r = hostnames_check(hulld, project, changed, spec, problem);
	return r < 0 ? r : quota_check_machine(hulld, project, changed, spec, problem);
}

const struct machine *machine_using_image(const struct hulld *hulld, const char *project, const char *image)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (strcmp(m->record.project, project) == 0 &&
			(strcmp(m->spec.image, image) == 0 || strcmp(machine_running_spec(m)->image, image) == 0))
			return m;
	return NULL;
}

bool machines_publish_ports(const struct hulld *hulld)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (m->spec.ports.len)
			return true;
	return false;
}
