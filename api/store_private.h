/* What the store's files share: the database and its prepared statements. Nobody else's. */
#ifndef HULL_API_STORE_PRIVATE_H
#define HULL_API_STORE_PRIVATE_H

#include "api/store.h"

#include <sqlite3.h>

/* Their SQL is in store.c. */
enum store_statement {
	MACHINE_INSERT,
	MACHINE_UPDATE,
	MACHINE_RESPECIFY,
	MACHINE_DELETE,
	MACHINES,
	IMAGE_PUT,
	IMAGE_DELETE,
	IMAGE_GET,
	IMAGES,
	IMAGES_COUNT,
	BLOB_OWN,
	BLOB_IS_OWNED,
	BLOB_DISOWN,
	BLOB_OWNERS,
	BLOB_BYTES,
	REQUEST_GET,
	REQUEST_BEGIN,
	REQUEST_ANSWER,
	REQUEST_FORGET,
	REQUESTS_PRUNE,
	REQUESTS_SET_BACK,
	REQUESTS_TRIM,
	PROJECT_INSERT,
	PROJECT_UPDATE,
	PROJECT_GET,
	PROJECTS,
	PROJECT_DEPART,
	DEPARTED_REQUESTS,
	DEPARTED_IMAGES,
	DEPARTED_OPERATIONS,
	DEPARTED_EVENTS,
	DEPARTED_CURSORS,
	DEPARTED_FORGET,
	PROJECT_IS_DEPARTED,
	TOKEN_INSERT,
	TOKEN_GET,
	TOKEN_USED,
	TOKEN_DELETE,
	TOKENS,
	TOKENS_COUNT,
	TOKENS_MAKE_ROOM,
	TOKENS_PRUNE,
	CERTIFICATE_PUT,
	CERTIFICATE_REFUSE,
	CERTIFICATE_DATE,
	CERTIFICATE_UNDATED,
	CERTIFICATE_GET,
	CERTIFICATE_DELETE,
	CERTIFICATES,
	CERTIFICATES_COUNT,
	NETWORK_INSERT,
	NETWORK_UPDATE,
	NETWORK_GET,
	NETWORK_DELETE,
	NETWORKS,
	SECRET_PUT,
	SECRET_GET,
	SECRET_DELETE,
	SECRETS,
	SECRETS_COUNT,
	VOLUME_INSERT,
	VOLUME_UPDATE,
	VOLUME_GET,
	VOLUME_DELETE,
	VOLUME_HAS,
	VOLUMES,
	VOLUMES_COUNT,
	VOLUMES_MIB,
	WEBHOOK_INSERT,
	WEBHOOK_RESPECIFY,
	WEBHOOK_PROGRESS,
	WEBHOOK_DELETE,
	WEBHOOKS,
	EVENT_NUMBER,
	EVENT_INSERT,
	EVENTS,
	EVENTS_RANGE,
	EVENTS_SINCE,
	EVENTS_HAS,
	EVENTS_PRUNE,
	OPERATION_INSERT,
	OPERATION_UPDATE,
	OPERATION_GET,
	OPERATIONS,
	OPERATION_OF_REQUEST,
	OPERATIONS_RUNNING,
	OPERATIONS_END_ORPHANS,
	OPERATIONS_PRUNE,
	OPERATIONS_TRIM,
	TRANSACTION_BEGIN,
	TRANSACTION_COMMIT,
	TRANSACTION_ROLLBACK,
	ROOM_PAGES,
	ROOM_FREE,
	ROOM_FILL,
	ROOM_EMPTY,
	HOST_GET,
	HOST_SET,
	N_STATEMENTS,
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *prepared[N_STATEMENTS];
	void (*on_event)(void *ctx, const char *project);
	void *on_event_ctx;
	int room_fd; /* the database's file: closed behind SQLite's own, as a close() ends all locks that the process has on a file */
	uint64_t full_until_ns; /* store_room.c: the disk was full, and is not asked before that, on the monotonic clock */
};

/* What the database said last, as -errno with `err` set. */
int store_fail(struct store *store, struct error *err);
/* Statements without parameters and rows. */
int store_run(struct store *store, const char *sql, struct error *err);

/* The statement, ready to be bound. Reset it after reading its rows. */
sqlite3_stmt *store_begin(struct store *store, enum store_statement which);
/* A binding fails only for want of memory, and then the step does too: NOT NULL sees to it. `text` lives until the step. */
void store_bind_text(sqlite3_stmt *stmt, int index, const char *text);
/* A column as text; "" for none. Valid until the next step. */
const char *store_column(sqlite3_stmt *stmt, int index);
/* Runs a statement that returns no rows; store_commit_one() also refuses (-ENOENT) when there was no row to change, and store_commit_some()
 * says how many it has changed. */
int store_commit(struct store *store, sqlite3_stmt *stmt, struct error *err);
int store_commit_one(struct store *store, sqlite3_stmt *stmt, const char *what, struct error *err);
int store_commit_some(struct store *store, sqlite3_stmt *stmt, struct error *err);
/* Runs one that gives a number. */
int64_t store_number(struct store *store, sqlite3_stmt *stmt, struct error *err);

/* store_room.c: adds to the reserve, outside of a transaction, where it is low and the disk allows. */
void store_make_room(struct store *store);

/* store_events.c: once for a connection, before statements are prepared. */
int store_events_set_up(struct store *store, struct error *err);

#endif
