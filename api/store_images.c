/* Images in SQLite. See store.h. */
#include "api/store_private.h"

#include <errno.h>
#include <string.h>

int store_image_put(struct store *store, const char *project, const char *name, const char *rootfs, const char *document,
	struct error *err)
{
	sqlite3_stmt *stmt;

	if (store_check_room(store, strlen(document), err) < 0)
		return -ENOSPC;
	stmt = store_begin(store, IMAGE_PUT);
	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, name);
	store_bind_text(stmt, 3, rootfs);
	store_bind_text(stmt, 4, document);
	return store_commit(store, stmt, err);
}

int store_image_delete(struct store *store, const char *project, const char *name, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, IMAGE_DELETE);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, name);
	return store_commit_one(store, stmt, "image", err);
}

static json_t *read_document(sqlite3_stmt *stmt, struct error *err)
{
	const char *text = store_column(stmt, 0);
	json_t *document = json_parse(text, strlen(text), err);

	if (json_is_string(json_object_get(document, "name")))
		return document;
	json_decref(document);
	error_set(err, EIO, "an image is damaged in the database");
	return NULL;
}

json_t *store_image_get(struct store *store, const char *project, const char *name, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, IMAGE_GET);
	json_t *document = NULL;
	int step;

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, name);
	step = sqlite3_step(stmt);
	if (step == SQLITE_ROW)
		document = read_document(stmt, err);
	else if (step == SQLITE_DONE)
		error_set(err, ENOENT, "there is no image \"%s\"", name);
	else
		store_fail(store, err);
	sqlite3_reset(stmt);
	return document;
}

json_t *store_images(struct store *store, const char *project, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, IMAGES);
	json_t *list = json_array();
	int step;

	store_bind_text(stmt, 1, project);
	while (list && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		json_t *document = step == SQLITE_ROW ? read_document(stmt, err) : NULL;

		if (step != SQLITE_ROW)
			store_fail(store, err);
		if (!document) {
			json_decref(list);
			list = NULL;
		} else {
			json_array_append_new(list, document);
		}
	}
	sqlite3_reset(stmt);
	return list;
}
