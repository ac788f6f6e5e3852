/* Machines in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void machine_record_done(struct machine_record *record)
{
	free(record->spec);
	free(record->image_config);
	free(record->run_spec);
	free(record->run_image_config);
	memset(record, 0, sizeof(*record));
}

static void bind_machine(sqlite3_stmt *stmt, const struct machine_record *record)
{
	store_bind_text(stmt, 1, record->id);
	store_bind_text(stmt, 2, machine_state_names[record->state]);
	store_bind_text(stmt, 3, record->cause_code);
	store_bind_text(stmt, 4, record->cause_message);
	sqlite3_bind_int(stmt, 5, record->exit_status);
	sqlite3_bind_int(stmt, 6, record->monitor.pid);
	sqlite3_bind_int64(stmt, 7, (int64_t)record->monitor.start_time);
	sqlite3_bind_int(stmt, 8, record->passt.pid);
	sqlite3_bind_int64(stmt, 9, (int64_t)record->passt.start_time);
	store_bind_text(stmt, 10, record->boot_id);
	sqlite3_bind_int64(stmt, 11, record->restarts);
	sqlite3_bind_int64(stmt, 12, record->failures);
	sqlite3_bind_int64(stmt, 13, record->restart_at);
	sqlite3_bind_int64(stmt, 14, record->stop_timeout_s);
	sqlite3_bind_int(stmt, 15, record->restart_wanted);
	sqlite3_bind_int64(stmt, 16, record->started_at);
	sqlite3_bind_int64(stmt, 17, record->stopped_at);
	store_bind_text(stmt, 18, record->run_rootfs);
	store_bind_text(stmt, 19, record->run_spec ? record->run_spec : "");
	store_bind_text(stmt, 20, record->run_image_config ? record->run_image_config : "");
	sqlite3_bind_int(stmt, 21, record->attached);
	sqlite3_bind_int(stmt, 22, record->asleep);
}

int store_machine_insert(struct store *store, const struct machine_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->spec) + strlen(record->image_config), err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, MACHINE_INSERT);
	bind_machine(stmt, record);
	store_bind_text(stmt, 23, record->name);
	store_bind_text(stmt, 24, record->rootfs);
	store_bind_text(stmt, 25, record->spec);
	store_bind_text(stmt, 26, record->image_config);
	sqlite3_bind_int64(stmt, 27, record->created_at);
	sqlite3_bind_int64(stmt, 28, record->request);
	store_bind_text(stmt, 29, record->project);
	sqlite3_bind_int64(stmt, 30, record->address);
	return store_commit(store, stmt, err);
}

/* Of what a client specifies, for the next run and for this one. */
static size_t bytes_specified(const struct machine_record *record)
{
	return strlen(record->spec) + strlen(record->image_config) + (record->run_spec ? strlen(record->run_spec) : 0) +
	       (record->run_image_config ? strlen(record->run_image_config) : 0);
}

int store_machine_respecify(struct store *store, const struct machine_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, bytes_specified(record), err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, MACHINE_RESPECIFY);
	store_bind_text(stmt, 1, record->id);
	store_bind_text(stmt, 2, record->name);
	store_bind_text(stmt, 3, record->rootfs);
	store_bind_text(stmt, 4, record->spec);
	store_bind_text(stmt, 5, record->image_config);
	store_bind_text(stmt, 6, record->run_rootfs);
	store_bind_text(stmt, 7, record->run_spec ? record->run_spec : "");
	store_bind_text(stmt, 8, record->run_image_config ? record->run_image_config : "");
	sqlite3_bind_int64(stmt, 9, record->restart_at);
	sqlite3_bind_int64(stmt, 10, record->address);
	sqlite3_bind_int64(stmt, 11, record->run_address);
	return store_commit_one(store, stmt, "machine", err);
}

