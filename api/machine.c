/* The states of a machine. See machine.h for the theory of operation. */
#include "api/machine.h"

#include "api/clock.h"
#include "api/health.h"
#include "api/host_drain.h"
#include "api/image.h"
#include "api/ingress_client.h"
#include "api/log_age.h"
#include "api/logs.h"
#include "api/operation.h"
#include "api/project.h"
#include "api/random.h"
#include "api/start_order.h"
#include "api/supervisor.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BACKOFF_MAX_MS	  60000
#define STEADY_RUN_MS	  60000 /* a run as long as this ends a row of failures */
#define QUICK_RESET_MS	  10000 /* a guest that resets sooner is slowed down like a failing one */
#define KILL_TIMEOUT_S	  0

char *machine_state_path(const struct machine *m, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/machines/%s/%s", m->hulld->options.state, m->record.id, name);
	return ret;
}

char *machine_run_path(const struct machine *m, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/machines/%s/%s", m->hulld->options.run, m->record.id, name);
	return ret;
}

/* Which there are. */

const struct machine *machine_using_image(const struct hulld *hulld, const char *project, const char *image)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (strcmp(m->record.project, project) == 0 &&
			(strcmp(m->spec.image, image) == 0 || strcmp(machine_running_spec(m)->image, image) == 0))
			return m;
	return NULL;
}

bool machines_publish_ports(const struct hulld *hulld)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (m->spec.ports.len)
			return true;
	return false;
}

const struct machine_spec *machine_running_spec(const struct machine *m)
{
	return m->run_spec ? m->run_spec : &m->spec;
}

bool machine_is_active(const struct machine *m)
{
	return m->record.state == MACHINE_STARTING || m->record.state == MACHINE_RUNNING ||
	       m->record.state == MACHINE_STOPPING;
}

bool machine_restarts(const struct machine *m)
{
	return m->record.restart_at != 0;
}

json_t *machine_dump(const struct machine *m)
{
	const struct machine_record *record = &m->record;
	struct machine_cause cause = {(char *)record->cause_code, (char *)record->cause_message};
	cleanup_free char *created = format_time(record->created_at);
	cleanup_free char *started = format_time(record->started_at);
	cleanup_free char *stopped = format_time(record->stopped_at);
	cleanup_free char *healthy_since = NULL;
	char *pending[MACHINE_PENDING_MAX], *waiting_for[DEPENDS_ON_MAX];
	const struct operation_record *operation = operation_current(m);
	struct health_view health;
	struct machine_view view = {
		.spec = m->spec,
		.id = (char *)record->id,
		.project = (char *)record->project,
		.state = record->state,
		.rootfs = (char *)record->rootfs,
		.frozen = m->frozen,
		.cause = record->cause_code[0] ? &cause : NULL,
		.exit_status = record->exit_status >= 0 ? json_integer(record->exit_status) : NULL,
		.pid = record->monitor.pid > 0 ? json_integer(record->monitor.pid) : NULL,
		.pending = {pending, machine_pending(m, (const char **)pending)},
		.waiting_for = {waiting_for, start_order_waits_for(m, waiting_for)},
		.restarts = record->restarts,
		.created_at = created,
		.started_at = started,
		.stopped_at = stopped,
		.operation = operation ? (char *)operation->id : NULL,
	};
	json_t *dumped;

	if (m->spec.health) {
		int64_t since_ms;

		health_view(m, &health, &since_ms);
		health.since = healthy_since = format_time(since_ms);
		view.health = &health;
	}
	dumped = json_dump(&machine_table, &view);
	json_decref(view.exit_status);
	json_decref(view.pid);
	return dumped;
}

/* Changing. */

static void tell(struct machine *m)
{
	ingress_tell_gate(m->hulld->ingress, m);
	machine_tell_waiters(m);
	logs_wake(m->hulld->logs, m->record.id);
}

static int commit(struct machine *m, const struct machine_record *before, struct problem *problem)
{
	struct error err;

	if (operation_commit(m, &err) < 0) {
		m->record = *before; /* the owned strings are the same */
		operation_undo(m);
		return problem_from_error(problem, &err);
	}
	tell(m);
	return 0;
}

