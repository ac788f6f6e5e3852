/* Events in SQLite. See store.h.
 *
 * Theory of operation. What a client can see of a row is announced by triggers on its table: so there is no change without its event, no
 * event without its change, and both are in one transaction, whoever makes it. The triggers are TEMP, of this connection, and are thus
 * code, not schema. A project's events are numbered 1, 2, 3 … without gaps, by a row that stays when they are pruned: a client learns
 * nothing of other projects from its cursors. */
#include "api/store_private.h"

#include "api/hulld.h"

#include <errno.h>
#include <string.h>

/* The next event of `project`, if `condition` holds; all are SQL. Of event_cursors nothing is selected that is inserted into it: SQLite would
 * make a table for that each time. */
#define EVENT(project, type, subject, name, data, condition)                                                                   \
	"INSERT INTO event_cursors (project, last) VALUES (" project ", 0) ON CONFLICT DO NOTHING;"                            \
	"UPDATE event_cursors SET last = last + 1 WHERE project = " project " AND (" condition ");"                            \
	"INSERT INTO events (project, id, at, type, subject, name, data) SELECT project, last, event_time(project), " type ", " subject \
	", " name ", " data " FROM event_cursors WHERE project = " project " AND (" condition ");"

#define TRIGGER(name, on, body) "CREATE TEMP TRIGGER " name " AFTER " on " BEGIN " body " END;"
#define ALWAYS "true"
#define TIME(ms) "strftime('%Y-%m-%dT%H:%M:%fZ', " ms " / 1000.0, 'unixepoch')"

#define MACHINE_EVENT(row, type, data, condition) EVENT(row ".project", type, row ".id", row ".name", data, condition)
#define MADE "json_object('image', json_extract(new.spec, '$.image'))"
#define EXIT_STATUS(row) "CASE WHEN " row ".exit_status >= 0 THEN " row ".exit_status END"
#define CAUSE(row, condition)                                                                                                  \
	"json(CASE WHEN " condition " THEN json_object('code', " row ".cause_code, 'message', " row ".cause_message) ELSE 'null' END)"
/* Why the run before ended is no cause of this one's end. */
#define HAS_CAUSE "new.cause_code <> '' AND (new.state <> 'stopping' OR new.cause_code <> old.cause_code)"
#define MOVED                                                                                                                  \
	"json_object('state', new.state, 'previous', old.state, 'restarts', new.restarts, 'exit_status', " EXIT_STATUS("new") \
	", 'cause', " CAUSE("new", HAS_CAUSE) ")"
#define RESTART "json_object('restart_at', " TIME("new.restart_at") ", 'failures', new.failures)"
/* A machine that is started again at once goes from one run to the next within a state, or straight from running to starting. */
#define HAS_MOVED "old.state <> 'creating' AND (new.state <> old.state OR new.started_at <> old.started_at)"
#define IS_ASLEEP "new.asleep AND new.state IN ('stopped', 'suspended') AND old.state NOT IN (new.state, 'resuming')"
#define IS_WOKEN "new.asleep AND new.state IN ('starting', 'resuming') AND old.state NOT IN (new.state, 'resuming')"
/* It sleeps, and somebody stops it: it is not to be woken any more. */
#define IS_STOPPED_ASLEEP "old.asleep AND NOT new.asleep AND new.state = old.state AND new.state IN ('stopped', 'failed')"
#define IS_CREATED "old.state = 'creating' AND new.state = 'created'"
#define IS_SCHEDULED "new.restart_at <> 0 AND new.restart_at <> old.restart_at AND new.state IN ('stopped', 'failed')"
#define IS_CANCELLED "new.restart_at = 0 AND old.restart_at <> 0 AND new.state = old.state"
#define IS_RESPECIFIED "new.spec <> old.spec OR new.name <> old.name OR new.rootfs <> old.rootfs"

#define NAMED_EVENT(row, type) EVENT(row ".project", type, row ".name", row ".name", "'{}'", ALWAYS)
#define IMAGE_PUT_EVENT \
	EVENT("new.project", "'image.put'", "new.name", "new.name", "json_object('rootfs', new.rootfs)", ALWAYS)
