/* Networks in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void network_record_done(struct network_record *record)
{
	free(record->spec);
	*record = (struct network_record){.id = ""};
}

int store_network_insert(struct store *store, const struct network_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->spec), err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, NETWORK_INSERT);
	store_bind_text(stmt, 1, record->project);
	store_bind_text(stmt, 2, record->name);
	store_bind_text(stmt, 3, record->id);
	store_bind_text(stmt, 4, record->spec);
	sqlite3_bind_int64(stmt, 5, record->created_at);
	return store_commit(store, stmt, err);
}

int store_network_update(struct store *store, const struct network_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->spec), err) < 0)
		return -err->errnum;
	stmt = store_begin(store, NETWORK_UPDATE);
	store_bind_text(stmt, 1, record->project);
	store_bind_text(stmt, 2, record->name);
	store_bind_text(stmt, 3, record->spec);
	return store_commit_one(store, stmt, "network", err);
}

int store_network_delete(struct store *store, const char *project, const char *name, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, NETWORK_DELETE);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, name);
	return store_commit_one(store, stmt, "network", err);
}

static int read_network(sqlite3_stmt *stmt, struct network_record *ret, struct error *err)
{
	*ret = (struct network_record){.spec = strdup(store_column(stmt, 3)), .created_at = sqlite3_column_int64(stmt, 4)};
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 0));
	snprintf(ret->name, sizeof(ret->name), "%s", store_column(stmt, 1));
	snprintf(ret->id, sizeof(ret->id), "%s", store_column(stmt, 2));
	return ret->spec ? 0 : error_set(err, ENOMEM, "out of memory");
}

int store_network_get(struct store *store, const char *project, const char *name, struct network_record *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, NETWORK_GET);
	int step, r;

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, name);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		r = read_network(stmt, ret, err);
	else
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no network \"%.63s\"", name) : store_fail(store, err);
	sqlite3_reset(stmt);
	return r;
}

int store_networks_each(struct store *store, const char *project, int (*fn)(void *ctx, const struct network_record *record), void *ctx,
	struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, NETWORKS);
	int step, r = 0;

	if (project)
		store_bind_text(stmt, 1, project);
	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct network_record record = {.id = ""};

		r = step == SQLITE_ROW ? read_network(stmt, &record, err) : store_fail(store, err);
		if (r == 0)
			r = fn(ctx, &record);
		network_record_done(&record);
	}
	sqlite3_reset(stmt);
	return r;
}