void machine_commit(struct machine *m)
{
	struct error err;

	if (operation_commit(m, &err) < 0)
		log_error_object(&err, m->record.name);
	tell(m);
}

static void forget_run_spec(struct machine *m)
{
	if (m->run_spec)
		json_done(&machine_spec_table, m->run_spec);
	free(m->run_spec);
	m->run_spec = NULL;
}

/* From now on it is what it is to be. */
static void end_run(struct machine_record *record)
{
	free(record->run_spec);
	free(record->run_image_config);
	record->run_spec = record->run_image_config = NULL;
	record->run_rootfs[0] = '\0';
}

/* Nothing is asked of it any more. */
static void leave_alone(struct machine *m)
{
	health_stop(m);
	clock_forget(m);
	m->frozen = false;
}

static void disarm_restart(struct machine *m)
{
	loop_timer_arm(m->restart, UINT64_MAX);
}

static int refuse_deleting(const struct machine *m, struct problem *problem)
{
	return m->deleting ? problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is being deleted", m->record.name)
			   : 0;
}

/* It is begun no earlier than the run before was, nor than a restart was asked for, though the clock was set back since. */
static int64_t choose_start(const struct machine *m)
{
	const struct operation_record *op = operation_current(m);
	int64_t at = now_ms();

	if (at < m->record.started_at)
		at = m->record.started_at;
	return op && op->kind == OPERATION_RESTART && at < op->created_at ? op->created_at : at;
}

static void begin_run(struct machine *m)
{
	struct machine_record *record = &m->record;

	record->started_at = choose_start(m);
	m->began_ns = monotonic_ns();
	record->state = MACHINE_STARTING;
	record->monitor = record->passt = (struct process_id){0};
	record->restart_at = 0;
	record->restart_wanted = false;
	record->exit_status = -1;
	record->stopped_at = 0;
}

int machine_start(struct machine *m, bool attached, const struct operation_origin *origin, struct problem *problem)
{
	struct machine_record before = m->record;
	int r = refuse_deleting(m, problem);

	if (r == 0 && m->record.state == MACHINE_STOPPING) {
		problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is stopping", m->record.name);
		return problem_set_hint(problem, "wait for stopped, or use restart");
	}
	if (r == 0 && attached && machine_is_active(m))
		return problem_set(problem, PROBLEM_WRONG_STATE, "attached", "machine %s is %s: its workload waits for nobody",
			m->record.name, machine_state_names[m->record.state]);
	if (r < 0 || machine_is_active(m))
		return r;
	r = host_check_starts(m->hulld, problem);
	if (r == 0)
		r = supervisor_check(m, problem);
	if (r == 0)
		r = quota_check_start(m->hulld, m->record.project, problem);
	if (r < 0)
		return r;
	begin_run(m);
	m->record.cause_code[0] = m->record.cause_message[0] = '\0';
	m->record.failures = 0;
	operation_begin(m, OPERATION_START, 0, origin);
	supervisor_enter_first_phase(m);
	r = commit(m, &before, problem);
	if (r < 0)
		return r;
	disarm_restart(m);
	m->attached = attached;
	supervisor_start(m);
	return 0;
}

/* By policy, after a reset, or as the second half of a restart. */
static void start_again(struct machine *m)
{
	struct machine_end end = {.code = "start_failed", .exit_status = -1, .failed = true};
	struct problem problem;

	if (!m->record.restart_wanted)
		m->record.restarts++;
	if (!m->record.restart_wanted || !operation_is(m, OPERATION_RESTART))
		operation_begin(m, OPERATION_RESTART, 0, &operation_by_hulld);
	begin_run(m);
	m->attached = false;
	supervisor_enter_first_phase(m);
	machine_commit(m);
	/* Quotas may have been lowered since. */
	if (supervisor_check(m, &problem) == 0 && quota_check_start(m->hulld, m->record.project, &problem) == 0) {
		supervisor_start(m);
		return;
	}
	snprintf(end.message, sizeof(end.message), "%s", problem.error.message);
	machine_has_ended(m, &end);
}

