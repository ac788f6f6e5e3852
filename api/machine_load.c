/* Machines after a restart of hulld: what there are, and what was under way on them. See machine.h. */
#include "api/machine_private.h"

#include "api/host_drain.h"
#include "api/ingress_client.h"
#include "api/operation.h"
#include "api/saved.h"
#include "api/supervisor.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int read_spec(const char *text, struct machine_spec *ret, struct error *err)
{
	json_t *parsed = json_parse(text, strlen(text), err);
	int r = parsed ? json_read(&machine_spec_table, parsed, ret, err) : -EINVAL;

	json_decref(parsed);
	return r;
}

static int load_one(void *ctx, struct machine_record *record)
{
	struct hulld *hulld = ctx;
	struct machine_spec spec = {0}, *run_spec = NULL;
	struct error err;
	int r = read_spec(record->spec, &spec, &err);

	if (r == 0 && record->run_spec) {
		run_spec = calloc(1, sizeof(*run_spec));
		if (!run_spec)
			abort();
		r = read_spec(record->run_spec, run_spec, &err);
	}
	if (r < 0) {
		json_done(&machine_spec_table, &spec);
		free(run_spec);
		error_prefix(&err, "machine %s is damaged in the database: ", record->id);
		log_error_object(&err, "cannot load");
		machine_record_done(record);
		return -EINVAL;
	}
	machine_new(hulld, record, &spec)->run_spec = run_spec;
	return 0;
}

static void remove_unknown_folders(struct hulld *hulld, const char *root)
{
	char path[512];
	struct dirent *entry;
	DIR *folder;

	snprintf(path, sizeof(path), "%s/machines", root);
	folder = opendir(path);
	while (folder && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.' || machine_by_id(hulld, entry->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/machines/%s", root, entry->d_name);
		log_info("removing %s, of no machine", path);
		machine_remove_folder(path);
	}
	if (folder)
		closedir(folder);
}

/* One that does not run, and whose operation ended with a record that could not be written. */
static bool is_left_behind(const struct machine *m)
{
	return operation_current(m) && !m->deleting && !machine_is_active(m) && !m->record.restart_wanted;
}

/* May it be that what is saved of it is used? */
static bool may_be_saved(const struct machine *m)
{
	return m->record.state == MACHINE_SUSPENDING || m->record.state == MACHINE_SUSPENDED || m->record.state == MACHINE_RESUMING ||
	       m->record.state == MACHINE_STOPPING;
}

static void take_up(struct machine *m)
{
	struct machine_end end = {.code = "unknown", .message = "it ended unseen", .exit_status = -1};
	struct problem problem;

	m->deleting = operation_is(m, OPERATION_DELETE);
	if (!may_be_saved(m))
		saved_forget(m); /* an earlier hulld may not have been able to */
	if (is_left_behind(m)) {
		operation_machine_has_ended(m, &end, false);
		machine_commit(m);
	}
	if (m->record.state == MACHINE_CREATING) {
		if (machine_remove(m, &problem) < 0)
			log_error_object(&problem.error, m->record.name);
	} else if (machine_is_active(m)) {
		supervisor_adopt(m);
	} else if (m->deleting) {
		machine_tell_waiters(m); /* of which there are none: it is removed */
	} else if (m->record.state == MACHINE_SUSPENDED && m->record.restart_wanted) {
		machine_resume_again(m);
	} else {
		machine_arm_restart(m);
	}
}

int machines_load(struct hulld *hulld, struct error *err)
{
	struct machine *m, *next;
	int r;

	error_set(err, EINVAL, "the log says why");
	r = store_machines_each(hulld->store, load_one, hulld, err);
	if (r < 0)
		return error_prefix(err, "cannot load the machines: ");
	r = operations_load(hulld, err);
	if (r < 0)
		return error_prefix(err, "cannot load the operations: ");
	remove_unknown_folders(hulld, hulld->options.state);
	remove_unknown_folders(hulld, hulld->options.run);
	for (m = hulld->machines; m; m = next) {
		next = m->next;
		take_up(m);
	}
	ingress_reconcile(hulld->ingress);
	host_drain_take_up(hulld);
	return 0;
}

void machines_free(struct hulld *hulld)
{
	while (hulld->machines) {
		struct machine *m = hulld->machines;

		machine_index_remove(m);
		machine_free(m);
	}
}
