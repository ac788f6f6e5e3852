/* What is under way on a machine, undone. See machine.h for the theory of operation. */
#include "api/machine_private.h"

#include "api/clock.h"
#include "api/health.h"
#include "api/host_drain.h"
#include "api/idle.h"
#include "api/operation.h"
#include "api/supervisor.h"

#include <errno.h>

/* Its workload has not heard of its stop: it runs on. */
static int undo_stop(struct machine *m, const char *by, struct problem *problem)
{
	struct machine_record before = m->record;
	int r;

	m->record.state = MACHINE_RUNNING;
	m->record.restart_wanted = m->record.asleep = false;
	operation_cancel(m, by);
	r = machine_commit_or_undo(m, &before, problem);
	if (r < 0)
		return r;
	supervisor_run_on(m);
	idle_begin(m);
	health_start(m);
	clock_step(m); /* its answer says whether it is frozen, too */
	return 0;
}

/* Of a machine that was to be back once the host is: it stays down. */
static int undo_return(struct machine *m, const char *by, struct problem *problem)
{
	struct machine_record before = m->record;

	m->record.restart_wanted = m->record.asleep = false;
	m->record.restart_at = 0;
	operation_cancel(m, by);
	return machine_commit_or_undo(m, &before, problem);
}

static int refuse_cancel(const struct machine *m, struct problem *problem)
{
	if (operation_is(m, OPERATION_SUSPEND) || operation_is(m, OPERATION_RESUME)) {
		problem_set(problem, PROBLEM_WRONG_STATE, NULL, "machine %s is %s, which cannot be undone", m->record.name,
			machine_state_names[m->record.state]);
		return problem_set_hint(problem, "wait for its end; what is suspended can be resumed, and the other way round");
	}
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
		return machine_end_early(m, by, problem); /* it comes to nothing */
	if (starts && !machine_is_active(m))
		return undo_return(m, by, problem);
	if ((starts || operation_is(m, OPERATION_STOP)) && m->draining)
		return host_check_starts(m->hulld, problem) < 0 ? -ECANCELED : undo_stop(m, by, problem);
	return refuse_cancel(m, problem);
}
