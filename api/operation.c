/* What becomes of operations. See operation.h. */
#include "api/operation.h"

#include "api/access.h"
#include "api/health.h"
#include "api/progress.h"
#include "api/random.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KEPT	   10000 /* of each project; a few more until they are looked at, */
#define TRIM_EVERY 16	 /* about once in so many, by chance, so that no client knows when */
#define KEPT_MS	   (7 * 24 * INT64_C(3600000))
#define FORGET_MAX 64 /* at a time: others wait */
#define NS_PER_MS  1000000ull

const char *const operation_kind_names[] = {
	[OPERATION_START] = "start",
	[OPERATION_STOP] = "stop",
	[OPERATION_RESTART] = "restart",
	[OPERATION_KILL] = "kill",
	[OPERATION_DELETE] = "delete",
	[OPERATION_SUSPEND] = "suspend",
	[OPERATION_RESUME] = "resume",
	NULL,
};
const char *const operation_state_names[] = {
	[OPERATION_RUNNING] = "running",
	[OPERATION_SUCCEEDED] = "succeeded",
	[OPERATION_FAILED] = "failed",
	[OPERATION_CANCELLED] = "cancelled",
	NULL,
};
const struct operation_origin operation_by_hulld = {.by = REQUESTED_BY_HULLD};
static const char *const phase_names[] = {
	[PHASE_CONNECTIONS] = "connections",
	[PHASE_WORKLOAD] = "workload",
	[PHASE_MONITOR_END] = "monitor_end",
	[PHASE_PORTS] = "ports",
	[PHASE_DEPENDENCIES] = "dependencies",
	[PHASE_DISK] = "disk",
	[PHASE_NETWORK] = "network",
	[PHASE_MONITOR] = "monitor",
	[PHASE_KERNEL] = "kernel",
	[PHASE_AGENT] = "agent",
	[PHASE_HEALTH] = "health",
	[PHASE_HOOK] = "hook",
	[PHASE_SAVE] = "save",
};

struct operation {
	struct operation_record record; /* but for `phases` and `error`: */
	json_t *phases, *error;		/* `error` may be NULL */
	struct operation_record written; /* as its row is, */
	json_t *written_phases;		 /* NULL: there is none */
	bool is_changed;		 /* its row is not as this is */
	bool replaces;			 /* ended the next one */
	struct loop_source *timer;	 /* of the phase `health`, or NULL */
	struct operation_waiter *waiters;
	struct operation *next;
};

/* Those of a machine: the one under way first, if there is one, then those that have ended and are not written. */

static struct operation *current(const struct machine *m)
{
	struct operation *op = m->operations;

	return op && op->record.state == OPERATION_RUNNING ? op : NULL;
}

const struct operation_record *operation_current(const struct machine *m)
{
	const struct operation *op = current(m);

	return op ? &op->record : NULL;
}

bool operation_is(const struct machine *m, enum operation_kind kind)
{
	const struct operation *op = current(m);

	return op && op->record.kind == (int)kind;
}

bool operation_is_cancelled(const struct machine *m)
{
	const struct operation *op = current(m);

	return op && op->record.cancelled_by[0];
}

const char *operation_latest(const struct machine *m)
{
	return m->latest_operation;
}

const char *operation_asker(const struct client *client)
{
	return client->token[0] ? client->token : REQUESTED_BY_HOST;
}

static void operation_free(struct operation *op)
{
	loop_remove(op->timer);
	json_decref(op->phases);
	json_decref(op->written_phases);
	json_decref(op->error);
	free(op);
}

static struct operation *push(struct machine *m, const struct operation_record *record)
{
	struct operation *op = calloc(1, sizeof(*op));

	if (!op)
		abort();
	op->record = *record;
	op->record.phases = op->record.error = NULL;
	op->next = m->operations;
	m->operations = op;
	return op;
}

/* Phases, as they are shown: {"name", "started_at", "ended_at"}, the last of which goes on while `phase` is not "". */

static json_t *time_now(void)
{
	cleanup_free char *text = format_time(now_ms());

	return json_string(text);
}

static void end_phase(struct operation *op)
{
	json_t *last = json_array_get(op->phases, json_array_size(op->phases) - 1);

	if (op->record.phase[0])
		json_object_set_new(last, "ended_at", time_now());
	op->record.phase[0] = '\0';
}

static void forget_from(struct operation *op, const char *name)
{
	json_t *phase;
	size_t i;

	json_array_foreach (op->phases, i, phase)
		if (strcmp(json_string_value(json_object_get(phase, "name")), name) == 0)
			break;
	while (json_array_size(op->phases) > i)
		json_array_remove(op->phases, json_array_size(op->phases) - 1);
}

