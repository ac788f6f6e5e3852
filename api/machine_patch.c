/* PATCH /v1/machines/{machine}: a JSON Merge Patch (RFC 7396) of a machine's specification, whatever it is doing.
 *
 * Theory of operation. What is patched is what the machine is to be: m->spec, and the image in its row. Its present run keeps what it
 * was begun with, in m->run_spec and the run_* of its row, until it has ended (machine.c); where both differ, the machine says so in
 * `pending`. Only name, labels, restart, depends_on, health, idle, ports and the age of logs are the same for both: they are hulld's and
 * hull-ingress's, not the run's.
 *
 *	new ports published, one by one → row committed → old ports given up → 200
 *	a port that is taken: what was published is given up, or turned back → 409
 *
 * A hulld that is killed in between finds the row as it was or as it is to be, and settles the ports by that (ingress_client.c).
 * Meanwhile the machine may be started, stopped and deleted, but not patched.
 *
 * With `dry_run` all is looked at that can be without hull-ingress, and the answer is what the machine would be. */
#include "api/health.h"
#include "api/hostnames.h"
#include "api/idle.h"
#include "api/image.h"
#include "api/ingress_client.h"
#include "api/log_age.h"
#include "api/logs.h"
#include "api/machine_http.h"
#include "api/machine.h"
#include "api/merge_patch.h"
#include "api/networks.h"
#include "api/operation.h"
#include "api/project.h"
#include "api/start_order.h"
#include "api/volume.h"
#include "common/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct patch {
	struct hulld *hulld;
	char machine[MACHINE_ID_BYTES + 1]; /* its id: it may be deleted meanwhile */
	struct request *req;		    /* NULL: the client has gone; the machine is changed all the same */
	struct machine_spec spec;
	bool has_image;
	struct image_view image; /* `has_image`: to be the machine's */
	size_t port;		 /* being published */
	struct problem problem;
};

static void patch_free(struct patch *patch)
{
	json_done(&machine_spec_table, &patch->spec);
	json_done(&image_table, &patch->image);
	free(patch);
}

/* What differs. */

static bool takes_effect_at_once(const char *field)
{
	static const char *const fields[] = {"name", "ports", "restart", "depends_on", "health", "idle", "labels"};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (strcmp(field, fields[i]) == 0)
			return true;
	return false;
}

static bool same_field(const struct json_field *field, const struct machine_spec *a, const struct machine_spec *b)
{
	json_t *first = json_dump_field(field, a), *second = json_dump_field(field, b);
	bool same = first && second ? json_equal(first, second) : first == second;

	json_decref(first);
	json_decref(second);
	return same;
}

static bool same_in_run(const struct json_field *field, const struct machine_spec *run, const struct machine_spec *spec)
{
	if (strcmp(field->name, "logs") == 0)
		return run->logs.max_mib == spec->logs.max_mib; /* their age is hulld's to look after */
	return same_field(field, run, spec);
}

/* An image's name may have been moved to other content. */
static bool same_image(const struct machine_record *record)
{
	return strcmp(record->run_rootfs, record->rootfs) == 0 && strcmp(record->run_image_config, record->image_config) == 0;
}

size_t machine_pending(const struct machine *m, const char *ret[MACHINE_PENDING_MAX])
{
	size_t n = 0;

	assert(machine_spec_table.n_fields <= MACHINE_PENDING_MAX);
	for (size_t i = 0; m->run_spec && i < machine_spec_table.n_fields; i++) {
		const struct json_field *field = &machine_spec_table.fields[i];

		if (takes_effect_at_once(field->name))
			continue;
		if (!same_in_run(field, m->run_spec, &m->spec) || (strcmp(field->name, "image") == 0 && !same_image(&m->record)))
			ret[n++] = field->name;
	}
	return n;
}

/* Ports. */

static const struct port_spec *port_at(const struct machine_spec *spec, size_t i)
{
	return &((const struct port_spec *)spec->ports.items)[i];
}

/* The one that is held at the same place of the host, or NULL. */
static const struct port_spec *find_port(const struct machine_spec *spec, const struct port_spec *port)
{
	for (size_t i = 0; i < spec->ports.len; i++)
		if (ports_are_same(port_at(spec, i), port))
			return port_at(spec, i);
	return NULL;
}

