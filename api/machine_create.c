/* How a machine comes to be, and goes. See machine.h. */
#include "api/machine_private.h"

#include "api/image.h"
#include "api/log_age.h"
#include "api/logs.h"
#include "api/networks.h"
#include "api/operation.h"
#include "api/random.h"
#include "api/saved.h"
#include "api/start_order.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>

/* Coming. */

static void make_id(struct hulld *hulld, struct machine_record *record)
{
	do {
		record->id[0] = 'm';
		random_base32(record->id + 1, MACHINE_ID_BYTES - 1);
	} while (machine_by_id(hulld, record->id));
}

static char *make_name(struct hulld *hulld, const char *project)
{
	char suffix[8], *name;

	for (;;) {
		random_base32(suffix, 6);
		if (asprintf(&name, "machine-%s", suffix) < 0)
			abort();
		if (!machine_find(hulld, project, name))
			return name;
		free(name);
	}
}

/* No two have the same, and so they are listed in the order in which they were made. */
static int64_t choose_time(const struct hulld *hulld)
{
	const struct machine *m = hulld->last_machine;
	int64_t at = now_ms();

	while (m && m->record.created_at >= at)
		m = m->previous;
	for (m = m ? m->next : hulld->machines; m && m->record.created_at == at; m = m->next)
		at++;
	return at;
}

static void fill_record(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec,
	const struct image_view *image, struct machine_record *record)
{
	*record = (struct machine_record){.state = spec->ports.len ? MACHINE_CREATING : MACHINE_CREATED,
		.exit_status = -1, .created_at = choose_time(hulld), .request = origin->request};
	make_id(hulld, record);
	if (!spec->name)
		spec->name = make_name(hulld, origin->project);
	snprintf(record->project, sizeof(record->project), "%s", origin->project);
	snprintf(record->name, sizeof(record->name), "%s", spec->name);
	snprintf(record->rootfs, sizeof(record->rootfs), "%s", image->spec.rootfs);
	record->address = network_choose_address(hulld, origin->project, NULL, spec);
	record->spec = json_dump_text(&machine_spec_table, spec);
	record->image_config = json_dump_text(&image_config_table, &image->spec.config);
}

/* The row of a machine that there may be. machine_record_done() in any case. 0, or -ECANCELED with `problem` set. */
static int prepare(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, struct machine_record *record,
	struct problem *problem)
{
	struct image_view image = {0};
	int r = machine_check_image(hulld, origin->project, spec->image, &image, problem);

	memset(record, 0, sizeof(*record));
	if (r == 0)
		r = machine_check_spec(hulld, origin->project, NULL, spec, &image.spec.config, problem);
	if (r == 0)
		fill_record(hulld, origin, spec, &image, record);
	json_done(&image_table, &image);
	return r;
}

int machine_plan(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, json_t **ret, struct problem *problem)
{
	struct machine m = {.hulld = hulld};
	int r = prepare(hulld, origin, spec, &m.record, problem);

	if (r == 0) {
		m.record.state = MACHINE_CREATED;
		m.spec = *spec;
		*ret = machine_dump(&m);
	}
	machine_record_done(&m.record);
	json_done(&machine_spec_table, spec);
	return r;
}

int machine_insert(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, struct machine **ret,
	struct problem *problem)
{
	struct machine_record record;
	struct error err;
	int r = prepare(hulld, origin, spec, &record, problem);

	if (r == 0 && store_machine_insert(hulld->store, &record, &err) < 0)
		r = err.errnum == EEXIST ? problem_set(problem, PROBLEM_NAME_TAKEN, "name",
						   "a machine \"%s\" exists already", record.name)
					 : problem_from_error(problem, &err);
	if (r == 0) {
		*ret = machine_new(hulld, &record, spec);
		network_tell(hulld, (*ret)->record.project, (*ret)->spec.network);
	} else {
		machine_record_done(&record);
		json_done(&machine_spec_table, spec);
	}
	return r;
}

/* Going. */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
	(void)st;
	(void)kind;
	(void)walk;
	if (remove(path) < 0 && errno != ENOENT)
		log_warn("cannot remove %s: %s", path, strerror(errno));
	return 0;
}

void machine_remove_folder(const char *path)
{
	/* Not FTW_MOUNT: on an overlay a file's device is not its folder's, and would be passed over. */
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

int machine_remove(struct machine *m, struct problem *problem)
{
	struct hulld *hulld = m->hulld;
	char rootfs[sizeof(m->record.rootfs)], run_rootfs[sizeof(m->record.run_rootfs)], project[sizeof(m->record.project)];
	char network[NAME_MAX_BYTES + 1], path[512];
	struct error err;

	assert(!machine_is_active(m));
	if (operation_commit_removal(m, &err) < 0)
		return problem_from_error(problem, &err);
	machine_index_remove(m);
	snprintf(rootfs, sizeof(rootfs), "%s", m->record.rootfs);
	snprintf(run_rootfs, sizeof(run_rootfs), "%s", m->record.run_rootfs);
	snprintf(project, sizeof(project), "%s", m->record.project);
	snprintf(network, sizeof(network), "%s", machine_running_spec(m)->network);
	saved_forget(m);
	machine_remove_folder(machine_state_path(m, "", path, sizeof(path)));
	machine_remove_folder(machine_run_path(m, "", path, sizeof(path)));
	image_release_blob(hulld, project, rootfs);
	if (run_rootfs[0])
		image_release_blob(hulld, project, run_rootfs);
	machine_tell_removed(m);
	network_tell(hulld, project, network);
	start_order_tell_removed(hulld, project, m->record.name);
	logs_wake(hulld->logs, m->record.id);
	log_age_forget(hulld->log_age, m);
	machine_free(m);
	return 0;
}