void operation_enter(struct machine *m, enum operation_phase phase)
{
	struct operation *op = current(m);
	const char *name = phase_names[phase];

	if (!op || strcmp(op->record.phase, name) == 0)
		return;
	operation_progress_enter(&op->record, m, phase);
	end_phase(op);
	forget_from(op, name);
	json_array_append_new(op->phases, json_pack("{s:s, s:o, s:n}", "name", name, "started_at", time_now(), "ended_at"));
	snprintf(op->record.phase, sizeof(op->record.phase), "%s", name);
	op->is_changed = true;
}

bool operation_is_in(const struct machine *m, enum operation_phase phase)
{
	const struct operation *op = current(m);

	return op && strcmp(op->record.phase, phase_names[phase]) == 0;
}

int64_t operation_phase_since(const struct machine *m)
{
	const struct operation *op = current(m);
	const json_t *last = op ? json_array_get(op->phases, json_array_size(op->phases) - 1) : NULL, *at = json_object_get(last, "started_at");

	return at ? parse_time(json_string_value(at)) : 0;
}

/* Its life. */

static bool is_start(const struct machine *m)
{
	return operation_is(m, OPERATION_START) || operation_is(m, OPERATION_RESTART) || operation_is(m, OPERATION_RESUME);
}

void operation_set_timeout(struct machine *m, int64_t timeout_ms)
{
	struct operation *op = current(m);

	if (!op)
		return;
	op->record.deadline = now_ms() + timeout_ms;
	op->is_changed = true;
}

int64_t operation_time_left_ms(const struct machine *m, int64_t max_ms)
{
	const struct operation *op = current(m);
	int64_t left_ms = op ? op->record.deadline - now_ms() : max_ms;

	/* The clock may have been set. */
	return left_ms < 0 ? 0 : left_ms > max_ms ? max_ms : left_ms;
}

static void end(struct operation *op, enum operation_state state)
{
	end_phase(op);
	op->record.state = state;
	op->record.ended_at = now_ms();
	op->is_changed = true;
}

static void end_for(struct operation *op, const char *by)
{
	if (!op->record.cancelled_by[0])
		snprintf(op->record.cancelled_by, sizeof(op->record.cancelled_by), "%s", by);
	end(op, OPERATION_CANCELLED);
}

void operation_begin(struct machine *m, enum operation_kind kind, int64_t timeout_ms, const struct operation_origin *origin)
{
	struct operation_record record = {.kind = kind, .state = OPERATION_RUNNING, .created_at = now_ms(), .request = origin->request};
	struct operation *before = current(m), *op;

	memcpy(record.id, "op", 2);
	random_base32(record.id + 2, OPERATION_ID_BYTES - 2);
	snprintf(record.project, sizeof(record.project), "%s", m->record.project);
	snprintf(record.machine, sizeof(record.machine), "%s", m->record.id);
	snprintf(record.name, sizeof(record.name), "%s", m->record.name);
	snprintf(record.requested_by, sizeof(record.requested_by), "%s", origin->by);
	record.deadline = record.created_at + timeout_ms;
	if (before)
		end_for(before, record.id);
	snprintf(m->latest_operation, sizeof(m->latest_operation), "%s", record.id);
	op = push(m, &record);
	op->phases = json_array();
	op->is_changed = true;
	op->replaces = before;
}

void operation_begin_or_join(struct machine *m, enum operation_kind kind, int64_t timeout_ms, const struct operation_origin *origin)
{
	if (!operation_is(m, kind) || operation_is_cancelled(m))
		operation_begin(m, kind, timeout_ms, origin);
	else if (operation_current(m)->deadline > now_ms() + timeout_ms)
		operation_set_timeout(m, timeout_ms);
}

void operation_succeed(struct machine *m)
{
	struct operation *op = current(m);

	if (op)
		end(op, OPERATION_SUCCEEDED);
}

void operation_fail(struct machine *m, enum problem_code code, const char *detail)
{
	struct operation *op = current(m);
	struct problem problem;

	if (!op)
		return;
	problem_set(&problem, code, NULL, "%s", detail);
	op->error = problem_dump(&problem);
	end(op, OPERATION_FAILED);
}

void operation_cancel(struct machine *m, const char *by)
{
	struct operation *op = current(m);

	if (op)
		end_for(op, by);
}

