/* The host's own row. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <string.h>

const char *const host_state_names[] = {
	[HOST_SERVING] = "serving",
	[HOST_DRAINING] = "draining",
	[HOST_DRAINED] = "drained",
	NULL,
};

int store_host_get(struct store *store, struct host_record *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, HOST_GET);
	int r = 0;

	if (sqlite3_step(stmt) != SQLITE_ROW) {
		r = store_fail(store, err);
	} else {
		const char *state = store_column(stmt, 0);

		*ret = (struct host_record){.drain_since = sqlite3_column_int64(stmt, 1), .drain_until = sqlite3_column_int64(stmt, 2),
			.drain_machines = sqlite3_column_int64(stmt, 3)};
		while (host_state_names[ret->state] && strcmp(host_state_names[ret->state], state) != 0)
			ret->state++;
		if (!host_state_names[ret->state])
			r = error_set(err, EINVAL, "the host has the unknown state %s", state);
	}
	sqlite3_reset(stmt);
	return r;
}

int store_host_set(struct store *store, const struct host_record *record, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, HOST_SET);

	store_bind_text(stmt, 1, host_state_names[record->state]);
	sqlite3_bind_int64(stmt, 2, record->drain_since);
	sqlite3_bind_int64(stmt, 3, record->drain_until);
	sqlite3_bind_int64(stmt, 4, record->drain_machines);
	return store_commit(store, stmt, err);
}
