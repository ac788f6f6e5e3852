/* Sealed secrets in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void secret_record_done(struct secret_record *record)
{
	free(record->sealed);
	*record = (struct secret_record){0};
}

int store_secret_put(struct store *store, const struct secret_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, record->sealed_len, err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, SECRET_PUT);
	store_bind_text(stmt, 1, record->project);
	store_bind_text(stmt, 2, record->name);
	sqlite3_bind_blob(stmt, 3, record->sealed, (int)record->sealed_len, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 4, record->created_at);
	sqlite3_bind_int64(stmt, 5, record->updated_at);
	return store_commit(store, stmt, err);
}

static void read_secret(sqlite3_stmt *stmt, struct secret_record *ret)
{
	*ret = (struct secret_record){.created_at = sqlite3_column_int64(stmt, 2), .updated_at = sqlite3_column_int64(stmt, 3)};
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 0));
	snprintf(ret->name, sizeof(ret->name), "%s", store_column(stmt, 1));
}

static int read_sealed(sqlite3_stmt *stmt, struct secret_record *ret, struct error *err)
{
	const void *sealed = sqlite3_column_blob(stmt, 4);

	ret->sealed_len = (size_t)sqlite3_column_bytes(stmt, 4);
	ret->sealed = malloc(ret->sealed_len ? ret->sealed_len : 1);
	if (!sealed || !ret->sealed) {
		secret_record_done(ret);
		return error_set(err, ENOMEM, "out of memory");
	}
	memcpy(ret->sealed, sealed, ret->sealed_len);
	return 0;
}

int store_secret_get(
	struct store *store, const char *project, const char *name, struct secret_record *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, SECRET_GET);
	int step, r;

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, name);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW) {
		read_secret(stmt, ret);
		r = read_sealed(stmt, ret, err);
	} else {
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no secret \"%s\"", name) : store_fail(store, err);
	}
	sqlite3_reset(stmt);
	return r;
}

int store_secret_delete(struct store *store, const char *project, const char *name, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, SECRET_DELETE);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, name);
	return store_commit_one(store, stmt, "secret", err);
}

int store_secrets_each(struct store *store, const char *project, int (*fn)(void *ctx, const struct secret_record *record), void *ctx,
	struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, SECRETS);
	int step, r = 0;

	store_bind_text(stmt, 1, project);
	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct secret_record record;

		if (step != SQLITE_ROW) {
			r = store_fail(store, err);
			break;
		}
		read_secret(stmt, &record);
		r = fn(ctx, &record);
	}
	sqlite3_reset(stmt);
	return r;
}