static bool is_held(const struct machine *m, const struct port_spec *port)
{
	const struct port_spec *held = find_port(&m->spec, port);

	return held && held->guest == port->guest;
}

/* Gives up, or turns back, what has been published before the patch failed. */
static void withdraw_ports(const struct patch *patch, const struct machine *m)
{
	for (size_t i = 0; i < patch->port; i++) {
		const struct port_spec *port = port_at(&patch->spec, i), *held = find_port(&m->spec, port);

		if (!held)
			ingress_unpublish_port(m->hulld->ingress, m, port);
		else if (held->guest != port->guest)
			ingress_publish(m->hulld->ingress, m, held, NULL, NULL);
	}
}

/* Those of `before` that are none any more. hull-ingress may have died in between: those that are, it is told again. */
static void settle_ports(struct machine *m, const struct machine_spec *before)
{
	for (size_t i = 0; i < before->ports.len; i++)
		if (!find_port(&m->spec, port_at(before, i)))
			ingress_unpublish_port(m->hulld->ingress, m, port_at(before, i));
	for (size_t i = 0; i < m->spec.ports.len; i++)
		ingress_publish(m->hulld->ingress, m, port_at(&m->spec, i), NULL, NULL);
}

/* Changing. */

static char *copy_text(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		abort();
	return copy;
}

/* The row as it is to be; of its strings those are new that are not the old row's. */
static struct machine_record make_record(const struct machine *m, const struct patch *patch)
{
	struct machine_record record = m->record;

	snprintf(record.name, sizeof(record.name), "%s", patch->spec.name);
	record.spec = json_dump_text(&machine_spec_table, &patch->spec);
	record.address = network_choose_address(m->hulld, record.project, m, &patch->spec);
	if (machine_has_run(m) && !m->run_spec) {
		snprintf(record.run_rootfs, sizeof(record.run_rootfs), "%s", m->record.rootfs);
		record.run_address = m->record.address;
		record.run_spec = json_dump_text(&machine_spec_table, &m->spec);
		record.run_image_config = copy_text(m->record.image_config);
	}
	if (patch->has_image) {
		snprintf(record.rootfs, sizeof(record.rootfs), "%s", patch->image.spec.rootfs);
		record.image_config = json_dump_text(&image_config_table, &patch->image.spec.config);
	}
	/* A guest's reset is started again under every policy; and so is what somebody wants started again. */
	if (patch->spec.restart.policy == RESTART_NEVER && m->spec.restart.policy != RESTART_NEVER && !record.restart_wanted)
		record.restart_at = 0;
	return record;
}

static void free_unless(char *text, const char *kept)
{
	if (text != kept)
		free(text);
}

/* The strings of `record` that `kept` has not. */
static void free_strings(const struct machine_record *record, const struct machine_record *kept)
{
	free_unless(record->spec, kept->spec);
	free_unless(record->image_config, kept->image_config);
	free_unless(record->run_spec, kept->run_spec);
	free_unless(record->run_image_config, kept->run_image_config);
}

/* What `m` runs with stays; what it is to be becomes the patch's. */
static void take_spec(struct machine *m, struct patch *patch)
{
	struct machine_spec before = m->spec;

	m->spec = patch->spec;
	machine_note_spec(m);
	memset(&patch->spec, 0, sizeof(patch->spec));
	if (!same_field(json_find_field(&machine_spec_table, "ports"), &before, &m->spec))
		settle_ports(m, &before);
	if (!machine_has_run(m) || m->run_spec) {
		json_done(&machine_spec_table, &before);
		return;
	}
	m->run_spec = malloc(sizeof(*m->run_spec));
	if (!m->run_spec)
		abort();
	*m->run_spec = before;
}

