/* The database, its schema and its statements. See store.h.
 *
 * The journal is a WAL with synchronous=FULL: a commit is on disk when sqlite3_step() returns. Every change is one
 * statement, and so one transaction. The schema's version is PRAGMA user_version; migrations run in order, each with
 * the version it leads to in the same transaction. */
#include "api/store_private.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

/* The step from version N to N + 1 is migrations[N]. Never changed once released; only added to. */
static const char *const migrations[] = {
	"CREATE TABLE images ("
	" name TEXT PRIMARY KEY NOT NULL, rootfs TEXT NOT NULL, document TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE machines ("
	" id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, rootfs TEXT NOT NULL, spec TEXT NOT NULL,"
	" image_config TEXT NOT NULL, created_at INTEGER NOT NULL,"
	" state TEXT NOT NULL, cause_code TEXT NOT NULL, cause_message TEXT NOT NULL, exit_status INTEGER NOT NULL,"
	" monitor_pid INTEGER NOT NULL, monitor_start INTEGER NOT NULL, passt_pid INTEGER NOT NULL,"
	" passt_start INTEGER NOT NULL, boot_id TEXT NOT NULL, restarts INTEGER NOT NULL, failures INTEGER NOT NULL,"
	" restart_at INTEGER NOT NULL, stop_timeout_s INTEGER NOT NULL, restart_wanted INTEGER NOT NULL,"
	" started_at INTEGER NOT NULL, stopped_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX machines_rootfs ON machines (rootfs);"
	"CREATE INDEX images_rootfs ON images (rootfs);",

	"ALTER TABLE machines ADD COLUMN request_key TEXT NOT NULL DEFAULT '';"
	"CREATE TABLE requests (key TEXT PRIMARY KEY NOT NULL, digest TEXT NOT NULL, begun_at INTEGER NOT NULL,"
	" status INTEGER NOT NULL, type TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX requests_begun_at ON requests (begun_at);",

	/* Names, keys and blobs become a project's own. */
	"CREATE TABLE projects ("
	" name TEXT PRIMARY KEY NOT NULL, quotas TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"INSERT INTO projects VALUES ('default', '{}', unixepoch() * 1000);"
	"ALTER TABLE machines RENAME TO machines_2;"
	"ALTER TABLE images RENAME TO images_2;"
	"ALTER TABLE requests RENAME TO requests_2;"
	"CREATE TABLE machines ("
	" id TEXT PRIMARY KEY NOT NULL, project TEXT NOT NULL, name TEXT NOT NULL, rootfs TEXT NOT NULL, spec TEXT NOT NULL,"
	" image_config TEXT NOT NULL, created_at INTEGER NOT NULL,"
	" state TEXT NOT NULL, cause_code TEXT NOT NULL, cause_message TEXT NOT NULL, exit_status INTEGER NOT NULL,"
	" monitor_pid INTEGER NOT NULL, monitor_start INTEGER NOT NULL, passt_pid INTEGER NOT NULL,"
	" passt_start INTEGER NOT NULL, boot_id TEXT NOT NULL, restarts INTEGER NOT NULL, failures INTEGER NOT NULL,"
	" restart_at INTEGER NOT NULL, stop_timeout_s INTEGER NOT NULL, restart_wanted INTEGER NOT NULL,"
	" started_at INTEGER NOT NULL, stopped_at INTEGER NOT NULL, request_key TEXT NOT NULL,"
	" UNIQUE (project, name)) STRICT, WITHOUT ROWID;"
	"INSERT INTO machines SELECT id, 'default', name, rootfs, spec, image_config, created_at, state, cause_code,"
	" cause_message, exit_status, monitor_pid, monitor_start, passt_pid, passt_start, boot_id, restarts, failures,"
	" restart_at, stop_timeout_s, restart_wanted, started_at, stopped_at, request_key FROM machines_2;"
	"CREATE TABLE images (project TEXT NOT NULL, name TEXT NOT NULL, rootfs TEXT NOT NULL, document TEXT NOT NULL,"
	" PRIMARY KEY (project, name)) STRICT, WITHOUT ROWID;"
	"INSERT INTO images SELECT 'default', name, rootfs, document FROM images_2;"
	"CREATE TABLE requests (project TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, begun_at INTEGER NOT NULL,"
	" status INTEGER NOT NULL, type TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (project, key)) STRICT, WITHOUT ROWID;"
	"INSERT INTO requests SELECT 'default', key, digest, begun_at, status, type, body FROM requests_2;"
	"DROP TABLE machines_2; DROP TABLE images_2; DROP TABLE requests_2;"
	"CREATE INDEX machines_rootfs ON machines (rootfs);"
	"CREATE INDEX images_rootfs ON images (rootfs);"
	"CREATE INDEX requests_begun_at ON requests (begun_at);"
	"CREATE TABLE blob_owners (digest TEXT NOT NULL, project TEXT NOT NULL, size_bytes INTEGER NOT NULL,"
	" owned_at INTEGER NOT NULL, PRIMARY KEY (digest, project)) STRICT, WITHOUT ROWID;"
	"INSERT INTO blob_owners SELECT rootfs, 'default',"
	" max(coalesce(json_extract(document, '$.size_bytes'), 0)), unixepoch() * 1000 FROM images GROUP BY rootfs;"
	"INSERT OR IGNORE INTO blob_owners SELECT rootfs, 'default', 0, unixepoch() * 1000 FROM machines;",

	"CREATE TABLE tokens (id TEXT PRIMARY KEY NOT NULL, project TEXT NOT NULL, label TEXT NOT NULL, hash TEXT NOT NULL,"
	" scopes INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,"
	" last_used_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX tokens_project ON tokens (project, created_at);",

	"CREATE TABLE secrets (project TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL, created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL, PRIMARY KEY (project, name)) STRICT, WITHOUT ROWID;",

	/* What a machine runs with, where it is not what it is to have from its next start on. */
	"ALTER TABLE machines ADD COLUMN run_rootfs TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE machines ADD COLUMN run_spec TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE machines ADD COLUMN run_image_config TEXT NOT NULL DEFAULT '';",

	/* Of each project, from 1 on; `last` goes on when events are pruned. */
	"CREATE TABLE event_cursors (project TEXT PRIMARY KEY NOT NULL, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE events (row INTEGER PRIMARY KEY, project TEXT NOT NULL, id INTEGER NOT NULL, at INTEGER NOT NULL,"
	" type TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, UNIQUE (project, id)) STRICT;",

	/* What is delivered, and what it has come to. */
	"CREATE TABLE webhooks (id TEXT PRIMARY KEY NOT NULL, project TEXT NOT NULL, spec TEXT NOT NULL, sealed BLOB NOT NULL,"
	" created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, cursor INTEGER NOT NULL, missed INTEGER NOT NULL,"
	" failures INTEGER NOT NULL, failing_since INTEGER NOT NULL, next_attempt_at INTEGER NOT NULL,"
	" last_attempt_at INTEGER NOT NULL, last_delivered_at INTEGER NOT NULL, last_status INTEGER NOT NULL,"
	" last_error TEXT NOT NULL, disabled_reason TEXT NOT NULL) STRICT, WITHOUT ROWID;",

	"CREATE TABLE operations (id TEXT PRIMARY KEY NOT NULL, project TEXT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,"
	" kind TEXT NOT NULL, state TEXT NOT NULL, phase TEXT NOT NULL, phases TEXT NOT NULL, deadline INTEGER NOT NULL,"
	" created_at INTEGER NOT NULL, ended_at INTEGER NOT NULL, error TEXT NOT NULL, requested_by TEXT NOT NULL,"
	" cancelled_by TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX operations_age ON operations (project, created_at, id);"
	"CREATE INDEX operations_running ON operations (created_at) WHERE state = 'running';",

	"CREATE TABLE host (one INTEGER PRIMARY KEY CHECK (one = 1), state TEXT NOT NULL, drain_since INTEGER NOT NULL,"
	" drain_until INTEGER NOT NULL) STRICT;"
	"INSERT INTO host VALUES (1, 'serving', 0, 0);",

	"CREATE INDEX events_subject ON events (project, subject, type, id);",

	"CREATE TABLE certificates (project TEXT NOT NULL, hostname TEXT NOT NULL, certificate TEXT NOT NULL, sealed BLOB NOT NULL,"
	" created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (project, hostname)) STRICT, WITHOUT ROWID;",

	/* What a request has done is known by its number, whatever the clock does. */
	"ALTER TABLE requests ADD COLUMN number INTEGER NOT NULL DEFAULT 0;"
	"UPDATE requests SET number = abs(random() / 2) + 1;"
	"ALTER TABLE machines ADD COLUMN request INTEGER NOT NULL DEFAULT 0;"
	"UPDATE machines AS m SET request = coalesce((SELECT r.number FROM requests r WHERE r.project = m.project"
	" AND r.key = m.request_key AND r.begun_at <= m.created_at), 0);"
	"ALTER TABLE machines DROP COLUMN request_key;"
	"ALTER TABLE operations ADD COLUMN request INTEGER NOT NULL DEFAULT 0;"
	"CREATE INDEX operations_request ON operations (request) WHERE request <> 0;",

	/* How far operations, and the host's drain, are. */
	"ALTER TABLE operations ADD COLUMN plan INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE operations ADD COLUMN reached INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE host ADD COLUMN drain_machines INTEGER NOT NULL DEFAULT 0;",

	"CREATE INDEX tokens_expiry ON tokens (expires_at) WHERE expires_at <> 0;",

	/* certificates.c fills it in, where it is 0. */
	"ALTER TABLE certificates ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE certificates ADD COLUMN refused TEXT NOT NULL DEFAULT '';",

	"ALTER TABLE machines ADD COLUMN attached INTEGER NOT NULL DEFAULT 0;",

	/* What is old of a project is found without a look at others'. */
	"DROP INDEX requests_begun_at;"
	"CREATE INDEX requests_age ON requests (project, begun_at);",

	/* Projects that were deleted, and have left rows. */
	"CREATE TABLE departed (project TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID;",

	"ALTER TABLE machines ADD COLUMN asleep INTEGER NOT NULL DEFAULT 0;",

	/* store_room.c; it is empty. */
	"CREATE TABLE reserve (bytes BLOB NOT NULL) STRICT;",

	"CREATE TABLE volumes (id TEXT PRIMARY KEY NOT NULL, project TEXT NOT NULL, name TEXT NOT NULL, size_mib INTEGER NOT NULL,"
	" labels TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, UNIQUE (project, name)) STRICT, WITHOUT ROWID;",

	"CREATE TABLE networks (project TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL UNIQUE, spec TEXT NOT NULL,"
	" created_at INTEGER NOT NULL, PRIMARY KEY (project, name)) STRICT, WITHOUT ROWID;"
	"ALTER TABLE machines ADD COLUMN address INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE machines ADD COLUMN run_address INTEGER NOT NULL DEFAULT 0;",
};

