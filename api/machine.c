/* The states of a machine. See machine.h for the theory of operation. */
#include "api/machine_private.h"

#include "api/clock.h"
#include "api/health.h"
#include "api/host.h"
#include "api/host_drain.h"
#include "api/idle.h"
#include "api/image.h"
#include "api/ingress_client.h"
#include "api/logs.h"
#include "api/networks.h"
#include "api/operation.h"
#include "api/project.h"
#include "api/start_order.h"
#include "api/supervisor.h"
#include "api/suspend.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

const struct machine_spec *machine_running_spec(const struct machine *m)
{
	return m->run_spec ? m->run_spec : &m->spec;
}

bool machine_is_active(const struct machine *m)
{
	return m->record.state >= MACHINE_STARTING && m->record.state <= MACHINE_STOPPING && m->record.state != MACHINE_SUSPENDED;
}

bool machine_has_run(const struct machine *m)
{
	return machine_is_active(m) || m->record.state == MACHINE_SUSPENDED;
}

bool machine_restarts(const struct machine *m)
{
	return m->record.restart_at != 0;
}

/* Changing. */

static void tell(struct machine *m)
{
	ingress_tell_gate(m->hulld->ingress, m);
	machine_tell_waiters(m);
	logs_wake(m->hulld->logs, m->record.id);
}

int machine_commit_or_undo(struct machine *m, const struct machine_record *before, struct problem *problem)
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
	record->run_address = 0;
}

void machine_set_cause(struct machine *m, const char *code, const char *message)
{
	struct machine_record *record = &m->record;

	snprintf(record->cause_code, sizeof(record->cause_code), "%s", code);
	snprintf(record->cause_message, sizeof(record->cause_message), "%s", message);
	for (char *c = record->cause_message; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
}

void machine_leave_alone(struct machine *m)
{
	health_stop(m);
	clock_forget(m);
	idle_end(m);
	suspend_forget(m);
	m->frozen = false;
}

int machine_refuse_deleting(const struct machine *m, struct problem *problem)
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

	idle_end(m);
	idle_forgive(m);
	record->started_at = choose_start(m);
	m->began_ns = monotonic_ns();
	record->state = MACHINE_STARTING;
	record->monitor = record->passt = (struct process_id){0};
	record->restart_at = 0;
	record->restart_wanted = false;
	record->exit_status = -1;
	record->stopped_at = 0;
}

int machine_check_begin(struct machine *m, struct problem *problem)
{
	struct error err;
	int r = host_check_starts(m->hulld, problem);

	if (r == 0)
		r = supervisor_check(m, problem);
	if (r == 0)
		r = quota_check_start(m->hulld, m->record.project, problem);
	if (r == 0)
		r = host_check_memory(m, problem);
	if (r == 0 && store_check_room(m->hulld->store, 0, &err) < 0)
		r = problem_from_error(problem, &err);
	return r;
}

int machine_start(struct machine *m, bool attached, const struct operation_origin *origin, struct problem *problem)
{
	struct machine_record before = m->record;
	int r = machine_refuse_deleting(m, problem);

	if (r == 0 && !attached && m->record.state == MACHINE_STOPPING && m->record.asleep) /* which nobody had asked for */
		return machine_stop(m, m->record.stop_timeout_s, true, origin, problem);
	if (r == 0 && m->record.state == MACHINE_STOPPING) {
		problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is stopping", m->record.name);
		return problem_set_hint(problem, "wait for stopped, or use restart");
	}
	if (r == 0 && attached && machine_is_active(m))
		return problem_set(problem, PROBLEM_WRONG_STATE, "attached", "machine %s is %s: its workload waits for nobody",
			m->record.name, machine_state_names[m->record.state]);
	if (r == 0 && attached && m->record.state == MACHINE_SUSPENDED)
		return problem_set(problem, PROBLEM_WRONG_STATE, "attached", "machine %s is suspended: its workload has begun", m->record.name);
	if (r == 0 && (m->record.state == MACHINE_SUSPENDING || m->record.state == MACHINE_SUSPENDED))
		return machine_resume(m, origin, problem);
	if (r < 0 || machine_is_active(m))
		return r;
	r = machine_check_begin(m, problem);
	if (r < 0)
		return r;
	begin_run(m);
	m->record.cause_code[0] = m->record.cause_message[0] = '\0';
	m->record.failures = 0;
	m->record.attached = attached;
	operation_begin(m, OPERATION_START, 0, origin);
	supervisor_enter_first_phase(m);
	r = machine_commit_or_undo(m, &before, problem);
	if (r < 0)
		return r;
	machine_disarm_restart(m);
	supervisor_start(m);
	return 0;
}