void operation_ask_for_end(struct machine *m, const char *by, int64_t timeout_ms)
{
	struct operation *op = current(m);

	if (!op)
		return;
	snprintf(op->record.cancelled_by, sizeof(op->record.cancelled_by), "%s", by);
	operation_set_timeout(m, timeout_ms);
}

/* Writing. */

static int put(struct store *store, const struct operation *op, struct error *err)
{
	cleanup_free char *phases = json_dumps(op->phases, JSON_COMPACT);
	cleanup_free char *error = op->error ? json_dumps(op->error, JSON_COMPACT) : strdup("");
	struct operation_record record = op->record;

	if (!phases || !error)
		abort();
	record.phases = phases;
	record.error = error;
	return store_operation_put(store, &record, err);
}

/* The oldest first, so that what takes the place of another comes after that. */
static int put_all(struct store *store, const struct operation *op, struct error *err)
{
	int r = op ? put_all(store, op->next, err) : 0;

	return r == 0 && op && op->is_changed ? put(store, op, err) : r;
}

static bool is_changed(const struct machine *m)
{
	for (const struct operation *op = m->operations; op; op = op->next)
		if (op->is_changed)
			return true;
	return false;
}

int operations_forget(struct hulld *hulld, int64_t now, struct error *err)
{
	return store_operations_prune(hulld->store, now - KEPT_MS, FORGET_MAX, err);
}

static void trim(const struct machine *m)
{
	struct error err;

	if (store_operations_trim(m->hulld->store, m->record.project, KEPT, FORGET_MAX, &err) < 0)
		log_error_object(&err, "too many operations are kept");
}

static void pop(struct machine *m)
{
	struct operation *op = m->operations;

	m->operations = op->next;
	operation_free(op);
}

void operation_undo(struct machine *m)
{
	struct operation *op = m->operations;
	bool replaced = op && op->replaces;

	if (op && !op->written_phases) {
		pop(m);
		op = replaced ? m->operations : NULL;
	}
	if (!op || !op->written_phases)
		return;
	op->record = op->written;
	json_decref(op->phases);
	op->phases = json_deep_copy(op->written_phases);
	op->is_changed = false;
}

static void is_written(struct operation *op)
{
	op->is_changed = false;
	op->written = op->record;
	json_decref(op->written_phases);
	op->written_phases = json_deep_copy(op->phases);
	if (!op->written_phases)
		abort();
}

/* They are in the database: those that have ended are not needed here any more. */
static void settle(struct machine *m)
{
	struct operation **link = &m->operations;

	while (*link) {
		struct operation *op = *link;

		if (!op->written_phases && random_number() % TRIM_EVERY == 0)
			trim(m);
		is_written(op);
		if (op->record.state == OPERATION_RUNNING) {
			link = &op->next;
			continue;
		}
		*link = op->next;
		operation_tell(&op->waiters);
		operation_free(op);
	}
}

int operation_commit(struct machine *m, struct error *err)
{
	struct store *store = m->hulld->store;
	int r;

	if (!is_changed(m))
		return store_machine_update(store, &m->record, err);
	r = store_transaction_begin(store, err);
	if (r < 0)
		return r;
	r = store_machine_update(store, &m->record, err);
	if (r == 0)
		r = put_all(store, m->operations, err);
	r = store_transaction_end(store, r, err);
	if (r == 0)
		settle(m);
	return r;
}

int operation_commit_removal(struct machine *m, struct error *err)
{
	struct store *store = m->hulld->store;
	struct error ignored;
	int r;

	if (!m->operations)
		return store_machine_delete(store, m->record.id, err);
	if (operation_is(m, OPERATION_DELETE))
		operation_succeed(m);
	else
		operation_cancel(m, REQUESTED_BY_HULLD);
	r = store_transaction_begin(store, err);
	if (r < 0)
		return r;
	r = store_machine_delete(store, m->record.id, err);
	if (r == 0)
		r = put_all(store, m->operations, err);
	r = store_transaction_end(store, r, err);
	if (r == 0) {
		settle(m);
		return 0;
	}
	operation_undo(m);
	if (operation_is(m, OPERATION_DELETE))
		operation_fail(m, PROBLEM_INTERNAL, err->message);
	if (operation_commit(m, &ignored) < 0)
		log_error_object(&ignored, m->record.name);
	return r;
}

/* What becomes of one with its machine. */

static void on_health_deadline(void *ctx)
{
	struct machine *m = ctx;

	if (!operation_is_in(m, PHASE_HEALTH))
		return;
	operation_fail(m, PROBLEM_TIMEOUT, "the machine runs, and no health check has succeeded yet");
	machine_commit(m);
}