static void on_restart_due(void *ctx)
{
	struct machine *m = ctx;

	if (m->record.restart_at && !machine_is_active(m) && !m->deleting && host_starts(m->hulld))
		start_again(m);
}

/* The operation's, of the stop that follows. */
static void enter_end_phase(struct machine *m)
{
	operation_enter(m, !m->up || !m->record.stop_timeout_s ? PHASE_MONITOR_END
			   : supervisor_drains(m)	       ? PHASE_CONNECTIONS
							       : PHASE_WORKLOAD);
}

static int stop(struct machine *m, enum operation_kind kind, bool then_start, int64_t timeout_s, const struct operation_origin *origin,
	struct problem *problem)
{
	struct machine_record before = m->record;
	bool active = machine_is_active(m), again = m->record.state == MACHINE_STOPPING;
	int64_t left_ms = again ? supervisor_stop_left_ms(m) : 0;
	bool shortens = !again || timeout_s * 1000 < left_ms; /* a second stop may only do that */
	int r = refuse_deleting(m, problem);

	if (r < 0)
		return r;
	if (!active && then_start)
		return machine_start(m, false, origin, problem);
	if (!active && !m->record.restart_at)
		return 0;
	if (active) {
		m->record.state = MACHINE_STOPPING;
		if (shortens)
			m->record.stop_timeout_s = timeout_s;
		if (again)
			operation_begin_or_join(m, kind, shortens ? timeout_s * 1000 : left_ms, origin);
		else
			operation_begin(m, kind, timeout_s * 1000, origin);
		if (!operation_current(m)->phase[0])
			enter_end_phase(m);
	} else {
		operation_cancel(m, origin->by);
	}
	m->record.restart_wanted = then_start;
	m->record.restart_at = 0;
	r = commit(m, &before, problem);
	if (r < 0)
		return r;
	disarm_restart(m);
	leave_alone(m); /* the agent thaws it */
	if (active && shortens)
		supervisor_stop(m, (uint64_t)timeout_s * 1000);
	return 0;
}

int machine_stop(struct machine *m, int64_t timeout_s, bool then_start, const struct operation_origin *origin, struct problem *problem)
{
	return stop(m, then_start ? OPERATION_RESTART : OPERATION_STOP, then_start, timeout_s, origin, problem);
}

int machine_stop_for_now(struct machine *m, int64_t timeout_s, bool then_start, struct problem *problem)
{
	return stop(m, OPERATION_STOP, then_start, timeout_s, &operation_by_hulld, problem);
}

int machine_kill(struct machine *m, const struct operation_origin *origin, struct problem *problem)
{
	int r = stop(m, OPERATION_KILL, false, KILL_TIMEOUT_S, origin, problem);

	if (r == 0 && machine_is_active(m))
		supervisor_kill(m, "killed");
	return r;
}

int machine_kill_to_delete(struct machine *m, const char *by, struct problem *problem)
{
	int r = stop(m, OPERATION_DELETE, false, KILL_TIMEOUT_S, &(struct operation_origin){.by = by}, problem);

	if (r < 0)
		return r;
	m->deleting = true; /* from now on nobody else may stop it any more */
	if (machine_is_active(m))
		supervisor_kill(m, "killed");
	else
		machine_tell_waiters(m); /* it had not got far: its removal begins */
	return 0;
}

/* Its start comes to nothing: it is stopped. */
static int undo_start(struct machine *m, const char *by, struct problem *problem)
{
	struct machine_record before = m->record;
	int r;

	m->record.state = MACHINE_STOPPING;
	m->record.stop_timeout_s = machine_running_spec(m)->stop.timeout_s;
	operation_ask_for_end(m, by, m->record.stop_timeout_s * 1000);
	enter_end_phase(m);
	r = commit(m, &before, problem);
	if (r < 0)
		return r;
	leave_alone(m);
	supervisor_stop(m, (uint64_t)m->record.stop_timeout_s * 1000);
	return 0;
}