#define OPERATION_COLUMNS \
	"id, project, machine, name, kind, state, phase, phases, deadline, created_at, ended_at, error, requested_by, cancelled_by," \
	" plan, reached"

/* The order is that of read_certificate(). */
#define CERTIFICATE_COLUMNS "project, hostname, certificate, sealed, created_at, updated_at, expires_at, refused"

/* The order is that of read_volume(). */
#define VOLUME_COLUMNS "id, project, name, size_mib, labels, created_at, updated_at"

static const char *const statements[N_STATEMENTS] = {
	/* The order of parameters and columns is that of bind_machine() and read_machine(). What fails in a transaction ends it anyhow; where it
	 * does so by itself (OR ROLLBACK), no copy is made of each page that a statement and its triggers change. */
	[MACHINE_INSERT] = "INSERT OR ROLLBACK INTO machines (id, state, cause_code, cause_message, exit_status, monitor_pid,"
			   " monitor_start, passt_pid, passt_start, boot_id, restarts, failures, restart_at,"
			   " stop_timeout_s, restart_wanted, started_at, stopped_at, run_rootfs, run_spec, run_image_config, attached, asleep, name,"
			   " rootfs, spec, image_config, created_at, request, project, address) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,"
			   " ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)",
	[MACHINE_UPDATE] = "UPDATE OR ROLLBACK machines SET state = ?2, cause_code = ?3, cause_message = ?4, exit_status = ?5,"
			   " monitor_pid = ?6, monitor_start = ?7, passt_pid = ?8, passt_start = ?9, boot_id = ?10,"
			   " restarts = ?11, failures = ?12, restart_at = ?13, stop_timeout_s = ?14,"
			   " restart_wanted = ?15, started_at = ?16, stopped_at = ?17, run_rootfs = ?18, run_spec = ?19,"
			   " run_image_config = ?20, attached = ?21, asleep = ?22, run_address = ?23 WHERE id = ?1",
	[MACHINE_RESPECIFY] = "UPDATE OR ROLLBACK machines SET name = ?2, rootfs = ?3, spec = ?4, image_config = ?5, run_rootfs = ?6,"
			      " run_spec = ?7, run_image_config = ?8, restart_at = ?9, address = ?10, run_address = ?11 WHERE id = ?1",
	[MACHINE_DELETE] = "DELETE FROM machines WHERE id = ?1",
	[MACHINES] = "SELECT id, state, cause_code, cause_message, exit_status, monitor_pid, monitor_start, passt_pid,"
		     " passt_start, boot_id, restarts, failures, restart_at, stop_timeout_s, restart_wanted, started_at,"
		     " stopped_at, run_rootfs, run_spec, run_image_config, name, rootfs, spec, image_config, created_at,"
		     " request, project, attached, asleep, address, run_address FROM machines ORDER BY created_at, id",
	[IMAGE_PUT] = "INSERT INTO images (project, name, rootfs, document) VALUES (?1, ?2, ?3, ?4)"
		      " ON CONFLICT (project, name) DO UPDATE SET rootfs = ?3, document = ?4",
	[IMAGE_DELETE] = "DELETE FROM images WHERE project = ?1 AND name = ?2",
	[IMAGE_GET] = "SELECT document FROM images WHERE project = ?1 AND name = ?2",
	[IMAGES] = "SELECT document FROM images WHERE project = ?1 ORDER BY name",
	[IMAGES_COUNT] = "SELECT count(*) FROM images WHERE project = ?1",
	[BLOB_OWN] = "INSERT OR IGNORE INTO blob_owners (digest, project, size_bytes, owned_at) VALUES (?1, ?2, ?3, ?4)",
	[BLOB_IS_OWNED] = "SELECT count(*) FROM blob_owners WHERE digest = ?1 AND project = ?2",
	[BLOB_DISOWN] = "DELETE FROM blob_owners AS o WHERE digest = ?1 AND (?2 IS NULL OR project = ?2) AND owned_at < ?3"
			" AND NOT EXISTS (SELECT 1 FROM images i WHERE i.rootfs = o.digest AND i.project = o.project)"
			" AND NOT EXISTS (SELECT 1 FROM machines m WHERE o.digest IN (m.rootfs, m.run_rootfs)"
			" AND m.project = o.project)",
	[BLOB_OWNERS] = "SELECT count(*) FROM blob_owners WHERE digest = ?1",
	[BLOB_BYTES] = "SELECT coalesce(sum(size_bytes), 0) FROM blob_owners WHERE project = ?1",
	[REQUEST_GET] = "SELECT digest, begun_at, status, type, body, number FROM requests WHERE project = ?1 AND key IN (?2, ?3)",
	[REQUEST_BEGIN] = "INSERT INTO requests (project, key, digest, begun_at, status, type, body, number)"
			  " VALUES (?1, ?2, ?3, ?4, 0, '', '', ?5)",
	[REQUEST_ANSWER] = "UPDATE requests SET status = ?3, type = ?4, body = ?5 WHERE project = ?1 AND key = ?2",
	[REQUEST_FORGET] = "DELETE FROM requests WHERE project = ?1 AND key IN (?2, ?3)",
	/* All three by the index of project and begun_at alone, which has the key, too. */
	[REQUESTS_PRUNE] = "DELETE FROM requests WHERE (project, key) IN (SELECT r.project, r.key FROM projects p CROSS JOIN requests r"
			   " ON r.project = p.name AND r.begun_at < ?1 LIMIT ?2)",
	[REQUESTS_SET_BACK] = "UPDATE requests SET begun_at = ?1 WHERE (project, key) IN (SELECT r.project, r.key FROM projects p"
			      " CROSS JOIN requests r ON r.project = p.name AND r.begun_at > ?1 LIMIT ?2)",
	[REQUESTS_TRIM] = "DELETE FROM requests WHERE project = ?1 AND key IN (SELECT key FROM requests WHERE project = ?1"
			  " ORDER BY begun_at DESC LIMIT ?3 OFFSET ?2)",
	[TOKEN_INSERT] = "INSERT INTO tokens (id, project, label, hash, scopes, created_at, expires_at, last_used_at)"
			 " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	[TOKEN_GET] = "SELECT id, project, label, hash, scopes, created_at, expires_at, last_used_at FROM tokens WHERE id = ?1",
	[TOKEN_USED] = "UPDATE tokens SET last_used_at = ?2 WHERE id = ?1",
	[TOKEN_DELETE] = "DELETE FROM tokens WHERE id = ?1",
	[TOKENS] = "SELECT id, project, label, hash, scopes, created_at, expires_at, last_used_at FROM tokens"
		   " WHERE project = ?1 ORDER BY created_at, id",
	[TOKENS_COUNT] = "SELECT count(*) FROM tokens WHERE project = ?1 AND (scopes & ?2) = ?2",
	/* The one that has expired first. */
	[TOKENS_MAKE_ROOM] = "DELETE FROM tokens WHERE id = (SELECT id FROM tokens WHERE project = ?1 AND (scopes & ?2) = ?2"
			     " AND expires_at BETWEEN 1 AND ?3 ORDER BY expires_at LIMIT 1)",
	[TOKENS_PRUNE] = "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires_at <> 0 AND expires_at < ?1"
			 " ORDER BY expires_at LIMIT ?2)",
	[CERTIFICATE_PUT] = "INSERT INTO certificates (project, hostname, certificate, sealed, created_at, updated_at, expires_at)"
			    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (project, hostname) DO UPDATE"
			    " SET certificate = ?3, sealed = ?4, updated_at = ?6, expires_at = ?7, refused = ''",
	[CERTIFICATE_REFUSE] = "UPDATE certificates SET refused = ?3 WHERE project = ?1 AND hostname = ?2",
	[CERTIFICATE_DATE] = "UPDATE certificates SET expires_at = ?3 WHERE project = ?1 AND hostname = ?2",
	[CERTIFICATE_UNDATED] = "SELECT " CERTIFICATE_COLUMNS " FROM certificates WHERE expires_at = 0 LIMIT 1",
	[CERTIFICATE_GET] = "SELECT " CERTIFICATE_COLUMNS " FROM certificates WHERE project = ?1 AND hostname = ?2",
	[CERTIFICATE_DELETE] = "DELETE FROM certificates WHERE project = ?1 AND hostname = ?2",
	[CERTIFICATES] = "SELECT " CERTIFICATE_COLUMNS " FROM certificates WHERE project = ?1 AND hostname > ?2 ORDER BY hostname",
	[CERTIFICATES_COUNT] = "SELECT count(*) FROM certificates WHERE project = ?1",
	[NETWORK_INSERT] = "INSERT INTO networks (project, name, id, spec, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
	[NETWORK_UPDATE] = "UPDATE networks SET spec = ?3 WHERE project = ?1 AND name = ?2",
	[NETWORK_GET] = "SELECT project, name, id, spec, created_at FROM networks WHERE project = ?1 AND name = ?2",
	[NETWORK_DELETE] = "DELETE FROM networks WHERE project = ?1 AND name = ?2",
	[NETWORKS] = "SELECT project, name, id, spec, created_at FROM networks WHERE ?1 IS NULL OR project = ?1 ORDER BY project, name",
	[SECRET_PUT] = "INSERT INTO secrets (project, name, sealed, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)"
		       " ON CONFLICT (project, name) DO UPDATE SET sealed = ?3, updated_at = ?5",
	[SECRET_GET] = "SELECT project, name, created_at, updated_at, sealed FROM secrets WHERE project = ?1 AND name = ?2",
	[SECRET_DELETE] = "DELETE FROM secrets WHERE project = ?1 AND name = ?2",
	[SECRETS] = "SELECT project, name, created_at, updated_at FROM secrets WHERE project = ?1 ORDER BY name",
	[SECRETS_COUNT] = "SELECT count(*) FROM secrets WHERE project = ?1",
	[VOLUME_INSERT] = "INSERT OR ROLLBACK INTO volumes (" VOLUME_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	[VOLUME_UPDATE] = "UPDATE OR ROLLBACK volumes SET size_mib = ?2, labels = ?3, updated_at = ?4 WHERE id = ?1",
	/* An id is before a name. */
	[VOLUME_GET] = "SELECT " VOLUME_COLUMNS " FROM volumes WHERE project = ?1 AND (id = ?2 OR name = ?2) ORDER BY id <> ?2 LIMIT 1",
	[VOLUME_DELETE] = "DELETE FROM volumes WHERE id = ?1",
	[VOLUME_HAS] = "SELECT EXISTS (SELECT 1 FROM volumes WHERE id = ?1)",
	[VOLUMES] = "SELECT " VOLUME_COLUMNS " FROM volumes WHERE ?1 IS NULL OR project = ?1 ORDER BY project, name",
	[VOLUMES_COUNT] = "SELECT count(*) FROM volumes WHERE project = ?1",
	[VOLUMES_MIB] = "SELECT coalesce(sum(size_mib), 0) FROM volumes WHERE ?1 IS NULL OR project = ?1",
	/* The order of parameters and columns is that of store_webhooks.c. */
	[WEBHOOK_INSERT] = "INSERT INTO webhooks (id, cursor, missed, failures, failing_since, next_attempt_at, last_attempt_at,"
			   " last_delivered_at, last_status, last_error, disabled_reason, spec, sealed, updated_at, project, created_at)"
			   " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
	[WEBHOOK_RESPECIFY] = "UPDATE webhooks SET cursor = ?2, missed = ?3, failures = ?4, failing_since = ?5, next_attempt_at = ?6,"
			      " last_attempt_at = ?7, last_delivered_at = ?8, last_status = ?9, last_error = ?10, disabled_reason = ?11,"
			      " spec = ?12, sealed = ?13, updated_at = ?14 WHERE id = ?1",
	[WEBHOOK_PROGRESS] = "UPDATE webhooks SET cursor = ?2, missed = ?3, failures = ?4, failing_since = ?5, next_attempt_at = ?6,"
			     " last_attempt_at = ?7, last_delivered_at = ?8, last_status = ?9, last_error = ?10, disabled_reason = ?11"
			     " WHERE id = ?1",
	[WEBHOOK_DELETE] = "DELETE FROM webhooks WHERE id = ?1",
	[WEBHOOKS] = "SELECT id, cursor, missed, failures, failing_since, next_attempt_at, last_attempt_at, last_delivered_at,"
		     " last_status, last_error, disabled_reason, spec, sealed, updated_at, project, created_at FROM webhooks"
		     " ORDER BY created_at, id",
	[EVENT_NUMBER] = "INSERT INTO event_cursors (project, last) VALUES (?1, 1)"
			 " ON CONFLICT (project) DO UPDATE SET last = last + 1 RETURNING last",
	[EVENT_INSERT] = "INSERT INTO events (project, id, at, type, subject, name, data)"
			 " VALUES (?1, ?2, event_time(?1), ?3, ?4, ?5, ?6)",
	[EVENTS] = "SELECT id, at, type, subject, name, data FROM events WHERE project = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
	[EVENTS_RANGE] = "SELECT coalesce((SELECT min(id) - 1 FROM events WHERE project = ?1), last, 0), coalesce(last, 0)"
			 " FROM (SELECT ?1) LEFT JOIN event_cursors ON project = ?1",
	[EVENTS_HAS] = "SELECT EXISTS (SELECT 1 FROM events INDEXED BY events_subject WHERE project = ?1 AND subject = ?2"
		       " AND type = ?3 AND id > ?4)",
	[EVENTS_SINCE] = "SELECT coalesce((SELECT id FROM events WHERE project = ?1 AND at < ?2 ORDER BY id DESC LIMIT 1), 0)",
	/* The oldest of each project, never one in the middle, whatever the clock has done: those up to the first that is young, which is looked
	 * for in as many as may go. */
	[EVENTS_PRUNE] = "DELETE FROM events WHERE row IN (SELECT e.row FROM event_cursors c CROSS JOIN events e"
			 " ON e.project = c.project AND e.id <= max(c.last - ?2, coalesce((SELECT id - 1 FROM"
			 " (SELECT id, at FROM events k WHERE k.project = c.project ORDER BY id LIMIT ?3)"
			 " WHERE at >= ?1 ORDER BY id LIMIT 1), c.last)) ORDER BY c.project, e.id LIMIT ?3)",
	/* The order of parameters and columns is that of store_operation_put() and read_operation(). */
	[OPERATION_INSERT] = "INSERT OR ROLLBACK INTO operations (" OPERATION_COLUMNS ", request) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,"
			     " ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
	[OPERATION_UPDATE] = "UPDATE OR ROLLBACK operations SET state = ?6, phase = ?7, phases = ?8, deadline = ?9, ended_at = ?11,"
			     " error = ?12, cancelled_by = ?14, plan = ?15, reached = ?16 WHERE id = ?1",
	[OPERATION_GET] = "SELECT " OPERATION_COLUMNS " FROM operations WHERE id = ?2 AND project = ?1",
	[OPERATIONS] = "SELECT " OPERATION_COLUMNS " FROM operations WHERE project = ?1 AND (created_at, id) > (?2, ?3)"
		       " ORDER BY created_at, id",
	[OPERATION_OF_REQUEST] = "SELECT id FROM operations WHERE request = ?1 AND request <> 0",
	[OPERATIONS_RUNNING] = "SELECT " OPERATION_COLUMNS " FROM operations WHERE state = 'running' ORDER BY created_at",
	[OPERATIONS_END_ORPHANS] = "UPDATE operations SET state = 'failed', phase = '', ended_at = ?1, error = ?2"
				   " WHERE state = 'running' AND machine NOT IN (SELECT id FROM machines)",
	/* Both by the index of project and age. */
	[OPERATIONS_PRUNE] = "DELETE FROM operations WHERE id IN (SELECT o.id FROM projects p CROSS JOIN operations o"
			     " ON o.project = p.name AND o.created_at < ?1 WHERE o.state <> 'running' LIMIT ?2)",
	[OPERATIONS_TRIM] = "DELETE FROM operations WHERE state <> 'running' AND id IN (SELECT id FROM operations WHERE project = ?1"
			    " ORDER BY created_at DESC, id DESC LIMIT ?3 OFFSET ?2)",
	[TRANSACTION_BEGIN] = "BEGIN IMMEDIATE",
	[TRANSACTION_COMMIT] = "COMMIT",
	[TRANSACTION_ROLLBACK] = "ROLLBACK",
	[ROOM_PAGES] = "PRAGMA page_count",
	[ROOM_FREE] = "PRAGMA freelist_count",
	[ROOM_FILL] = "INSERT INTO reserve (bytes) VALUES (zeroblob(?1))",
	[ROOM_EMPTY] = "DELETE FROM reserve",
	[HOST_GET] = "SELECT state, drain_since, drain_until, drain_machines FROM host",
	[HOST_SET] = "UPDATE host SET state = ?1, drain_since = ?2, drain_until = ?3, drain_machines = ?4",
	[PROJECT_INSERT] = "INSERT INTO projects (name, quotas, created_at) VALUES (?1, ?2, ?3)",
	[PROJECT_UPDATE] = "UPDATE projects SET quotas = ?2 WHERE name = ?1",
	[PROJECT_GET] = "SELECT name, quotas, created_at FROM projects WHERE name = ?1",
	[PROJECTS] = "SELECT name, quotas, created_at FROM projects ORDER BY name",
	[PROJECT_DEPART] = "INSERT INTO departed (project) VALUES (?1)",
	[PROJECT_IS_DEPARTED] = "SELECT count(*) FROM departed WHERE project = ?1",
	[DEPARTED_REQUESTS] = "DELETE FROM requests WHERE (project, key) IN (SELECT project, key FROM departed CROSS JOIN requests USING (project)"
			      " LIMIT ?1)",
	[DEPARTED_IMAGES] = "DELETE FROM images WHERE (project, name) IN (SELECT project, name FROM departed CROSS JOIN images USING (project)"
			    " LIMIT ?1)",
	[DEPARTED_OPERATIONS] = "DELETE FROM operations WHERE id IN (SELECT id FROM departed CROSS JOIN operations USING (project) LIMIT ?1)",
	[DEPARTED_EVENTS] = "DELETE FROM events WHERE row IN (SELECT row FROM departed CROSS JOIN events USING (project) LIMIT ?1)",
	[DEPARTED_CURSORS] = "DELETE FROM event_cursors WHERE project IN (SELECT project FROM departed)",
	[DEPARTED_FORGET] = "DELETE FROM departed",
};

