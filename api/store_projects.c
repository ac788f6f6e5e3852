/* Projects in SQLite, and which of them have which blobs. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Blobs. */

int store_blob_own(
	struct store *store, const char *project, const char *digest, int64_t size_bytes, int64_t at, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, BLOB_OWN);

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
		[STORE_CERTIFICATES] = CERTIFICATES_COUNT, [STORE_SECRETS] = SECRETS_COUNT};
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
	sqlite3_stmt *stmt = store_begin(store, PROJECT_INSERT);

	store_bind_text(stmt, 1, record->name);
	store_bind_text(stmt, 2, record->quotas);
	sqlite3_bind_int64(stmt, 3, record->created_at);
	return store_commit(store, stmt, err);
}

int store_project_update(struct store *store, const struct project_record *record, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, PROJECT_UPDATE);

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

/* All that is a project's own but its machines, in an order that a reader sees no half of. */
static const char *const project_tables[] = {"images WHERE project", "blob_owners WHERE project", "requests WHERE project",
	"tokens WHERE project", "secrets WHERE project", "certificates WHERE project", "webhooks WHERE project", "operations WHERE project",
	/* the events of all this, too */
	"events WHERE project", "event_cursors WHERE project", "projects WHERE name"};

static int delete_rows(struct store *store, const char *name, struct error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(project_tables); i++) {
		char *sql = sqlite3_mprintf("DELETE FROM %s = %Q", project_tables[i], name);

		r = sql ? store_run(store, sql, err) : error_set(err, ENOMEM, "out of memory");
		sqlite3_free(sql);
	}
	return r == 0 && sqlite3_changes(store->db) == 0 ? error_set(err, ENOENT, "there is no project \"%s\"", name) : r;
}

int store_project_delete(struct store *store, const char *name, struct error *err)
{
	int r = store_transaction_begin(store, err);

	return r < 0 ? r : store_transaction_end(store, delete_rows(store, name, err), err);
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