/* Its workload has not heard of its stop: it runs on. */
static int undo_stop(struct machine *m, const char *by, struct problem *problem)
{
	struct machine_record before = m->record;
	int r;

	m->record.state = MACHINE_RUNNING;
	m->record.restart_wanted = false;
	operation_cancel(m, by);
	r = commit(m, &before, problem);
	if (r < 0)
		return r;
	supervisor_run_on(m);
	health_start(m);
	clock_step(m); /* its answer says whether it is frozen, too */
	return 0;
}

/* Of a machine that was to be back once the host is: it stays down. */
static int undo_return(struct machine *m, const char *by, struct problem *problem)
{
	struct machine_record before = m->record;

	m->record.restart_wanted = false;
	m->record.restart_at = 0;
	operation_cancel(m, by);
	return commit(m, &before, problem);
}

static int refuse_cancel(const struct machine *m, struct problem *problem)
{
	problem_set(problem, PROBLEM_WRONG_STATE, NULL,
		operation_is(m, OPERATION_KILL) || operation_is(m, OPERATION_DELETE) ? "machine %s is killed already"
		: m->up								     ? "the workload of machine %s has been told to end"
										     : "machine %s, which was not up yet, is ended",
		m->record.name);
	return problem_set_hint(problem, "wait for its end, and start it again");
}

int machine_cancel(struct machine *m, const char *by, struct problem *problem)
{
	bool starts = operation_is(m, OPERATION_START) || operation_is(m, OPERATION_RESTART);

	if (operation_is_cancelled(m))
		return 0;
	if (starts && (m->record.state == MACHINE_STARTING || m->record.state == MACHINE_RUNNING))
		return undo_start(m, by, problem);
	if (starts && !machine_is_active(m))
		return undo_return(m, by, problem);
	if ((starts || operation_is(m, OPERATION_STOP)) && m->draining)
		return host_check_starts(m->hulld, problem) < 0 ? -ECANCELED : undo_stop(m, by, problem);
	return refuse_cancel(m, problem);
}

void machine_is_up(struct machine *m)
{
	if (m->record.state != MACHINE_STARTING)
		return;
	m->record.state = MACHINE_RUNNING;
	operation_machine_is_up(m);
	machine_commit(m);
	health_start(m);
}

/* Decides whether and when the machine starts again by itself. */
static void schedule_restart(struct machine *m, const struct machine_end *end)
{
	struct machine_record *record = &m->record;
	int64_t ran_ms = m->began_ns ? (int64_t)((monotonic_ns() - m->began_ns) / 1000000) : now_ms() - record->started_at;
	int64_t delay_ms = BACKOFF_MAX_MS;
	bool reset = strcmp(end->code, "reset") == 0, bad = end->failed || end->exit_status > 0;
	bool wanted = reset || m->spec.restart.policy == RESTART_ALWAYS ||
		      (m->spec.restart.policy == RESTART_ON_FAILURE && bad);

	if (ran_ms >= STEADY_RUN_MS)
		record->failures = 0;
	if (bad || (reset && ran_ms < QUICK_RESET_MS))
		record->failures++;
	if (!wanted || (!reset && m->spec.restart.max_retries && record->failures > m->spec.restart.max_retries))
		return;
	if (reset && record->failures <= 1)
		delay_ms = 0;
	else if (record->failures < 7)
		delay_ms = record->failures ? 1000 << (record->failures - 1) : 1000;
	record->restart_at = now_ms() + (delay_ms < BACKOFF_MAX_MS ? delay_ms : BACKOFF_MAX_MS);
}

static void arm_restart(struct machine *m)
{
	int64_t wait_ms = m->record.restart_at - now_ms();

	if (!m->record.restart_at)
		return;
	/* The clock may have been set meanwhile: never later than the policy's longest wait. */
	if (wait_ms < 0)
		wait_ms = 0;
	if (wait_ms > BACKOFF_MAX_MS)
		wait_ms = BACKOFF_MAX_MS;
	loop_timer_arm(m->restart, (uint64_t)wait_ms * 1000000);
}