#define NETWORK_EVENT(row, type) EVENT(row ".project", type, row ".id", row ".name", "'{}'", ALWAYS)
#define TOKEN_EVENT(row, type) EVENT(row ".project", type, row ".id", row ".label", "'{}'", ALWAYS)
#define CERTIFICATE_EVENT(row, type, data) EVENT(row ".project", type, row ".hostname", row ".hostname", data, ALWAYS)
#define HAS_EXPIRED "old.expires_at BETWEEN 1 AND unixepoch() * 1000 + 999"
/* Its URL may be as good as a secret. */
#define WEBHOOK_EVENT(row, type, data) EVENT(row ".project", type, row ".id", row ".id", data, ALWAYS)
#define IS_DISABLED "json_extract(old.spec, '$.enabled') AND NOT json_extract(new.spec, '$.enabled')"
#define VOLUME_EVENT(row, type, data) EVENT(row ".project", type, row ".id", row ".name", data, ALWAYS)
#define SIZE "json_object('size_mib', new.size_mib)"
#define PROJECT_EVENT(type) EVENT("new.name", type, "new.name", "new.name", "json_object('quotas', json(new.quotas))", ALWAYS)

#define OPERATION_EVENT(type, data, condition) EVENT("new.project", type, "new.machine", "new.name", data, condition)
#define PHASE "CASE WHEN new.phase <> '' THEN new.phase END"
#define OPERATION_BEGUN                                                                                                        \
	"json_object('operation', new.id, 'kind', new.kind, 'phase', " PHASE ", 'deadline', " TIME("new.deadline")            \
	", 'requested_by', new.requested_by)"
#define OPERATION_MOVED "json_object('operation', new.id, 'kind', new.kind, 'phase', " PHASE ", 'deadline', " TIME("new.deadline") ")"
/* What the machine has, which was written before. */
#define OF_FAILED(value) "CASE WHEN new.state = 'failed' THEN (SELECT " value " FROM main.machines AS m WHERE m.id = new.machine) END"
#define OPERATION_ENDED                                                                                                        \
	"json_object('operation', new.id, 'kind', new.kind, 'phases', json(new.phases),"                                       \
	" 'error', json(CASE WHEN new.error <> '' THEN new.error ELSE 'null' END),"                                            \
	" 'cancelled_by', CASE WHEN new.cancelled_by <> '' THEN new.cancelled_by END,"                                         \
	" 'exit_status', " OF_FAILED(EXIT_STATUS("m")) ", 'cause', json(" OF_FAILED(CAUSE("m", "m.cause_code <> ''")) "))"

