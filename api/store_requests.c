/* Requests with a key, and their answers, in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void kept_request_done(struct kept_request *kept)
{
	free(kept->type);
	free(kept->body);
	*kept = (struct kept_request){0};
}

static int read_request(sqlite3_stmt *stmt, struct kept_request *ret, struct error *err)
{
	snprintf(ret->digest, sizeof(ret->digest), "%s", store_column(stmt, 0));
	ret->begun_at = sqlite3_column_int64(stmt, 1);
	ret->status = sqlite3_column_int(stmt, 2);
	ret->number = sqlite3_column_int64(stmt, 5);
	ret->type = strdup(store_column(stmt, 3));
	ret->body = strdup(store_column(stmt, 4));
	if (ret->type && ret->body)
		return 0;
	kept_request_done(ret);
	return error_set(err, ENOMEM, "out of memory");
}

int store_request_get(struct store *store, const char *project, const char *key, const char *hidden, struct kept_request *ret,
	struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, REQUEST_GET);
	int step, r;

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, key);
	store_bind_text(stmt, 3, hidden);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		r = read_request(stmt, ret, err);
	else
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no such request") : store_fail(store, err);
	sqlite3_reset(stmt);
	return r;
}

int store_request_begin(struct store *store, const char *project, const char *key, const char *digest, int64_t number,
	int64_t begun_at, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, REQUEST_BEGIN);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, key);
	store_bind_text(stmt, 3, digest);
	sqlite3_bind_int64(stmt, 4, begun_at);
	sqlite3_bind_int64(stmt, 5, number);
	return store_commit(store, stmt, err);
}

int store_request_answer(struct store *store, const char *project, const char *key, int status, const char *type,
	const char *body, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, REQUEST_ANSWER);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, key);
	sqlite3_bind_int(stmt, 3, status);
	store_bind_text(stmt, 4, type);
	store_bind_text(stmt, 5, body);
	return store_commit_one(store, stmt, "request", err);
}

int store_request_forget(struct store *store, const char *project, const char *key, const char *hidden, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, REQUEST_FORGET);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, key);
	store_bind_text(stmt, 3, hidden);
	return store_commit_one(store, stmt, "request", err);
}

int store_requests_trim(struct store *store, const char *project, int64_t kept, int64_t max, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, REQUESTS_TRIM);

	store_bind_text(stmt, 1, project);
	sqlite3_bind_int64(stmt, 2, kept);
	sqlite3_bind_int64(stmt, 3, max);
	return store_commit_some(store, stmt, err);
}

int store_requests_prune(struct store *store, int64_t before, int64_t now, int64_t max, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, REQUESTS_PRUNE);
	int n;

	sqlite3_bind_int64(stmt, 1, before);
	sqlite3_bind_int64(stmt, 2, max);
	n = store_commit_some(store, stmt, err);
	if (n != 0)
		return n;
	stmt = store_begin(store, REQUESTS_SET_BACK);
	sqlite3_bind_int64(stmt, 1, now);
	sqlite3_bind_int64(stmt, 2, max);
	return store_commit_some(store, stmt, err);
}