/* By policy, after a reset, as the second half of a restart, woken, or instead of a resume that failed. */
static void start_again(struct machine *m)
{
	struct machine_end end = {.code = "start_failed", .exit_status = -1, .failed = true};
	bool instead = operation_is(m, OPERATION_RESUME);
	struct problem problem;

	if (!m->record.restart_wanted)
		m->record.restarts++;
	if (!m->record.restart_wanted || (!operation_is(m, OPERATION_RESTART) && !instead))
		operation_begin(m, m->record.asleep ? OPERATION_START : OPERATION_RESTART, 0, &operation_by_hulld);
	if (m->record.asleep && !instead) {
		m->hulld->wakes++;
		m->record.cause_code[0] = m->record.cause_message[0] = '\0';
	}
	begin_run(m);
	m->record.attached = false;
	supervisor_enter_first_phase(m);
	machine_commit(m);
	/* Quotas may have been lowered since, and others run. */
	if (supervisor_check(m, &problem) == 0 && quota_check_start(m->hulld, m->record.project, &problem) == 0 &&
		host_check_memory(m, &problem) == 0) {
		supervisor_start(m);
		return;
	}
	snprintf(end.message, sizeof(end.message), "%s", problem.error.message);
	machine_has_ended(m, &end);
}

void machine_wake(struct machine *m)
{
	if (m->record.state != MACHINE_STOPPING && m->record.state != MACHINE_SUSPENDING && machine_is_active(m))
		return;
	m->record.restart_wanted = true;
	if (machine_is_active(m))
		return; /* written once it has ended; until then hull-ingress would say it again */
	log_info("machine %s is woken", m->record.name);
	if (m->record.state == MACHINE_SUSPENDED)
		machine_resume_again(m);
	else
		start_again(m);
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

/* It is stopped, though not since nobody uses it: has who comes to it started, all the same? */
static bool is_to_be_woken(const struct machine *m, bool then_start, const struct operation_origin *origin)
{
	if (origin != &operation_by_hulld)
		return m->record.asleep && then_start;
	/* For the host's sake. It would be there for who comes, awake or not. */
	return m->record.asleep || (m->spec.idle && !then_start && !m->record.attached && m->record.state != MACHINE_STOPPING);
}

static int stop(struct machine *m, enum operation_kind kind, bool then_start, int64_t timeout_s, const struct operation_origin *origin,
	struct problem *problem)
{
	struct machine_record before = m->record;
	bool active = machine_is_active(m), again = m->record.state == MACHINE_STOPPING, suspended = m->record.state == MACHINE_SUSPENDED;
	int64_t left_ms = again ? supervisor_stop_left_ms(m) : 0;
	bool shortens = !again || timeout_s * 1000 < left_ms; /* a second stop may only do that */
	int r = machine_refuse_deleting(m, problem);

	if (r == 0 && suspended && then_start)
		r = machine_check_begin(m, problem); /* or what is saved would be thrown away for nothing */
	if (r < 0)
		return r;
	if (!active && !suspended && then_start)
		return machine_start(m, false, origin, problem);
	if (!active && !suspended && !m->record.restart_at && !m->record.asleep)
		return 0;
	m->record.asleep = is_to_be_woken(m, then_start, origin);
	if (suspend_is_paused(m))
		m->up = false; /* nobody in it hears of its end */
	if (active || suspended) {
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
	r = machine_commit_or_undo(m, &before, problem);
	if (r < 0)
		return r;
	machine_disarm_restart(m);
	machine_leave_alone(m); /* the agent thaws it */
	if (suspended)
		supervisor_throw_away(m);
	else if (active && shortens)
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

int machine_end_early(struct machine *m, const char *by, struct problem *problem)
{
	struct machine_record before = m->record;
	int64_t timeout_s = machine_running_spec(m)->stop.timeout_s;
	int r;

	m->record.state = MACHINE_STOPPING;
	m->record.stop_timeout_s = timeout_s;
	m->record.asleep = !by;
	if (by) {
		operation_ask_for_end(m, by, timeout_s * 1000);
	} else {
		operation_begin(m, OPERATION_STOP, timeout_s * 1000, &operation_by_hulld);
		machine_set_cause(m, "idle", "nobody used it");
	}
	enter_end_phase(m);
	r = machine_commit_or_undo(m, &before, problem);
	if (r < 0)
		return r;
	machine_leave_alone(m);
	supervisor_stop(m, (uint64_t)timeout_s * 1000);
	return 0;
}

int machine_sleep(struct machine *m, struct problem *problem)
{
	if (m->spec.idle->action == IDLE_SUSPEND)
		return machine_suspend_idle(m, problem);
	log_info("machine %s is put to sleep", m->record.name);
	m->record.failures = 0; /* it ran until nobody needed it */
	return machine_end_early(m, NULL, problem);
}

int machine_created(struct machine *m, struct problem *problem)
{
	struct machine_record before = m->record;

	m->record.state = MACHINE_CREATED;
	return machine_commit_or_undo(m, &before, problem);
}

void machine_is_up(struct machine *m)
{
	bool begins = m->record.state == MACHINE_STARTING;

	if (!begins && m->record.state != MACHINE_RESUMING)
		return;
	m->record.state = MACHINE_RUNNING;
	m->record.asleep = false;
	operation_machine_is_up(m);
	machine_commit(m);
	idle_begin(m);
	if (begins) /* one that was restored goes on with what was left of it */
		health_begin_grace(m, 0);
	health_start(m);
}

int64_t machine_backoff_ms(int64_t failures)
{
	return failures < 7 ? 1000 << (failures - 1) : BACKOFF_MAX_MS;
}

/* Decides whether and when the machine starts again by itself. */
static void schedule_restart(struct machine *m, const struct machine_end *end)
{
	struct machine_record *record = &m->record;
	int64_t ran_ms = m->began_ns ? (int64_t)((monotonic_ns() - m->began_ns) / 1000000) : now_ms() - record->started_at;
	int64_t delay_ms;
	bool reset = strcmp(end->code, "reset") == 0, bad = end->failed || end->exit_status > 0;
	bool wanted = reset || m->spec.restart.policy == RESTART_ALWAYS ||
		      (m->spec.restart.policy == RESTART_ON_FAILURE && bad);

	if (ran_ms >= STEADY_RUN_MS)
		record->failures = 0;
	if (bad || record->asleep || (reset && ran_ms < QUICK_RESET_MS)) /* whatever its end, it was woken in vain */
		record->failures++;
	if (!wanted || (!reset && m->spec.restart.max_retries && record->failures > m->spec.restart.max_retries))
		return;
	if (reset && record->failures <= 1)
		delay_ms = 0;
	else
		delay_ms = machine_backoff_ms(record->failures ? record->failures : 1);
	record->restart_at = now_ms() + (delay_ms < BACKOFF_MAX_MS ? delay_ms : BACKOFF_MAX_MS);
	record->asleep = false;
}

/* Few ever have such a timer. */
static void set_restart_timer(struct machine *m, int64_t wait_ms)
{
	if (!m->restart)
		m->restart = loop_add_timer(m->hulld->loop, on_restart_due, m);
	if (!m->restart)
		abort();
	loop_timer_arm(m->restart, (uint64_t)wait_ms * 1000000);
}

void machine_arm_restart(struct machine *m)
{
	int64_t wait_ms = m->record.restart_at - now_ms();

	if (!m->record.restart_at)
		return;
	/* The clock may have been set meanwhile: never later than the policy's longest wait. */
	if (wait_ms < 0)
		wait_ms = 0;
	if (wait_ms > BACKOFF_MAX_MS)
		wait_ms = BACKOFF_MAX_MS;
	set_restart_timer(m, wait_ms);
}

void machine_rearm_restart(struct machine *m, unsigned wait_ms)
{
	set_restart_timer(m, wait_ms);
}

void machine_disarm_restart(struct machine *m)
{
	if (m->restart)
		loop_timer_arm(m->restart, UINT64_MAX);
}

/* What was saved is of no use: it starts anew instead. When it was the host that went, it is as if it had run. */
static bool is_resume_failure(const struct machine_end *end)
{
	return end->failed && strcmp(end->code, "host_restarted") != 0;
}

void machine_has_ended(struct machine *m, const struct machine_end *end)
{
	struct machine_record *record = &m->record;
	bool asked = record->state == MACHINE_STOPPING, instead = record->state == MACHINE_RESUMING && is_resume_failure(end);
	bool again = (instead || (asked && record->restart_wanted)) && !m->deleting;
	char rootfs[sizeof(record->run_rootfs)], network[NAME_MAX_BYTES + 1];
	struct problem problem;

	snprintf(network, sizeof(network), "%s", machine_running_spec(m)->network);
	snprintf(rootfs, sizeof(rootfs), "%s", record->run_rootfs);
	if (record->state == MACHINE_SUSPENDING) /* it has ended by itself, not as nobody used it */
		record->asleep = false;
	machine_leave_alone(m);
	forget_run_spec(m);
	end_run(record);
	record->state = end->failed && !asked ? MACHINE_FAILED : MACHINE_STOPPED;
	if (operation_is_cancelled(m))
		machine_set_cause(m, "cancelled", "its start was cancelled");
	else if (instead)
		machine_set_cause(m, "resume_failed", end->message);
	else if (!asked || !record->asleep || strcmp(record->cause_code, "idle") != 0) /* as it was put to sleep */
		machine_set_cause(m, end->code, end->message);
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
	/* It would be there for who comes, had the host not gone. */
	if (strcmp(end->code, "host_restarted") == 0 && m->spec.idle && !record->attached && !record->restart_at)
		record->asleep = true;
	if (record->restart_at && record->restart_at <= now_ms() && host_starts(m->hulld)) {
		start_again(m); /* nobody sees it stopped in between */
	} else {
		if (again && host_check_stays(m->hulld, &problem) < 0) /* what a client waits for comes to nothing; it starts later all the same */
			operation_fail(m, problem.code, problem.error.message);
		machine_arm_restart(m);
		machine_commit(m);
		if (!asked && idle_sleeps(m)) /* it was woken in vain */
			idle_back_off(m, machine_backoff_ms(record->failures));
		host_drain_look(m->hulld);
	}
	network_tell_moved(m, network);
	if (rootfs[0])
		image_release_blob(m->hulld, record->project, rootfs);
}

/* In memory. */

void machine_free(struct machine *m)
{
	supervisor_release(m);
	machine_leave_alone(m);
	idle_free(m);
	loop_remove(m->restart);
	json_done(&machine_spec_table, &m->spec);
	forget_run_spec(m);
	operations_free(m);
	machine_record_done(&m->record);
	free(m);
}

struct machine *machine_new(struct hulld *hulld, struct machine_record *record, struct machine_spec *spec)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		abort();
	m->hulld = hulld;
	m->number = ++hulld->n_known;
	m->record = *record;
	m->spec = *spec;
	free(m->record.spec);
	m->record.spec = NULL; /* `spec` says it all */
	machine_note_spec(m);
	memset(record, 0, sizeof(*record));
	memset(spec, 0, sizeof(*spec));
	machine_index_add(m);
	return m;
}