static const char triggers[] =
	TRIGGER("machine_inserted", "INSERT ON main.machines WHEN new.state <> 'creating'",
		MACHINE_EVENT("new", "'machine.created'", MADE, ALWAYS))
	/* In the order of what happens. */
	TRIGGER("machine_moved", "UPDATE OF state, restart_at, asleep ON main.machines",
		MACHINE_EVENT("new", "'machine.created'", MADE, IS_CREATED)
		MACHINE_EVENT("new", "'machine.waking'", "'{}'", IS_WOKEN)
		MACHINE_EVENT("new", "'machine.' || new.state", MOVED, HAS_MOVED)
		MACHINE_EVENT("new", "'machine.asleep'", "'{}'", IS_ASLEEP)
		MACHINE_EVENT("new", "'machine.stopped'", MOVED, IS_STOPPED_ASLEEP)
		MACHINE_EVENT("new", "'machine.restart_scheduled'", RESTART, IS_SCHEDULED)
		MACHINE_EVENT("new", "'machine.restart_cancelled'", "'{}'", IS_CANCELLED))
	TRIGGER("machine_respecified", "UPDATE OF spec, name, rootfs ON main.machines WHEN " IS_RESPECIFIED,
		MACHINE_EVENT("new", "'machine.updated'", "json_object('previous_name', old.name)", ALWAYS))
	TRIGGER("machine_deleted", "DELETE ON main.machines WHEN old.state <> 'creating'",
		MACHINE_EVENT("old", "'machine.deleted'", "'{}'", ALWAYS))
	TRIGGER("operation_inserted", "INSERT ON main.operations", OPERATION_EVENT("'operation.started'", OPERATION_BEGUN, ALWAYS)
		OPERATION_EVENT("'operation.' || new.state", OPERATION_ENDED, "new.state <> 'running'"))
	TRIGGER("operation_moved", "UPDATE OF state, phase ON main.operations",
		OPERATION_EVENT("'operation.phase'", OPERATION_MOVED, "new.state = 'running' AND new.phase <> old.phase")
		OPERATION_EVENT("'operation.' || new.state", OPERATION_ENDED, "new.state <> old.state"))
	TRIGGER("image_inserted", "INSERT ON main.images", IMAGE_PUT_EVENT)
	TRIGGER("image_moved", "UPDATE ON main.images", IMAGE_PUT_EVENT)
	TRIGGER("image_deleted", "DELETE ON main.images", NAMED_EVENT("old", "'image.deleted'"))
	TRIGGER("network_inserted", "INSERT ON main.networks", NETWORK_EVENT("new", "'network.created'"))
	TRIGGER("network_updated", "UPDATE OF spec ON main.networks", NETWORK_EVENT("new", "'network.updated'"))
	TRIGGER("network_deleted", "DELETE ON main.networks", NETWORK_EVENT("old", "'network.deleted'"))
	TRIGGER("secret_inserted", "INSERT ON main.secrets", NAMED_EVENT("new", "'secret.set'"))
	TRIGGER("secret_set", "UPDATE ON main.secrets", NAMED_EVENT("new", "'secret.set'"))
	TRIGGER("secret_deleted", "DELETE ON main.secrets", NAMED_EVENT("old", "'secret.deleted'"))
	TRIGGER("certificate_inserted", "INSERT ON main.certificates", CERTIFICATE_EVENT("new", "'certificate.set'", "'{}'"))
	TRIGGER("certificate_set", "UPDATE OF certificate, sealed ON main.certificates", CERTIFICATE_EVENT("new", "'certificate.set'", "'{}'"))
	TRIGGER("certificate_refused", "UPDATE OF refused ON main.certificates WHEN new.refused <> old.refused AND new.refused <> ''",
		CERTIFICATE_EVENT("new", "'certificate.refused'", "json_object('reason', new.refused)"))
	TRIGGER("certificate_deleted", "DELETE ON main.certificates", CERTIFICATE_EVENT("old", "'certificate.deleted'", "'{}'"))
	TRIGGER("token_inserted", "INSERT ON main.tokens", TOKEN_EVENT("new", "'token.created'"))
	TRIGGER("token_deleted", "DELETE ON main.tokens",
		TOKEN_EVENT("old", "CASE WHEN " HAS_EXPIRED " THEN 'token.removed' ELSE 'token.revoked' END"))
	TRIGGER("volume_inserted", "INSERT ON main.volumes", VOLUME_EVENT("new", "'volume.created'", SIZE))
	TRIGGER("volume_updated", "UPDATE ON main.volumes", VOLUME_EVENT("new", "'volume.updated'", SIZE))
	TRIGGER("volume_deleted", "DELETE ON main.volumes", VOLUME_EVENT("old", "'volume.deleted'", "'{}'"))
	TRIGGER("webhook_inserted", "INSERT ON main.webhooks", WEBHOOK_EVENT("new", "'webhook.created'", "'{}'"))
	TRIGGER("webhook_changed", "UPDATE OF spec, sealed ON main.webhooks", WEBHOOK_EVENT("new",
		"CASE WHEN " IS_DISABLED " THEN 'webhook.disabled' ELSE 'webhook.updated' END",
		"json_object('reason', new.disabled_reason)"))
	TRIGGER("webhook_deleted", "DELETE ON main.webhooks", WEBHOOK_EVENT("old", "'webhook.deleted'", "'{}'"))
	TRIGGER("project_inserted", "INSERT ON main.projects", PROJECT_EVENT("'project.created'"))
	TRIGGER("project_updated", "UPDATE OF quotas ON main.projects", PROJECT_EVENT("'project.updated'"))
	TRIGGER("host_moved", "UPDATE OF state ON main.host WHEN new.state <> old.state",
		EVENT("'default'", "'host.' || new.state", "'host'", "'host'", "'{}'", ALWAYS));

/* When a row is made, and that it is. From within a statement: whoever is told reads later, and finds nothing should the statement fail. */
static void event_time(sqlite3_context *ctx, int n, sqlite3_value **values)
{
	struct store *store = sqlite3_user_data(ctx);

	if (n == 1 && store->on_event)
		store->on_event(store->on_event_ctx, (const char *)sqlite3_value_text(values[0]));
	sqlite3_result_int64(ctx, now_ms());
}