/* 0 after the commit, or -ECANCELED with patch->problem set and nothing changed. */
static int apply(struct machine *m, struct patch *patch)
{
	bool other_logs = !same_field(json_find_field(&machine_spec_table, "logs"), &m->spec, &patch->spec);
	bool other_idle = !same_field(json_find_field(&machine_spec_table, "idle"), &m->spec, &patch->spec);
	bool other_health = !same_field(json_find_field(&machine_spec_table, "health"), &m->spec, &patch->spec);
	struct machine_record before = m->record, record = make_record(m, patch);
	char network[NAME_MAX_BYTES + 1];
	struct error err;

	snprintf(network, sizeof(network), "%s", machine_running_spec(m)->network);
	if (store_machine_respecify(m->hulld->store, &record, &err) < 0) {
		free_strings(&record, &before);
		if (err.errnum == EEXIST)
			return problem_set(
				&patch->problem, PROBLEM_NAME_TAKEN, "name", "a machine \"%s\" exists already", record.name);
		return problem_from_error(&patch->problem, &err);
	}
	free_strings(&before, &record);
	free(record.spec);
	record.spec = NULL; /* as machine_new() has it */
	machine_index_remove_name(m);
	m->record = record;
	machine_index_add_name(m);
	if (other_health)
		health_stop(m); /* it looks at the spec */
	take_spec(m, patch);
	if (other_health && record.state == MACHINE_RUNNING) {
		operation_check_is_another(m);
		health_start(m);
	}
	if (other_idle)
		idle_forgive(m);
	if (other_idle && record.state == MACHINE_RUNNING)
		idle_begin(m);
	if (strcmp(before.name, record.name) != 0)
		network_tell(m->hulld, record.project, network);
	network_tell_moved(m, network);
	if (!record.restart_at)
		machine_disarm_restart(m);
	if (strcmp(before.rootfs, record.rootfs) != 0)
		image_release_blob(m->hulld, record.project, before.rootfs);
	ingress_tell_gate(m->hulld->ingress, m); /* there may be no check any more */
	start_order_renew(m);
	machine_tell_waiters(m);
	logs_wake(m->hulld->logs, record.id);
	if (other_logs)
		log_age_look(m);
	return 0;
}

static int check_disk(const struct machine *m, const struct patch *patch, struct problem *problem)
{
	if (patch->spec.disk_mib == m->spec.disk_mib || m->record.state == MACHINE_CREATED)
		return 0;
	return problem_set(
		problem, PROBLEM_INVALID_FIELD, "disk_mib", "its disk has been made, with %lld MiB", (long long)m->spec.disk_mib);
}

/* While ports were published it may have been started, others have come to depend on it, or to have its host name, its image or volumes been
 * removed, and what the project has left used up. */
static int check_again(const struct machine *m, struct patch *patch)
{
	int r = check_disk(m, patch, &patch->problem);

	if (r == 0)
		r = start_order_check(m->hulld, m->record.project, m, &patch->spec, &patch->problem);
	if (r == 0)
		r = network_check(m->hulld, m->record.project, m, &patch->spec, &patch->problem);
	if (r == 0)
		r = hostnames_check(m->hulld, m->record.project, m, &patch->spec, &patch->problem);
	if (r == 0)
		r = volumes_check(m->hulld, m->record.project, &patch->spec, &patch->problem);
	if (r == 0 && patch->has_image) {
		json_done(&image_table, &patch->image);
		memset(&patch->image, 0, sizeof(patch->image));
		r = machine_check_image(m->hulld, m->record.project, patch->spec.image, &patch->image, &patch->problem);
	}
	return r < 0 ? r : quota_check_machine(m->hulld, m->record.project, m, &patch->spec, &patch->problem);
}

/* The chain. */

static void on_client_gone(void *ctx)
{
	((struct patch *)ctx)->req = NULL;
}

/* Ends it. `m`: NULL when it has been deleted. */
static void finish(struct patch *patch, struct machine *m, bool ok)
{
	bool waited = m && m->patching;

	if (m) {
		m->patching = false;
		m->patch_ports = 0;
	}
	if (ok && ((waited && check_again(m, patch) < 0) || apply(m, patch) < 0))
		ok = false;
	if (m && !ok)
		withdraw_ports(patch, m);
	if (patch->req && ok)
		request_reply(patch->req, 200, machine_dump(m));
	else if (patch->req)
		request_refuse(patch->req, &patch->problem);
	patch_free(patch);
}

static void go_on(struct patch *patch, struct machine *m);

static void on_published(void *ctx, const json_t *answer, const struct error *err)
{
	struct patch *patch = ctx;
	struct machine *m = machine_by_id(patch->hulld, patch->machine);

	if (!m || m->removing) { /* which gives up all that is published */
		problem_set(&patch->problem, PROBLEM_NOT_FOUND, NULL, "the machine has been deleted");
		finish(patch, NULL, false);
	} else if (machine_http_check_published(port_at(&patch->spec, patch->port), patch->port, answer, err, &patch->problem) < 0) {
		finish(patch, m, false);
	} else {
		patch->port++;
		go_on(patch, m);
	}
}