int store_fail(struct store *store, struct error *err)
{
	int errnum;

	switch (sqlite3_errcode(store->db)) {
	case SQLITE_CONSTRAINT:
		errnum = EEXIST;
		break;
	case SQLITE_FULL:
		errnum = ENOSPC;
		break;
	case SQLITE_NOMEM:
		errnum = ENOMEM;
		break;
	default:
		errnum = EIO;
		break;
	}
	return error_set(err, errnum, "the database refuses: %s", sqlite3_errmsg(store->db));
}

int store_run(struct store *store, const char *sql, struct error *err)
{
	return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : store_fail(store, err);
}

int store_transaction_begin(struct store *store, struct error *err)
{
	store_make_room(store);
	return store_commit(store, store_begin(store, TRANSACTION_BEGIN), err);
}

int store_transaction_end(struct store *store, int r, struct error *err)
{
	struct error ignored;

	if (r == 0)
		r = store_commit(store, store_begin(store, TRANSACTION_COMMIT), err);
	if (r < 0)
		store_commit(store, store_begin(store, TRANSACTION_ROLLBACK), &ignored);
	return r;
}

static int read_version(struct store *store, int *ret, struct error *err)
{
	sqlite3_stmt *query;
	int r = 0;

	if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &query, NULL) != SQLITE_OK)
		return store_fail(store, err);
	if (sqlite3_step(query) == SQLITE_ROW)
		*ret = sqlite3_column_int(query, 0);
	else
		r = store_fail(store, err);
	sqlite3_finalize(query);
	return r;
}