int store_machine_update(struct store *store, const struct machine_record *record, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, MACHINE_UPDATE);

	bind_machine(stmt, record);
	sqlite3_bind_int64(stmt, 23, record->run_address);
	return store_commit_one(store, stmt, "machine", err);
}

int store_machine_delete(struct store *store, const char *id, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, MACHINE_DELETE);

	store_bind_text(stmt, 1, id);
	return store_commit_one(store, stmt, "machine", err);
}

static int state_by_name(const char *name)
{
	for (int i = 0; machine_state_names[i]; i++)
		if (strcmp(machine_state_names[i], name) == 0)
			return i;
	return -1;
}

static char *text_or_null(const char *text)
{
	char *copy = text[0] ? strdup(text) : NULL;

	if (text[0] && !copy)
		abort();
	return copy;
}

static int read_machine(sqlite3_stmt *stmt, struct machine_record *ret, struct error *err)
{
	snprintf(ret->id, sizeof(ret->id), "%s", store_column(stmt, 0));
	ret->state = state_by_name(store_column(stmt, 1));
	if (ret->state < 0)
		return error_set(err, EINVAL, "machine %s has the unknown state %s", ret->id, store_column(stmt, 1));
	snprintf(ret->cause_code, sizeof(ret->cause_code), "%s", store_column(stmt, 2));
	snprintf(ret->cause_message, sizeof(ret->cause_message), "%s", store_column(stmt, 3));
	ret->exit_status = sqlite3_column_int(stmt, 4);
	ret->monitor.pid = sqlite3_column_int(stmt, 5);
	ret->monitor.start_time = (uint64_t)sqlite3_column_int64(stmt, 6);
	ret->passt.pid = sqlite3_column_int(stmt, 7);
	ret->passt.start_time = (uint64_t)sqlite3_column_int64(stmt, 8);
	snprintf(ret->boot_id, sizeof(ret->boot_id), "%s", store_column(stmt, 9));
	ret->restarts = sqlite3_column_int64(stmt, 10);
	ret->failures = sqlite3_column_int64(stmt, 11);
	ret->restart_at = sqlite3_column_int64(stmt, 12);
	ret->stop_timeout_s = sqlite3_column_int64(stmt, 13);
	ret->restart_wanted = sqlite3_column_int(stmt, 14) != 0;
	ret->started_at = sqlite3_column_int64(stmt, 15);
	ret->stopped_at = sqlite3_column_int64(stmt, 16);
	snprintf(ret->run_rootfs, sizeof(ret->run_rootfs), "%s", store_column(stmt, 17));
	ret->run_spec = text_or_null(store_column(stmt, 18));
	ret->run_image_config = text_or_null(store_column(stmt, 19));
	snprintf(ret->name, sizeof(ret->name), "%s", store_column(stmt, 20));
	snprintf(ret->rootfs, sizeof(ret->rootfs), "%s", store_column(stmt, 21));
	ret->spec = strdup(store_column(stmt, 22));
	ret->image_config = strdup(store_column(stmt, 23));
	ret->created_at = sqlite3_column_int64(stmt, 24);
	ret->request = sqlite3_column_int64(stmt, 25);
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 26));
	ret->attached = sqlite3_column_int(stmt, 27) != 0;
	ret->asleep = sqlite3_column_int(stmt, 28) != 0;
	ret->address = (uint32_t)sqlite3_column_int64(stmt, 29);
	ret->run_address = (uint32_t)sqlite3_column_int64(stmt, 30);
	return ret->spec && ret->image_config ? 0 : error_set(err, ENOMEM, "out of memory");
}

int store_machines_each(
	struct store *store, int (*fn)(void *ctx, struct machine_record *record), void *ctx, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, MACHINES);
	int step, r = 0;

	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct machine_record record = {0};

		r = step == SQLITE_ROW ? read_machine(stmt, &record, err) : store_fail(store, err);
		if (r < 0)
			machine_record_done(&record);
		else
			r = fn(ctx, &record);
	}
	sqlite3_reset(stmt);
	return r;
}