static void go_on(struct patch *patch, struct machine *m)
{
	while (patch->port < patch->spec.ports.len && is_held(m, port_at(&patch->spec, patch->port)))
		patch->port++;
	if (patch->port == patch->spec.ports.len) {
		finish(patch, m, true);
		return;
	}
	if (!m->patching)
		request_on_gone(patch->req, on_client_gone, patch);
	m->patching = true;
	m->patch_ports = patch->spec.ports.len;
	if (machine_http_publish(m, port_at(&patch->spec, patch->port), patch->port, on_published, patch, &patch->problem) < 0)
		finish(patch, m, false);
}

/* What is asked for. */

static int load_image_config(const struct machine *m, struct image_config *ret, struct problem *problem)
{
	struct error err;
	json_t *parsed = json_parse(m->record.image_config, strlen(m->record.image_config), &err);
	int r = parsed ? json_read(&image_config_table, parsed, ret, &err) : -EINVAL;

	json_decref(parsed);
	if (r == 0)
		return 0;
	error_set(&err, EIO, "what machine %s has of its image is damaged in the database", m->record.name);
	return problem_from_error(problem, &err);
}

static int check(const struct machine *m, struct patch *patch, struct problem *problem)
{
	struct image_config config = {0};
	int r;

	if (!patch->spec.name)
		return problem_set(problem, PROBLEM_MISSING_FIELD, "name", "is required: a machine keeps a name");
	r = check_disk(m, patch, problem);
	if (r < 0)
		return r;
	if (patch->has_image) {
		r = machine_check_image(m->hulld, m->record.project, patch->spec.image, &patch->image, problem);
		return r < 0 ? r
			     : machine_check_spec(
				       m->hulld, m->record.project, m, &patch->spec, &patch->image.spec.config, problem);
	}
	r = load_image_config(m, &config, problem);
	if (r == 0)
		r = machine_check_spec(m->hulld, m->record.project, m, &patch->spec, &config, problem);
	json_done(&image_config_table, &config);
	return r;
}

static int prepare(const struct machine *m, const json_t *document, struct patch *patch, struct problem *problem)
{
	cleanup_free char *spec = NULL;
	int r;

	if (!json_is_object(document))
		return problem_set(problem, PROBLEM_INVALID_FIELD, NULL, "must be an object");
	if (m->deleting)
		return problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is being deleted", m->record.name);
	if (m->patching) {
		problem_set(problem, PROBLEM_REQUEST_IN_PROGRESS, NULL, "machine %s is being changed", m->record.name);
		return problem_set_hint(problem, "ask again in a moment");
	}
	patch->has_image = json_object_get(document, "image");
	spec = json_dump_text(&machine_spec_table, &m->spec);
	r = merge_patch_read(&machine_spec_table, spec, document, &patch->spec, problem);
	return r < 0 ? r : check(m, patch, problem);
}

/* What the machine would be. */
static json_t *plan(const struct machine *m, const struct patch *patch)
{
	struct machine planned = *m;
	json_t *dumped;

	planned.record = make_record(m, patch);
	planned.spec = patch->spec;
	if (machine_has_run(m) && !m->run_spec)
		planned.run_spec = (struct machine_spec *)&m->spec;
	dumped = machine_dump(&planned);
	free_strings(&planned.record, &m->record);
	return dumped;
}

void machine_http_patch(struct request *req, void *ctx)
{
	struct machine *m = machine_http_find(ctx, req);
	json_t *document = m ? request_read_json(req) : NULL;
	struct patch *patch;
	struct problem problem;
	int r;

	if (!document)
		return;
	patch = calloc(1, sizeof(*patch));
	if (!patch)
		abort();
	patch->hulld = ctx;
	patch->req = req;
	snprintf(patch->machine, sizeof(patch->machine), "%s", m->record.id);
	r = prepare(m, document, patch, &problem);
	json_decref(document);
	if (r == 0 && !request_query_int(req, "dry_run", 0)) {
		go_on(patch, m);
		return;
	}
	if (r == 0)
		request_reply(req, 200, plan(m, patch));
	else
		request_refuse(req, &problem);
	patch_free(patch);
}