static int migrate(struct store *store, struct error *err)
{
	int version = 0;
	int r = read_version(store, &version, err);

	if (r < 0)
		return r;
	if (version < 0 || (size_t)version > ARRAY_SIZE(migrations))
		return error_set(err, EINVAL, "schema version %d is of a newer hulld; this one knows %zu", version,
			ARRAY_SIZE(migrations));
	for (; (size_t)version < ARRAY_SIZE(migrations); version++) {
		char *sql = sqlite3_mprintf(
			"BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;", migrations[version], version + 1);

		r = sql ? store_run(store, sql, err) : error_set(err, ENOMEM, "out of memory");
		sqlite3_free(sql);
		if (r < 0)
			return r; /* closing the database rolls back */
	}
	return 0;
}

static int set_up(struct store *store, struct error *err)
{
	int r;

	sqlite3_busy_timeout(store->db, 5000);
	sqlite3_file_control(store->db, NULL, SQLITE_FCNTL_PERSIST_WAL, &(int){1}); /* its room stays, too */
	/* A checkpoint holds up the loop: a quarter of the usual one more often, beside a commit's fsync() each few pages, is the less. */
	r = store_run(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;"
		" PRAGMA secure_delete = ON;"
		" PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 250;", err);
	if (r == 0)
		r = migrate(store, err);
	if (r == 0)
		r = store_events_set_up(store, err);
	for (int i = 0; r == 0 && i < N_STATEMENTS; i++)
		if (sqlite3_prepare_v3(store->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &store->prepared[i],
			    NULL) != SQLITE_OK)
			r = store_fail(store, err);
	if (r == 0)
		store_make_room(store);
	return r;
}