int store_events_set_up(struct store *store, struct error *err)
{
	if (sqlite3_create_function_v2(store->db, "event_time", 1, SQLITE_UTF8 | SQLITE_INNOCUOUS, store, event_time, NULL, NULL,
		    NULL) != SQLITE_OK)
		return store_fail(store, err);
	return store_run(store, triggers, err);
}

void store_on_event(struct store *store, void (*fn)(void *ctx, const char *project), void *ctx)
{
	store->on_event = fn;
	store->on_event_ctx = ctx;
}

static int number(struct store *store, const struct event_record *event, int64_t *ret, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, EVENT_NUMBER);
	int64_t id;

	store_bind_text(stmt, 1, event->project);
	id = store_number(store, stmt, err);
	if (id < 0)
		return (int)id;
	*ret = id;
	return 0;
}

static int insert(struct store *store, const struct event_record *event, struct error *err)
{
	sqlite3_stmt *stmt;
	int64_t id = 0;
	int r = number(store, event, &id, err);

	if (r < 0)
		return r;
	stmt = store_begin(store, EVENT_INSERT);
	store_bind_text(stmt, 1, event->project);
	sqlite3_bind_int64(stmt, 2, id);
	store_bind_text(stmt, 3, event->type);
	store_bind_text(stmt, 4, event->subject);
	store_bind_text(stmt, 5, event->name);
	store_bind_text(stmt, 6, event->data);
	return store_commit(store, stmt, err);
}

int store_event_insert(struct store *store, const struct event_record *event, struct error *err)
{
	int r = store_transaction_begin(store, err);

	return r < 0 ? r : store_transaction_end(store, insert(store, event, err), err);
}

static void read_event(sqlite3_stmt *stmt, const char *project, struct event_record *ret)
{
	*ret = (struct event_record){.project = project, .id = sqlite3_column_int64(stmt, 0), .at = sqlite3_column_int64(stmt, 1),
		.type = store_column(stmt, 2), .subject = store_column(stmt, 3), .name = store_column(stmt, 4),
		.data = store_column(stmt, 5)};
}

int store_events_each(struct store *store, const char *project, int64_t after, int64_t limit,
	int (*fn)(void *ctx, const struct event_record *event), void *ctx, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, EVENTS);
	int step, r = 0;

	store_bind_text(stmt, 1, project);
	sqlite3_bind_int64(stmt, 2, after);
	sqlite3_bind_int64(stmt, 3, limit);
	while (r == 0 && (step = sqlite3_step(stmt)) != SQLITE_DONE) {
		struct event_record event;

		if (step != SQLITE_ROW) {
			r = store_fail(store, err);
			break;
		}
		read_event(stmt, project, &event);
		r = fn(ctx, &event);
	}
	sqlite3_reset(stmt);
	return r;
}

int store_events_range(struct store *store, const char *project, int64_t *ret_before, int64_t *ret_last, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, EVENTS_RANGE);
	int r = 0;

	store_bind_text(stmt, 1, project);
	if (sqlite3_step(stmt) == SQLITE_ROW) {
		*ret_before = sqlite3_column_int64(stmt, 0);
		*ret_last = sqlite3_column_int64(stmt, 1);
	} else {
		r = store_fail(store, err);
	}
	sqlite3_reset(stmt);
	return r;
}

int64_t store_events_since(struct store *store, const char *project, int64_t at, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, EVENTS_SINCE);

	store_bind_text(stmt, 1, project);
	sqlite3_bind_int64(stmt, 2, at);
	return store_number(store, stmt, err);
}

int store_events_has(struct store *store, const char *project, const char *subject, const char *type, int64_t after,
	struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, EVENTS_HAS);

	store_bind_text(stmt, 1, project);
	store_bind_text(stmt, 2, subject);
	store_bind_text(stmt, 3, type);
	sqlite3_bind_int64(stmt, 4, after);
	return (int)store_number(store, stmt, err);
}

int store_events_prune(struct store *store, int64_t before, int64_t keep, int64_t max, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, EVENTS_PRUNE);

	sqlite3_bind_int64(stmt, 1, before);
	sqlite3_bind_int64(stmt, 2, keep);
	sqlite3_bind_int64(stmt, 3, max);
	return store_commit_some(store, stmt, err);
}
