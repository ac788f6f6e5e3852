/* Projects in SQLite, and which of them have which blobs. See store.h. */
#include "api/store_private.h"

#include "common/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Blobs. */

int store_blob_own(
	struct store *store, const char *project, const char *digest, int64_t size_bytes, int64_t at, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, 0, err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, BLOB_OWN);
	store_bind_text(stmt, 1, digest);
	store_bind_text(stmt, 2, project);
	sqlite3_bind_int64(stmt, 3, size_bytes);
	sqlite3_bind_int64(stmt, 4, at);
	return store_commit(store, stmt, err);
}

int store_blob_is_owned(struct store *store, const char *project, const char *digest, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, BLOB_IS_OWNED);

	store_bind_text(stmt, 1, digest);
	store_bind_text(stmt, 2, project);
	return (int)store_number(store, stmt, err);
}

/* `project` NULL: all. */
static int disown(struct store *store, const char *project, const char *digest, int64_t before, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, BLOB_DISOWN);

	store_bind_text(stmt, 1, digest);
	if (project)
		store_bind_text(stmt, 2, project);
	sqlite3_bind_int64(stmt, 3, before);
	return store_commit(store, stmt, err);
}

int store_blob_disown(struct store *store, const char *project, const char *digest, int64_t before, struct error *err)
{
	return disown(store, project, digest, before, err);
}

int store_blob_disown_all(struct store *store, const char *digest, int64_t before, struct error *err)
{
	return disown(store, NULL, digest, before, err);
}

int store_count_blob_owners(struct store *store, const char *digest, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, BLOB_OWNERS);

	store_bind_text(stmt, 1, digest);
	return (int)store_number(store, stmt, err);
}

int64_t store_count(struct store *store, enum store_kind kind, const char *project, struct error *err)
{
	static const unsigned statements[STORE_N_KINDS] = {
		[STORE_CERTIFICATES] = CERTIFICATES_COUNT, [STORE_IMAGES] = IMAGES_COUNT, [STORE_SECRETS] = SECRETS_COUNT,
		[STORE_VOLUMES] = VOLUMES_COUNT};
	sqlite3_stmt *stmt = store_begin(store, statements[kind]);

	store_bind_text(stmt, 1, project);
	return store_number(store, stmt, err);
}

int64_t store_blob_bytes(struct store *store, const char *project, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, BLOB_BYTES);

	store_bind_text(stmt, 1, project);
	return store_number(store, stmt, err);
}

/* Projects. */

void project_record_done(struct project_record *record)
{
	free(record->quotas);
	*record = (struct project_record){0};
}

int store_project_insert(struct store *store, const struct project_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->quotas), err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, PROJECT_IS_DEPARTED);
	store_bind_text(stmt, 1, record->name);
	if (store_number(store, stmt, err) > 0)
		return error_set(err, EBUSY, "what a deleted project \"%s\" has left is not all gone yet", record->name);
	stmt = store_begin(store, PROJECT_INSERT);
	store_bind_text(stmt, 1, record->name);
	store_bind_text(stmt, 2, record->quotas);
	sqlite3_bind_int64(stmt, 3, record->created_at);
	return store_commit(store, stmt, err);
}

int store_project_update(struct store *store, const struct project_record *record, struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(record->quotas), err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, PROJECT_UPDATE);
	store_bind_text(stmt, 1, record->name);
	store_bind_text(stmt, 2, record->quotas);
	return store_commit_one(store, stmt, "project", err);
}

static int read_project(sqlite3_stmt *stmt, struct project_record *ret, struct error *err)
{
	*ret = (struct project_record){.quotas = strdup(store_column(stmt, 1)), .created_at = sqlite3_column_int64(stmt, 2)};
	snprintf(ret->name, sizeof(ret->name), "%s", store_column(stmt, 0));
	return ret->quotas ? 0 : error_set(err, ENOMEM, "out of memory");
}

int store_project_get(struct store *store, const char *name, struct project_record *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, PROJECT_GET);
	int step, r;

	store_bind_text(stmt, 1, name);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		r = read_project(stmt, ret, err);
	else
		r = step == SQLITE_DONE ? error_set(err, ENOENT, "there is no project \"%s\"", name) : store_fail(store, err);
	sqlite3_reset(stmt);
	return r;
}

/* What a project has much of, which goes by and by: SQLite overwrites each page, and an answer may have many. */
static const struct {
	enum store_statement which;
	int64_t max; /* rows in a step */
} departed[] = {{DEPARTED_REQUESTS, 32}, {DEPARTED_IMAGES, 64}, {DEPARTED_OPERATIONS, 64}, {DEPARTED_EVENTS, 250}};

/* What it has little of, or what would be found without it. Also what goes is events, whose cursor is the last to go. */
static const char *const project_tables[] = {"tokens WHERE project", "webhooks WHERE project", "secrets WHERE project", "networks WHERE project",
	"certificates WHERE project", "blob_owners WHERE project", "projects WHERE name"};

static int forget_some(struct store *store, struct error *err)
{
	int n = 0, sum = 0;

	for (size_t i = 0; n >= 0 && i < ARRAY_SIZE(departed); i++) {
		sqlite3_stmt *stmt = store_begin(store, departed[i].which);

		sqlite3_bind_int64(stmt, 1, departed[i].max);
		n = store_commit_some(store, stmt, err);
		sum += n;
	}
	if (n < 0 || sum)
		return n < 0 ? n : sum;
	n = store_commit(store, store_begin(store, DEPARTED_CURSORS), err);
	return n < 0 ? n : store_commit(store, store_begin(store, DEPARTED_FORGET), err);
}

int store_projects_forget(struct store *store, struct error *err)
{
	int n, r = store_transaction_begin(store, err);

	if (r < 0)
		return r;
	n = forget_some(store, err);
	r = store_transaction_end(store, n < 0 ? n : 0, err);
	return r < 0 ? r : n;
}

static int depart(struct store *store, const char *name, struct error *err)
{
	sqlite3_stmt *stmt;
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(project_tables); i++) {
		char *sql = sqlite3_mprintf("DELETE FROM %s = %Q", project_tables[i], name);

		r = sql ? store_run(store, sql, err) : error_set(err, ENOMEM, "out of memory");
		sqlite3_free(sql);
	}
	if (r == 0 && sqlite3_changes(store->db) == 0)
		r = error_set(err, ENOENT, "there is no project \"%s\"", name);
	if (r < 0)
		return r;
	stmt = store_begin(store, PROJECT_DEPART);
	store_bind_text(stmt, 1, name);
	return store_commit(store, stmt, err);
}

int store_project_delete(struct store *store, const char *name, uint64_t for_ns, struct error *err)
{
	uint64_t end = process_cpu_ns() + for_ns;
	int n, r = store_transaction_begin(store, err);

	if (r < 0)
		return r;
	n = depart(store, name, err);
	if (n == 0)
		do {
			n = forget_some(store, err);
		} while (n > 0 && process_cpu_ns() < end);
	return store_transaction_end(store, n < 0 ? n : 0, err);
}

int store_projects_each(
	struct store *store, int (*fn)(void *ctx, struct project_record *record), void *ctx, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, PROJECTS);
	int step, r = 0;

	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct project_record record = {0};

		r = step == SQLITE_ROW ? read_project(stmt, &record, err) : store_fail(store, err);
		if (r == 0)
			r = fn(ctx, &record);
		else
			project_record_done(&record);
	}
	sqlite3_reset(stmt);
	return r;
}
