/* Volumes in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void volume_record_done(struct volume_record *record)
{
	free(record->labels);
	*record = (struct volume_record){0};
}

int store_volume_insert(struct store *store, const struct volume_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->labels), err) < 0)
		return -err->errnum;
	stmt = store_begin(store, VOLUME_INSERT);
	store_bind_text(stmt, 1, record->id);
	store_bind_text(stmt, 2, record->project);
	store_bind_text(stmt, 3, record->name);
	sqlite3_bind_int64(stmt, 4, record->size_mib);
	store_bind_text(stmt, 5, record->labels);
	sqlite3_bind_int64(stmt, 6, record->created_at);
	sqlite3_bind_int64(stmt, 7, record->updated_at);
	return store_commit(store, stmt, err);
}

int store_volume_update(struct store *store, const struct volume_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->labels), err) < 0)
		return -err->errnum;
	stmt = store_begin(store, VOLUME_UPDATE);
	store_bind_text(stmt, 1, record->id);
	sqlite3_bind_int64(stmt, 2, record->size_mib);
	store_bind_text(stmt, 3, record->labels);
	sqlite3_bind_int64(stmt, 4, record->updated_at);
	return store_commit_one(store, stmt, "volume", err);
}

static int read_volume(sqlite3_stmt *stmt, struct volume_record *ret, struct error *err)
{
	*ret = (struct volume_record){.size_mib = sqlite3_column_int64(stmt, 3), .labels = strdup(store_column(stmt, 4)),
		.created_at = sqlite3_column_int64(stmt, 5), .updated_at = sqlite3_column_int64(stmt, 6)};
	snprintf(ret->id, sizeof(ret->id), "%s", store_column(stmt, 0));
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 1));
	snprintf(ret->name, sizeof(ret->name), "%s", store_column(stmt, 2));
	return ret->labels ? 0 : error_set(err, ENOMEM, "out of memory");
}

int store_volume_get(struct store *store, const char *project, const char *id_or_name, struct volume_record *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, VOLUME_GET);
	int step, r;

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, id_or_name);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		r = read_volume(stmt, ret, err);
	else
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no volume \"%s\"", id_or_name) : store_fail(store, err);
	sqlite3_reset(stmt);
	return r;
}

int store_volume_delete(struct store *store, const char *id, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, VOLUME_DELETE);

	store_bind_text(stmt, 1, id);
	return store_commit_one(store, stmt, "volume", err);
}

int store_volume_has(struct store *store, const char *id, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, VOLUME_HAS);

	store_bind_text(stmt, 1, id);
	return (int)store_number(store, stmt, err);
}

int store_volumes_each(struct store *store, const char *project, int (*fn)(void *ctx, struct volume_record *record), void *ctx,
	struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, VOLUMES);
	int step, r = 0;

	if (project)
		store_bind_text(stmt, 1, project);
	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct volume_record record = {.size_mib = 0};

		r = step == SQLITE_ROW ? read_volume(stmt, &record, err) : store_fail(store, err);
		if (r == 0)
			r = fn(ctx, &record);
		else
			volume_record_done(&record);
	}
	sqlite3_reset(stmt);
	return r;
}

int64_t store_volumes_mib(struct store *store, const char *project, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, VOLUMES_MIB);

	if (project)
		store_bind_text(stmt, 1, project);
	return store_number(store, stmt, err);
}
