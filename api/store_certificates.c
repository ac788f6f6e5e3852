/* Certificates that were given, with their sealed keys, in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void certificate_record_done(struct certificate_record *record)
{
	free(record->certificate);
	free(record->sealed);
	*record = (struct certificate_record){0};
}

int store_certificate_put(struct store *store, const struct certificate_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->certificate) + record->sealed_len, err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, CERTIFICATE_PUT);
	store_bind_text(stmt, 1, record->project);
	store_bind_text(stmt, 2, record->hostname);
	store_bind_text(stmt, 3, record->certificate);
	sqlite3_bind_blob(stmt, 4, record->sealed, (int)record->sealed_len, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 5, record->created_at);
	sqlite3_bind_int64(stmt, 6, record->updated_at);
	sqlite3_bind_int64(stmt, 7, record->expires_at);
	return store_commit(store, stmt, err);
}

static void read_certificate(sqlite3_stmt *stmt, struct certificate_record *ret)
{
	const void *sealed = sqlite3_column_blob(stmt, 3);

	*ret = (struct certificate_record){.sealed_len = (size_t)sqlite3_column_bytes(stmt, 3),
		.created_at = sqlite3_column_int64(stmt, 4), .updated_at = sqlite3_column_int64(stmt, 5),
		.expires_at = sqlite3_column_int64(stmt, 6)};
	snprintf(ret->refused, sizeof(ret->refused), "%s", store_column(stmt, 7));
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 0));
	snprintf(ret->hostname, sizeof(ret->hostname), "%s", store_column(stmt, 1));
	ret->certificate = strdup(store_column(stmt, 2));
	ret->sealed = malloc(ret->sealed_len + 1);
	if (!ret->certificate || !ret->sealed)
		abort();
	if (sealed)
		memcpy(ret->sealed, sealed, ret->sealed_len);
}

/* Resets `stmt`. */
static int get_one(struct store *store, sqlite3_stmt *stmt, const char *hostname, struct certificate_record *ret, struct error *err)
{
	int step = sqlite3_step(stmt), r = 0;

	if (step == SQLITE_ROW)
		read_certificate(stmt, ret);
	else
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no certificate for \"%.100s\"", hostname) : store_fail(store, err);
	sqlite3_reset(stmt);
	return r;
}

int store_certificate_get(
	struct store *store, const char *project, const char *hostname, struct certificate_record *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, CERTIFICATE_GET);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, hostname);
	return get_one(store, stmt, hostname, ret, err);
}

int store_certificate_get_undated(struct store *store, struct certificate_record *ret, struct error *err)
{
	return get_one(store, store_begin(store, CERTIFICATE_UNDATED), "", ret, err);
}

int store_certificate_set_date(
	struct store *store, const char *project, const char *hostname, int64_t expires_at, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, CERTIFICATE_DATE);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, hostname);
	sqlite3_bind_int64(stmt, 3, expires_at);
	return store_commit_one(store, stmt, "certificate", err);
}

int store_certificate_refuse(struct store *store, const char *project, const char *hostname, const char *reason, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, CERTIFICATE_REFUSE);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, hostname);
	store_bind_text(stmt, 3, reason);
	return store_commit_one(store, stmt, "certificate", err);
}

int store_certificate_delete(struct store *store, const char *project, const char *hostname, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, CERTIFICATE_DELETE);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, hostname);
	return store_commit_one(store, stmt, "certificate", err);
}

int store_certificates_each(struct store *store, const char *project, const char *after,
	int (*fn)(void *ctx, const struct certificate_record *record), void *ctx, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, CERTIFICATES);
	int step, r = 0;

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, after);
	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct certificate_record record;

		if (step != SQLITE_ROW) {
			r = store_fail(store, err);
			break;
		}
		read_certificate(stmt, &record);
		r = fn(ctx, &record);
		certificate_record_done(&record);
	}
	sqlite3_reset(stmt);
	return r;
}