void machine_rearm_restart(struct machine *m, unsigned wait_ms)
{
	loop_timer_arm(m->restart, (uint64_t)wait_ms * 1000000);
}

void machine_has_ended(struct machine *m, const struct machine_end *end)
{
	struct machine_record *record = &m->record;
	bool asked = record->state == MACHINE_STOPPING, again = asked && record->restart_wanted && !m->deleting;
	char rootfs[sizeof(record->run_rootfs)];
	struct problem problem;

	snprintf(rootfs, sizeof(rootfs), "%s", record->run_rootfs);
	leave_alone(m);
	forget_run_spec(m);
	end_run(record);
	record->state = end->failed && !asked ? MACHINE_FAILED : MACHINE_STOPPED;
	if (operation_is_cancelled(m)) {
		snprintf(record->cause_code, sizeof(record->cause_code), "cancelled");
		snprintf(record->cause_message, sizeof(record->cause_message), "its start was cancelled");
	} else {
		snprintf(record->cause_code, sizeof(record->cause_code), "%s", end->code);
		snprintf(record->cause_message, sizeof(record->cause_message), "%s", end->message);
	}
	for (char *c = record->cause_message; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	record->exit_status = end->exit_status;
	record->monitor = record->passt = (struct process_id){0};
	record->stopped_at = now_ms();
	record->restart_wanted = again;
	record->restart_at = 0;
	operation_machine_has_ended(m, end, again);
	log_info("machine %s ended: %s%s%s", record->name, record->cause_code, record->cause_message[0] ? ": " : "",
		record->cause_message);
	if (again)
		record->restart_at = now_ms();
	else if (!asked && !m->deleting)
		schedule_restart(m, end);
	if (record->restart_at && record->restart_at <= now_ms() && host_starts(m->hulld)) {
		start_again(m); /* nobody sees it stopped in between */
	} else {
		if (again && host_check_stays(m->hulld, &problem) < 0) /* what a client waits for comes to nothing; it starts later all the same */
			operation_fail(m, problem.code, problem.error.message);
		arm_restart(m);
		machine_commit(m);
		host_drain_look(m->hulld);
	}
	if (rootfs[0])
		image_release_blob(m->hulld, record->project, rootfs);
}

/* Coming and going. */

static void machine_free(struct machine *m)
{
	supervisor_release(m);
	leave_alone(m);
	loop_remove(m->restart);
	json_done(&machine_spec_table, &m->spec);
	forget_run_spec(m);
	operations_free(m);
	machine_record_done(&m->record);
	free(m);
}

/* Takes `record` and `spec`. */
static struct machine *machine_new(struct hulld *hulld, struct machine_record *record, struct machine_spec *spec)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		abort();
	m->hulld = hulld;
	m->record = *record;
	m->spec = *spec;
	free(m->record.spec);
	m->record.spec = NULL; /* `spec` says it all */
	machine_note_labels(m);
	memset(record, 0, sizeof(*record));
	memset(spec, 0, sizeof(*spec));
	m->restart = loop_add_timer(hulld->loop, on_restart_due, m);
	if (!m->restart)
		abort();
	machine_index_add(m);
	return m;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
	(void)st;
	(void)kind;
	(void)walk;
	if (remove(path) < 0 && errno != ENOENT)
		log_warn("cannot remove %s: %s", path, strerror(errno));
	return 0;
}

