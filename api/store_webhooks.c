/* Webhooks in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void webhook_record_done(struct webhook_record *record)
{
	free(record->spec);
	free(record->sealed);
	*record = (struct webhook_record){.id = ""};
}

static void bind_progress(sqlite3_stmt *stmt, const struct webhook_record *record)
{
	store_bind_text(stmt, 1, record->id);
	sqlite3_bind_int64(stmt, 2, record->cursor);
	sqlite3_bind_int64(stmt, 3, record->missed);
	sqlite3_bind_int64(stmt, 4, record->failures);
	sqlite3_bind_int64(stmt, 5, record->failing_since);
	sqlite3_bind_int64(stmt, 6, record->next_attempt_at);
	sqlite3_bind_int64(stmt, 7, record->last_attempt_at);
	sqlite3_bind_int64(stmt, 8, record->last_delivered_at);
	sqlite3_bind_int(stmt, 9, record->last_status);
	store_bind_text(stmt, 10, record->last_error);
	store_bind_text(stmt, 11, record->disabled_reason);
}

static void bind_all(sqlite3_stmt *stmt, const struct webhook_record *record)
{
	bind_progress(stmt, record);
	store_bind_text(stmt, 12, record->spec);
	sqlite3_bind_blob(stmt, 13, record->sealed, (int)record->sealed_len, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 14, record->updated_at);
}

int store_webhook_insert(struct store *store, const struct webhook_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->spec), err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, WEBHOOK_INSERT);
	bind_all(stmt, record);
	store_bind_text(stmt, 15, record->project);
	sqlite3_bind_int64(stmt, 16, record->created_at);
	return store_commit(store, stmt, err);
}

int store_webhook_respecify(struct store *store, const struct webhook_record *record, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, WEBHOOK_RESPECIFY);

	bind_all(stmt, record);
	return store_commit_one(store, stmt, "webhook", err);
}

int store_webhooks_progress(struct store *store, const struct webhook_record *const *records, size_t n, struct error *err)
{
	int r = store_transaction_begin(store, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++) {
		sqlite3_stmt *stmt = store_begin(store, WEBHOOK_PROGRESS);

		bind_progress(stmt, records[i]);
		r = store_commit(store, stmt, err);
	}
	return store_transaction_end(store, r, err);
}

int store_webhook_delete(struct store *store, const char *id, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, WEBHOOK_DELETE);

	store_bind_text(stmt, 1, id);
	return store_commit_one(store, stmt, "webhook", err);
}

static int read_webhook(sqlite3_stmt *stmt, struct webhook_record *ret, struct error *err)
{
	const void *sealed = sqlite3_column_blob(stmt, 12);

	*ret = (struct webhook_record){.cursor = sqlite3_column_int64(stmt, 1), .missed = sqlite3_column_int64(stmt, 2),
		.failures = sqlite3_column_int64(stmt, 3), .failing_since = sqlite3_column_int64(stmt, 4),
		.next_attempt_at = sqlite3_column_int64(stmt, 5), .last_attempt_at = sqlite3_column_int64(stmt, 6),
		.last_delivered_at = sqlite3_column_int64(stmt, 7), .last_status = sqlite3_column_int(stmt, 8),
		.spec = strdup(store_column(stmt, 11)), .sealed_len = (size_t)sqlite3_column_bytes(stmt, 12),
		.updated_at = sqlite3_column_int64(stmt, 13), .created_at = sqlite3_column_int64(stmt, 15)};
	snprintf(ret->id, sizeof(ret->id), "%s", store_column(stmt, 0));
	snprintf(ret->last_error, sizeof(ret->last_error), "%s", store_column(stmt, 9));
	snprintf(ret->disabled_reason, sizeof(ret->disabled_reason), "%s", store_column(stmt, 10));
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 14));
	ret->sealed = malloc(ret->sealed_len + 1);
	if (!sealed || !ret->spec || !ret->sealed) {
		webhook_record_done(ret);
		return error_set(err, ENOMEM, "out of memory");
	}
	memcpy(ret->sealed, sealed, ret->sealed_len);
	return 0;
}

int store_webhooks_each(struct store *store, int (*fn)(void *ctx, struct webhook_record *record), void *ctx, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, WEBHOOKS);
	int step, r = 0;

	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct webhook_record record = {.id = ""};

		r = step == SQLITE_ROW ? read_webhook(stmt, &record, err) : store_fail(store, err);
		if (r == 0)
			r = fn(ctx, &record);
	}
	sqlite3_reset(stmt);
	return r;
}
