/* Operations in SQLite. See store.h. Their events are made by the triggers of store_events.c. */
#include "api/store_private.h"

#include "api/operation.h"

#include <errno.h>
#include <string.h>

static sqlite3_stmt *begin(struct store *store, enum store_statement which, const struct operation_record *record)
{
	sqlite3_stmt *stmt = store_begin(store, which);

	store_bind_text(stmt, 1, record->id);
	store_bind_text(stmt, 2, record->project);
	store_bind_text(stmt, 3, record->machine);
	store_bind_text(stmt, 4, record->name);
	store_bind_text(stmt, 5, operation_kind_names[record->kind]);
	store_bind_text(stmt, 6, operation_state_names[record->state]);
	store_bind_text(stmt, 7, record->phase);
	store_bind_text(stmt, 8, record->phases);
	sqlite3_bind_int64(stmt, 9, record->deadline);
	sqlite3_bind_int64(stmt, 10, record->created_at);
	sqlite3_bind_int64(stmt, 11, record->ended_at);
	store_bind_text(stmt, 12, record->error);
	store_bind_text(stmt, 13, record->requested_by);
	store_bind_text(stmt, 14, record->cancelled_by);
	sqlite3_bind_int64(stmt, 15, record->plan);
	sqlite3_bind_int(stmt, 16, record->reached);
	return stmt;
}

int store_operation_put(struct store *store, const struct operation_record *record, struct error *err)
{
	sqlite3_stmt *insert;
	int r = store_commit(store, begin(store, OPERATION_UPDATE, record), err);

	if (r < 0 || sqlite3_changes(store->db))
		return r;
	insert = begin(store, OPERATION_INSERT, record);
	sqlite3_bind_int64(insert, 17, record->request);
	return store_commit(store, insert, err);
}

static int index_of(const char *name, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

static int read_operation(sqlite3_stmt *stmt, struct operation_record *ret, struct error *err)
{
	*ret = (struct operation_record){.kind = index_of(store_column(stmt, 4), operation_kind_names),
		.state = index_of(store_column(stmt, 5), operation_state_names), .phases = store_column(stmt, 7),
		.deadline = sqlite3_column_int64(stmt, 8), .created_at = sqlite3_column_int64(stmt, 9),
		.ended_at = sqlite3_column_int64(stmt, 10), .error = store_column(stmt, 11),
		.plan = sqlite3_column_int64(stmt, 14), .reached = sqlite3_column_int(stmt, 15)};
	snprintf(ret->id, sizeof(ret->id), "%s", store_column(stmt, 0));
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 1));
	snprintf(ret->machine, sizeof(ret->machine), "%s", store_column(stmt, 2));
	snprintf(ret->name, sizeof(ret->name), "%s", store_column(stmt, 3));
	snprintf(ret->phase, sizeof(ret->phase), "%s", store_column(stmt, 6));
	snprintf(ret->requested_by, sizeof(ret->requested_by), "%s", store_column(stmt, 12));
	snprintf(ret->cancelled_by, sizeof(ret->cancelled_by), "%s", store_column(stmt, 13));
	if (ret->kind < 0 || ret->state < 0)
		return error_set(err, EINVAL, "operation %s has the unknown kind %s, or state %s", ret->id, store_column(stmt, 4),
			store_column(stmt, 5));
	return 0;
}

/* Resets `stmt`. */
static int each(struct store *store, sqlite3_stmt *stmt, int (*fn)(void *ctx, const struct operation_record *record), void *ctx,
	struct error *err)
{
	int step, r = 0;

	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct operation_record record;

		r = step == SQLITE_ROW ? read_operation(stmt, &record, err) : store_fail(store, err);
		if (r == 0)
			r = fn(ctx, &record);
	}
	sqlite3_reset(stmt);
	return r;
}

int store_operations_each(struct store *store, const char *project, int64_t after_at, const char *after_id,
	int (*fn)(void *ctx, const struct operation_record *record), void *ctx, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, OPERATIONS);

	store_bind_text(stmt, 1, project);
	sqlite3_bind_int64(stmt, 2, after_at);
	store_bind_text(stmt, 3, after_id);
	return each(store, stmt, fn, ctx, err);
}

int store_operations_running(
	struct store *store, int (*fn)(void *ctx, const struct operation_record *record), void *ctx, struct error *err)
{
	return each(store, store_begin(store, OPERATIONS_RUNNING), fn, ctx, err);
}

int store_operation_get(struct store *store, const char *project, const char *id,
	int (*fn)(void *ctx, const struct operation_record *record), void *ctx, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, OPERATION_GET);
	struct operation_record record;
	int step, r;

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, id);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		r = read_operation(stmt, &record, err);
	else
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no operation \"%s\"", id) : store_fail(store, err);
	if (r == 0)
		r = fn(ctx, &record);
	sqlite3_reset(stmt);
	return r;
}

int store_operation_of_request(struct store *store, int64_t number, char ret[OPERATION_ID_BYTES + 1], struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, OPERATION_OF_REQUEST);
	int step, r = 0;

	sqlite3_bind_int64(stmt, 1, number);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		r = snprintf(ret, OPERATION_ID_BYTES + 1, "%s", store_column(stmt, 0)) > 0;
	else if (step != SQLITE_DONE)
		r = store_fail(store, err);
	sqlite3_reset(stmt);
	return r;
}

int store_operations_end_orphans(struct store *store, int64_t at, const char *error, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, OPERATIONS_END_ORPHANS);

	sqlite3_bind_int64(stmt, 1, at);
	store_bind_text(stmt, 2, error);
	return store_commit(store, stmt, err);
}

int store_operations_prune(struct store *store, int64_t before, int64_t max, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, OPERATIONS_PRUNE);

	sqlite3_bind_int64(stmt, 1, before);
	sqlite3_bind_int64(stmt, 2, max);
	return store_commit_some(store, stmt, err);
}

int store_operations_trim(struct store *store, const char *project, int64_t kept, int64_t max, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, OPERATIONS_TRIM);

	store_bind_text(stmt, 1, project);
	sqlite3_bind_int64(stmt, 2, kept);
	sqlite3_bind_int64(stmt, 3, max);
	return store_commit_some(store, stmt, err);
}