/* Not FTW_MOUNT: on an overlay a file's device is not its folder's, and would be passed over. */
static void remove_tree(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_id(struct hulld *hulld, struct machine_record *record)
{
	do {
		record->id[0] = 'm';
		random_base32(record->id + 1, MACHINE_ID_BYTES - 1);
	} while (machine_by_id(hulld, record->id));
}

static char *make_name(struct hulld *hulld, const char *project)
{
	char suffix[8], *name;

	for (;;) {
		random_base32(suffix, 6);
		if (asprintf(&name, "machine-%s", suffix) < 0)
			abort();
		if (!machine_find(hulld, project, name))
			return name;
		free(name);
	}
}

/* No two have the same, and so they are listed in the order in which they were made. */
static int64_t choose_time(const struct hulld *hulld)
{
	const struct machine *m = hulld->last_machine;
	int64_t at = now_ms();

	while (m && m->record.created_at >= at)
		m = m->previous;
	for (m = m ? m->next : hulld->machines; m && m->record.created_at == at; m = m->next)
		at++;
	return at;
}

static int fill_record(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec,
	const struct image_view *image, struct machine_record *record, struct error *err)
{
	json_t *dumped, *config;

	*record = (struct machine_record){.state = spec->ports.len ? MACHINE_CREATING : MACHINE_CREATED,
		.exit_status = -1, .created_at = choose_time(hulld), .request = origin->request};
	make_id(hulld, record);
	if (!spec->name)
		spec->name = make_name(hulld, origin->project);
	dumped = json_dump(&machine_spec_table, spec);
	config = json_dump(&image_config_table, &image->spec.config);
	snprintf(record->project, sizeof(record->project), "%s", origin->project);
	snprintf(record->name, sizeof(record->name), "%s", spec->name);
	snprintf(record->rootfs, sizeof(record->rootfs), "%s", image->spec.rootfs);
	record->spec = json_dumps(dumped, JSON_COMPACT);
	record->image_config = json_dumps(config, JSON_COMPACT);
	json_decref(dumped);
	json_decref(config);
	return record->spec && record->image_config ? 0 : error_set(err, ENOMEM, "out of memory");
}

/* The row of a machine that there may be. machine_record_done() in any case. 0, or -ECANCELED with `problem` set. */
static int prepare(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, struct machine_record *record,
	struct problem *problem)
{
	struct image_view image = {0};
	struct error err;
	int r = machine_check_image(hulld, origin->project, spec->image, &image, problem);

	memset(record, 0, sizeof(*record));
	if (r == 0)
		r = machine_check_spec(hulld, origin->project, NULL, spec, &image.spec.config, problem);
	if (r == 0 && fill_record(hulld, origin, spec, &image, record, &err) < 0)
		r = problem_from_error(problem, &err);
	json_done(&image_table, &image);
	return r;
}

int machine_plan(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, json_t **ret, struct problem *problem)
{
	struct machine m = {.hulld = hulld};
	int r = prepare(hulld, origin, spec, &m.record, problem);

	if (r == 0) {
		m.record.state = MACHINE_CREATED;
		m.spec = *spec;
		*ret = machine_dump(&m);
	}
	machine_record_done(&m.record);
	json_done(&machine_spec_table, spec);
	return r;
}

int machine_insert(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, struct machine **ret,
	struct problem *problem)
{
	struct machine_record record;
	struct error err;
	int r = prepare(hulld, origin, spec, &record, problem);

	if (r == 0 && store_machine_insert(hulld->store, &record, &err) < 0)
		r = err.errnum == EEXIST ? problem_set(problem, PROBLEM_NAME_TAKEN, "name",
						   "a machine \"%s\" exists already", record.name)
					 : problem_from_error(problem, &err);
	if (r == 0) {
		*ret = machine_new(hulld, &record, spec);
	} else {
		machine_record_done(&record);
		json_done(&machine_spec_table, spec);
	}
	return r;
}

int machine_created(struct machine *m, struct problem *problem)
{
	struct machine_record before = m->record;

	m->record.state = MACHINE_CREATED;
	return commit(m, &before, problem);
}

int machine_remove(struct machine *m, struct problem *problem)
{
	struct hulld *hulld = m->hulld;
	char rootfs[sizeof(m->record.rootfs)], project[sizeof(m->record.project)], path[512];
	struct error err;

	assert(!machine_is_active(m));
	if (operation_commit_removal(m, &err) < 0)
		return problem_from_error(problem, &err);
	machine_index_remove(m);
	snprintf(rootfs, sizeof(rootfs), "%s", m->record.rootfs);
	snprintf(project, sizeof(project), "%s", m->record.project);
	remove_tree(machine_state_path(m, "", path, sizeof(path)));
	remove_tree(machine_run_path(m, "", path, sizeof(path)));
	image_release_blob(hulld, project, rootfs);
	machine_tell_removed(m);
	start_order_tell_removed(hulld, project, m->record.name);
	logs_wake(hulld->logs, m->record.id);
	log_age_forget(hulld->log_age, m);
	machine_free(m);
	return 0;
}

/* After a restart of hulld. */

static int read_spec(const char *text, struct machine_spec *ret, struct error *err)
{
	json_t *parsed = json_parse(text, strlen(text), err);
	int r = parsed ? json_read(&machine_spec_table, parsed, ret, err) : -EINVAL;

	json_decref(parsed);
	return r;
}

static int load_one(void *ctx, struct machine_record *record)
{
	struct hulld *hulld = ctx;
	struct machine_spec spec = {0}, *run_spec = NULL;
	struct error err;
	int r = read_spec(record->spec, &spec, &err);

	if (r == 0 && record->run_spec) {
		run_spec = calloc(1, sizeof(*run_spec));
		if (!run_spec)
			abort();
		r = read_spec(record->run_spec, run_spec, &err);
	}
	if (r < 0) {
		json_done(&machine_spec_table, &spec);
		free(run_spec);
		error_prefix(&err, "machine %s is damaged in the database: ", record->id);
		log_error_object(&err, "cannot load");
		machine_record_done(record);
		return -EINVAL;
	}
	machine_new(hulld, record, &spec)->run_spec = run_spec;
	return 0;
}

static void remove_unknown_folders(struct hulld *hulld, const char *root)
{
	char path[512];
	struct dirent *entry;
	DIR *folder;

	snprintf(path, sizeof(path), "%s/machines", root);
	folder = opendir(path);
	while (folder && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.' || machine_by_id(hulld, entry->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/machines/%s", root, entry->d_name);
		log_info("removing %s, of no machine", path);
		remove_tree(path);
	}
	if (folder)
		closedir(folder);
}

/* One that does not run, and whose operation ended with a record that could not be written. */
static bool is_left_behind(const struct machine *m)
{
	return operation_current(m) && !m->deleting && !machine_is_active(m) && !m->record.restart_wanted;
}

static void take_up(struct machine *m)
{
	struct machine_end end = {.code = "unknown", .message = "it ended unseen", .exit_status = -1};
	struct problem problem;

	m->deleting = operation_is(m, OPERATION_DELETE);
	if (is_left_behind(m)) {
		operation_machine_has_ended(m, &end, false);
		machine_commit(m);
	}
	if (m->record.state == MACHINE_CREATING) {
		if (machine_remove(m, &problem) < 0)
			log_error_object(&problem.error, m->record.name);
	} else if (machine_is_active(m)) {
		supervisor_adopt(m);
	} else if (m->deleting) {
		machine_tell_waiters(m); /* of which there are none: it is removed */
	} else {
		arm_restart(m);
	}
}

int machines_load(struct hulld *hulld, struct error *err)
{
	struct machine *m, *next;
	int r;

	error_set(err, EINVAL, "the log says why");
	r = store_machines_each(hulld->store, load_one, hulld, err);
	if (r < 0)
		return error_prefix(err, "cannot load the machines: ");
	r = operations_load(hulld, err);
	if (r < 0)
		return error_prefix(err, "cannot load the operations: ");
	remove_unknown_folders(hulld, hulld->options.state);
	remove_unknown_folders(hulld, hulld->options.run);
	for (m = hulld->machines; m; m = next) {
		next = m->next;
		take_up(m);
	}
	ingress_reconcile(hulld->ingress);
	host_drain_take_up(hulld);
	return 0;
}

void machines_free(struct hulld *hulld)
{
	while (hulld->machines) {
		struct machine *m = hulld->machines;

		machine_index_remove(m);
		machine_free(m);
	}
}
