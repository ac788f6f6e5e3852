/* Machines that are suspended and resumed: their states, and what moves them from one to the next. See machine.h for the theory of operation;
 * suspend.h says how. */
#include "api/machine_private.h"

#include "api/clock.h"
#include "api/events.h"
#include "api/folders.h"
#include "api/health.h"
#include "api/host_drain.h"
#include "api/idle.h"
#include "api/operation.h"
#include "api/project.h"
#include "api/saved.h"
#include "api/start_order.h"
#include "api/supervisor.h"
#include "api/suspend.h"
#include "common/log.h"

#include <errno.h>
#include <string.h>

/* ---- suspending ---- */

static int check_suspend(const struct machine *m, struct problem *problem)
{
	if (m->record.state != MACHINE_RUNNING) {
		problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is %s", m->record.name, machine_state_names[m->record.state]);
		return problem_set_hint(problem, "what runs can be suspended");
	}
	if (m->frozen) {
		problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is frozen", m->record.name);
		return problem_set_hint(problem, "thaw it first");
	}
	if (folders_has_any(machine_running_spec(m))) {
		problem_set(problem, PROBLEM_UNSUPPORTED, "mounts", "machine %s sees a folder of the host, of which nothing can be saved", m->record.name);
		return problem_set_hint(problem, "stop it, or have it mount volumes only");
	}
	return quota_check_save(m, problem);
}

/* Somebody who wanted it to go on afterwards has been overtaken. If it was who came to it, hull-ingress has told of that, and does so once: asleep,
 * it would not be woken. */
static int stay_suspended(struct machine *m, const struct operation_origin *origin, struct problem *problem)
{
	struct machine_record before = m->record;

	if (!m->record.restart_wanted)
		return 0;
	m->record.restart_wanted = m->record.asleep = false;
	m->record.cause_code[0] = m->record.cause_message[0] = '\0';
	operation_begin(m, OPERATION_SUSPEND, operation_time_left_ms(m, suspend_timeout_s(m) * 1000), origin);
	return machine_commit_or_undo(m, &before, problem);
}

static int suspend(struct machine *m, bool idle, const struct operation_origin *origin, struct problem *problem)
{
	int64_t timeout_ms = suspend_timeout_s(m) * 1000;
	struct machine_record before = m->record;
	struct error err;
	int r = check_suspend(m, problem);

	if (r == 0 && saved_prepare(m, &err) < 0)
		r = problem_from_error(problem, &err);
	if (r < 0)
		return r;
	m->record.state = MACHINE_SUSPENDING;
	m->record.asleep = idle;
	m->record.restart_wanted = false;
	m->record.cause_code[0] = m->record.cause_message[0] = '\0';
	if (idle)
		machine_set_cause(m, "idle", "nobody used it");
	operation_begin(m, OPERATION_SUSPEND, timeout_ms, origin);
	operation_enter(m, PHASE_HOOK);
	r = machine_commit_or_undo(m, &before, problem);
	if (r < 0)
		return r;
	machine_leave_alone(m);
	supervisor_suspend(m, (uint64_t)timeout_ms);
	return 0;
}

int machine_suspend(struct machine *m, const struct operation_origin *origin, struct problem *problem)
{
	if (machine_refuse_deleting(m, problem) < 0)
		return -ECANCELED;
	if (m->record.state == MACHINE_SUSPENDED)
		return 0;
	if (m->record.state == MACHINE_SUSPENDING)
		return stay_suspended(m, origin, problem);
	return suspend(m, false, origin, problem);
}

int machine_suspend_idle(struct machine *m, struct problem *problem)
{
	log_info("machine %s is suspended, as nobody uses it", m->record.name);
	return suspend(m, true, &operation_by_hulld, problem);
}

void machine_is_suspended(struct machine *m)
{
	struct machine_record *record = &m->record;

	record->state = MACHINE_SUSPENDED;
	record->failures = 0;
	record->monitor = record->passt = (struct process_id){0};
	if (operation_is(m, OPERATION_SUSPEND))
		operation_succeed(m);
	machine_commit(m);
	idle_forgive(m);
	log_info("machine %s is suspended", record->name);
	host_drain_look(m->hulld);
	if (record->restart_wanted && !m->deleting)
		machine_resume_again(m);
}

