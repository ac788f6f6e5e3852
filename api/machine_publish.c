/* The ports of a machine that is made or changed, published one by one. See machine_http.h. */
#include "api/machine_http.h"

#include "api/hulld.h"
#include "api/ingress_client.h"
#include "api/machine.h"

#include <errno.h>
#include <string.h>

static int refuse(const struct port_spec *port, size_t index, const char *reason, struct problem *problem)
{
	char field[40];

	snprintf(field, sizeof(field), "ports[%zu].host", index);
	problem_set(problem, PROBLEM_PORT_TAKEN, field, "%s:%lld cannot be published: %s", port->address, (long long)port->host, reason);
	return problem_set_hint(problem, "choose another host port");
}

/* Does a machine of another project publish it, or is one about to? One that is made later than `m` is not: it is refused for that itself. */
static bool is_of_others(const struct machine *m, const struct port_spec *port)
{
	for (const struct machine *other = m->hulld->machines; other; other = other->next) {
		bool later = other->record.state == MACHINE_CREATING && other->number > m->number;

		if (!later && strcmp(other->record.project, m->record.project) != 0 && machine_spec_collides(&other->spec, port))
			return true;
	}
	return false;
}

int machine_http_publish(const struct machine *m, const struct port_spec *port, size_t index, ingress_fn fn, void *ctx,
	struct problem *problem)
{
	if (is_of_others(m, port))
		return refuse(port, index, PORT_IN_USE, problem);
	ingress_publish(m->hulld->ingress, m, port, fn, ctx);
	return 0;
}

int machine_http_check_published(const struct port_spec *port, size_t index, const json_t *answer, const struct error *err,
	struct problem *problem)
{
	const char *message = json_string_value(json_object_get(answer, "message"));
	const char *code = json_string_value(json_object_get(answer, "code"));
	char field[40];

	if (!answer)
		return problem_set(problem, PROBLEM_INTERNAL, NULL, "cannot publish ports: %s", err->message);
	if (json_is_true(json_object_get(answer, "ok")))
		return 0;
	if (code && strcmp(code, "limit") == 0)
		return problem_set(problem, PROBLEM_QUOTA_EXCEEDED, "ports", "this host can publish no more: %s", message ? message : code);
	if (port->hostname)
		return problem_set(problem, PROBLEM_INTERNAL, NULL, "cannot publish ports: %s", message ? message : "refused");
	if (code && strcmp(code, "address_unavailable") == 0) {
		snprintf(field, sizeof(field), "ports[%zu].address", index);
		return problem_set(problem, PROBLEM_INVALID_FIELD, field, "%s is no address of this host", port->address);
	}
	return refuse(port, index, message && code && strcmp(code, "port_taken") != 0 ? message : PORT_IN_USE, problem);
}