static void await_health(struct machine *m)
{
	int64_t timeout_ms = health_patience_ms(m->spec.health);
	struct operation *op = current(m);

	if (!operation_is_in(m, PHASE_HEALTH)) {
		operation_enter(m, PHASE_HEALTH);
		operation_set_timeout(m, timeout_ms);
	}
	if (!op->timer)
		op->timer = loop_add_timer(m->hulld->loop, on_health_deadline, m);
	if (!op->timer)
		abort();
	loop_timer_arm(op->timer, (uint64_t)operation_time_left_ms(m, timeout_ms) * NS_PER_MS);
}

void operation_check_is_another(struct machine *m)
{
	int64_t left_ms;

	if (!m->spec.health || !operation_is_in(m, PHASE_HEALTH))
		return;
	left_ms = operation_phase_since(m) + health_patience_ms(m->spec.health) - now_ms();
	if (left_ms > operation_time_left_ms(m, INT64_MAX)) {
		operation_set_timeout(m, left_ms);
		await_health(m);
		machine_commit(m);
	}
}

void operation_machine_is_up(struct machine *m)
{
	if (!is_start(m))
		return;
	if (m->spec.health)
		await_health(m);
	else
		operation_succeed(m);
}

void operation_health_is_known(struct machine *m, bool healthy, const char *reason)
{
	cleanup_free char *detail = NULL;

	if (!operation_is_in(m, PHASE_HEALTH))
		return;
	if (asprintf(&detail, "the machine runs, but is not healthy: %s", reason) < 0)
		abort();
	if (healthy)
		operation_succeed(m);
	else
		operation_fail(m, PROBLEM_MACHINE_FAILED, detail);
	machine_commit(m);
}

/* A workload may have done all it had to before the agent was heard: that was a run. */
static bool has_run(const struct machine_end *end)
{
	return !end->failed && end->exit_status >= 0;
}

void operation_machine_has_ended(struct machine *m, const struct machine_end *end, bool again)
{
	const struct operation_record *op = operation_current(m);
	cleanup_free char *detail = NULL;

	if (!op)
		return;
	if (asprintf(&detail, "%s: %s", end->code, end->message) < 0)
		abort();
	if (op->cancelled_by[0])
		operation_cancel(m, op->cancelled_by);
	else if (op->kind == OPERATION_DELETE)
		operation_enter(m, PHASE_PORTS);
	else if (op->kind == OPERATION_STOP || op->kind == OPERATION_KILL ||
		 (!again && op->kind != OPERATION_SUSPEND && !operation_is_in(m, PHASE_HEALTH) && has_run(end)))
		operation_succeed(m);
	else if (!again)
		operation_fail(m, strcmp(end->code, "start_timeout") == 0 ? PROBLEM_TIMEOUT : PROBLEM_MACHINE_FAILED, detail);
}

struct operation_waiter **operation_waiters(const struct hulld *hulld, const char *id)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (m->operations && strcmp(m->operations->record.id, id) == 0)
			return &m->operations->waiters;
	return NULL;
}

void operations_free(struct machine *m)
{
	while (m->operations)
		pop(m);
}

/* After a restart of hulld. */

static int load_one(void *ctx, const struct operation_record *record)
{
	struct hulld *hulld = ctx;
	struct machine *m = machine_by_id(hulld, record->machine);
	struct operation *op, *before = m ? current(m) : NULL;
	struct error err;

	if (!m)
		return 0;
	if (before)
		end_for(before, record->id);
	op = push(m, record);
	op->phases = json_parse(record->phases, strlen(record->phases), &err);
	if (!json_is_array(op->phases)) {
		json_decref(op->phases);
		op->phases = json_array(); /* not ours */
		op->record.phase[0] = '\0';
	}
	is_written(op);
	snprintf(m->latest_operation, sizeof(m->latest_operation), "%s", record->id);
	return 0;
}

int operations_load(struct hulld *hulld, struct error *err)
{
	struct problem problem;
	cleanup_free char *text = NULL;
	json_t *dumped;
	int r;

	problem_set(&problem, PROBLEM_NOT_FOUND, NULL, "there is no such machine any more");
	dumped = problem_dump(&problem);
	text = json_dumps(dumped, JSON_COMPACT);
	json_decref(dumped);
	if (!text)
		abort();
	r = store_operations_end_orphans(hulld->store, now_ms(), text, err);
	return r < 0 ? r : store_operations_running(hulld->store, load_one, hulld, err);
}