void machine_runs_on(struct machine *m, const char *reason)
{
	bool idle = m->record.asleep;

	m->record.state = MACHINE_RUNNING;
	m->record.asleep = m->record.restart_wanted = false;
	machine_set_cause(m, "suspend_failed", reason);
	if (operation_is(m, OPERATION_SUSPEND))
		operation_fail(m, PROBLEM_MACHINE_FAILED, m->record.cause_message);
	else
		operation_succeed(m); /* it was to be resumed, once suspended */
	supervisor_runs_on(m);
	machine_commit(m);
	idle_begin(m);
	if (idle)
		idle_fail(m, reason);
	health_start(m);
	clock_step(m); /* its answer says whether it is frozen, too */
	host_drain_look(m->hulld);
}

/* ---- resuming ---- */

static void begin_resume(struct machine *m)
{
	m->record.state = MACHINE_RESUMING;
	m->record.restart_wanted = false;
	supervisor_enter_resume_phase(m);
}

static int resume(struct machine *m, const struct operation_origin *origin, struct problem *problem)
{
	struct machine_record before = m->record;
	int r = machine_check_begin(m, problem);

	if (r < 0)
		return r;
	m->record.cause_code[0] = m->record.cause_message[0] = '\0';
	operation_begin(m, OPERATION_RESUME, 0, origin);
	begin_resume(m);
	r = machine_commit_or_undo(m, &before, problem);
	if (r < 0)
		return r;
	idle_end(m);
	start_order_wake(m);
	supervisor_resume(m);
	return 0;
}

/* Once it is suspended. */
static int resume_later(struct machine *m, const struct operation_origin *origin, struct problem *problem)
{
	struct machine_record before = m->record;
	int64_t timeout_ms = operation_time_left_ms(m, suspend_timeout_s(m) * 1000);

	m->record.restart_wanted = true;
	operation_begin_or_join(m, OPERATION_RESUME, timeout_ms, origin);
	return machine_commit_or_undo(m, &before, problem);
}

int machine_resume(struct machine *m, const struct operation_origin *origin, struct problem *problem)
{
	if (machine_refuse_deleting(m, problem) < 0)
		return -ECANCELED;
	switch (m->record.state) {
	case MACHINE_SUSPENDED:
		return resume(m, origin, problem);
	case MACHINE_SUSPENDING:
		return host_check_starts(m->hulld, problem) < 0 ? -ECANCELED : resume_later(m, origin, problem);
	case MACHINE_STARTING:
	case MACHINE_RUNNING:
	case MACHINE_RESUMING:
		return 0;
	default:
		problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is %s, and nothing of it was saved", m->record.name,
			machine_state_names[m->record.state]);
		return problem_set_hint(problem, "start it");
	}
}

void machine_resume_again(struct machine *m)
{
	struct problem problem;

	if (!operation_is(m, OPERATION_RESUME))
		operation_begin(m, OPERATION_RESUME, 0, &operation_by_hulld);
	m->record.restart_wanted = false;
	if (machine_check_begin(m, &problem) < 0) {
		machine_stays_suspended(m, problem.error.message);
		return;
	}
	if (m->record.asleep)
		m->hulld->wakes++;
	m->record.cause_code[0] = m->record.cause_message[0] = '\0';
	begin_resume(m);
	machine_commit(m);
	idle_end(m);
	start_order_wake(m);
	supervisor_resume(m);
}

void machine_stays_suspended(struct machine *m, const char *reason)
{
	log_warn("machine %s stays suspended: %s", m->record.name, reason);
	m->record.state = MACHINE_SUSPENDED;
	m->record.monitor = m->record.passt = (struct process_id){0};
	m->record.restart_wanted = false;
	m->record.failures++;
	machine_set_cause(m, "resume_failed", reason);
	operation_fail(m, PROBLEM_MACHINE_FAILED, reason);
	machine_commit(m);
	if (idle_sleeps(m))
		idle_back_off(m, machine_backoff_ms(m->record.failures));
	host_drain_look(m->hulld);
}
