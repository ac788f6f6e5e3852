/* Tokens in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <string.h>

int store_token_insert(struct store *store, const struct token_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, 0, err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, TOKEN_INSERT);
	store_bind_text(stmt, 1, record->id);
	store_bind_text(stmt, 2, record->project);
	store_bind_text(stmt, 3, record->label);
	store_bind_text(stmt, 4, record->hash);
	sqlite3_bind_int64(stmt, 5, record->scopes);
	sqlite3_bind_int64(stmt, 6, record->created_at);
	sqlite3_bind_int64(stmt, 7, record->expires_at);
	sqlite3_bind_int64(stmt, 8, record->last_used_at);
	return store_commit(store, stmt, err);
}

static void read_token(sqlite3_stmt *stmt, struct token_record *ret)
{
	*ret = (struct token_record){.scopes = (unsigned)sqlite3_column_int64(stmt, 4), .created_at = sqlite3_column_int64(stmt, 5),
		.expires_at = sqlite3_column_int64(stmt, 6), .last_used_at = sqlite3_column_int64(stmt, 7)};
	snprintf(ret->id, sizeof(ret->id), "%s", store_column(stmt, 0));
	snprintf(ret->project, sizeof(ret->project), "%s", store_column(stmt, 1));
	snprintf(ret->label, sizeof(ret->label), "%s", store_column(stmt, 2));
	snprintf(ret->hash, sizeof(ret->hash), "%s", store_column(stmt, 3));
}

int store_token_get(struct store *store, const char *id, struct token_record *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, TOKEN_GET);
	int step, r = 0;

	store_bind_text(stmt, 1, id);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		read_token(stmt, ret);
	else
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no such token") : store_fail(store, err);
	sqlite3_reset(stmt);
	return r;
}

int store_token_used(struct store *store, const char *id, int64_t at, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, TOKEN_USED);

	store_bind_text(stmt, 1, id);
	sqlite3_bind_int64(stmt, 2, at);
	return store_commit_one(store, stmt, "token", err);
}

int store_token_delete(struct store *store, const char *id, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, TOKEN_DELETE);

	store_bind_text(stmt, 1, id);
	return store_commit_one(store, stmt, "token", err);
}

int store_tokens_each(struct store *store, const char *project, int (*fn)(void *ctx, const struct token_record *record), void *ctx,
	struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, TOKENS);
	int step, r = 0;

	store_bind_text(stmt, 1, project);
	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct token_record record;

		if (step != SQLITE_ROW) {
			r = store_fail(store, err);
			break;
		}
		read_token(stmt, &record);
		r = fn(ctx, &record);
	}
	sqlite3_reset(stmt);
	return r;
}

int64_t store_tokens_count(struct store *store, const char *project, unsigned scopes, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, TOKENS_COUNT);

	store_bind_text(stmt, 1, project);
	sqlite3_bind_int64(stmt, 2, scopes);
	return store_number(store, stmt, err);
}

int store_tokens_make_room(struct store *store, const char *project, unsigned scopes, int64_t now, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, TOKENS_MAKE_ROOM);

	store_bind_text(stmt, 1, project);
	sqlite3_bind_int64(stmt, 2, scopes);
	sqlite3_bind_int64(stmt, 3, now);
	return store_commit_some(store, stmt, err);
}

int store_tokens_prune(struct store *store, int64_t before, int64_t max, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, TOKENS_PRUNE);

	sqlite3_bind_int64(stmt, 1, before);
	sqlite3_bind_int64(stmt, 2, max);
	return store_commit_some(store, stmt, err);
}