struct store *store_open(const char *path, struct error *err)
{
	struct store *store = calloc(1, sizeof(*store));

	if (!store) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	store->room_fd = -1;
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* nobody asks, and each allocation took a lock to count itself */
	if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
		SQLITE_OK)
		error_set(err, EIO, "%s: %s", path, store->db ? sqlite3_errmsg(store->db) : "out of memory");
	else if ((store->room_fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
		error_set_errno(err, errno, "%s", path);
	else if (set_up(store, err) < 0)
		error_prefix(err, "%s: ", path);
	else
		return store;
	store_close(store);
	return NULL;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	for (int i = 0; i < N_STATEMENTS; i++)
		sqlite3_finalize(store->prepared[i]);
	sqlite3_close(store->db);
	close_fd(store->room_fd);
	free(store);
}

sqlite3_stmt *store_begin(struct store *store, enum store_statement which)
{
	sqlite3_stmt *stmt = store->prepared[which];

	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
	return stmt;
}

void store_bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
	sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC);
}

int store_commit(struct store *store, sqlite3_stmt *stmt, struct error *err)
{
	int r = sqlite3_step(stmt) == SQLITE_DONE ? 0 : store_fail(store, err);

	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
	return r;
}

int store_commit_one(struct store *store, sqlite3_stmt *stmt, const char *what, struct error *err)
{
	int r = store_commit(store, stmt, err);

	if (r == 0 && sqlite3_changes(store->db) == 0)
		r = error_set(err, ENOENT, "there is no such %s", what);
	return r;
}

int store_commit_some(struct store *store, sqlite3_stmt *stmt, struct error *err)
{
	int r = store_commit(store, stmt, err);

	return r < 0 ? r : sqlite3_changes(store->db);
}

int64_t store_number(struct store *store, sqlite3_stmt *stmt, struct error *err)
{
	int64_t r = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : store_fail(store, err);

	sqlite3_reset(stmt);
	return r;
}

const char *store_column(sqlite3_stmt *stmt, int index)
{
	const unsigned char *text = sqlite3_column_text(stmt, index);

	return text ? (const char *)text : "";
}
