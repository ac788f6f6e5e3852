/* What runs for a machine, after a restart of hulld: it is adopted where it lives, and otherwise what happened is concluded from what it has
 * left. See machine.h for the theory. */
#include "api/supervisor_private.h"

#include "api/clock.h"
#include "api/folders.h"
#include "api/health.h"
#include "api/idle.h"
#include "api/operation.h"
#include "api/saved.h"
#include "api/suspend.h"
#include "api/verdict.h"
#include "common/log.h"

#include <string.h>

#define NS_PER_MS  1000000ull
#define ADOPTED_MS 5000

/* Begins an interrupted start again. Its passt, if it got as far, waits for nobody now. */
static void start_over(struct machine *m)
{
	struct problem problem;

	process_kill_and_free(m->passt);
	m->passt = NULL;
	folders_end(m);
	m->record.monitor = m->record.passt = (struct process_id){0};
	supervisor_enter_first_phase(m);
	if (supervisor_check(m, &problem) < 0)
		supervisor_fail_start(m, "%s", problem.error.message);
	else
		supervisor_start(m);
}

/* Nobody can have run since it was saved: it is suspended. Or its monitor was not let go: what is saved is as it was. */
static bool go_on_from_saved(struct machine *m, bool same_boot)
{
	bool unused = !m->record.monitor.pid || (same_boot && !launch_has_begun(m));
	struct problem problem;

	if (m->record.state == MACHINE_SUSPENDING && saved_is_whole(m)) {
		supervisor_end_run(m);
		machine_is_suspended(m);
	} else if (m->record.state == MACHINE_RESUMING && unused) {
		process_kill_and_free(m->passt);
		m->passt = NULL;
		m->record.monitor = m->record.passt = (struct process_id){0};
		supervisor_enter_resume_phase(m);
		if (supervisor_check(m, &problem) < 0)
			supervisor_fail_start(m, "%s", problem.error.message);
		else
			supervisor_resume(m);
	} else {
		return false;
	}
	return true;
}

static void conclude_unseen(struct machine *m, bool same_boot)
{
	struct machine_end end = {.exit_status = -1};

	if (go_on_from_saved(m, same_boot))
		return;
	/* A monitor that was never recorded left no status of its own: what lies there is of the run before. */
	if (m->record.monitor.pid && verdict_read_status(m, &end)) {
		supervisor_finish(m, &end);
		return;
	}
	if (m->record.state == MACHINE_STARTING && same_boot) {
		start_over(m);
		return;
	}
	end.failed = m->record.state != MACHINE_STOPPING;
	snprintf(end.code, sizeof(end.code), "%s",
		!end.failed ? "killed" : same_boot ? "monitor_died" : "host_restarted");
	snprintf(end.message, sizeof(end.message), "%s",
		!end.failed ? "ended while hulld was down"
		: same_boot ? "the monitor ended without saying why while hulld was down"
			    : "the host went down while the machine ran");
	supervisor_finish(m, &end);
}

/* Of the deadline that the last hulld has set, in ms; what has come to its end while nobody looked gets a moment to be seen. */
static uint64_t time_left(struct machine *m, unsigned timeout_s)
{
	int64_t max_ms = (int64_t)timeout_s * 1000, left_ms = operation_time_left_ms(m, max_ms);

	if (left_ms >= ADOPTED_MS || left_ms == max_ms)
		return (uint64_t)left_ms;
	left_ms = max_ms < ADOPTED_MS ? max_ms : ADOPTED_MS;
	operation_set_timeout(m, left_ms);
	return (uint64_t)left_ms;
}

/* Of one that runs: its health is awaited again, or, as its check went when the last hulld did, it has ended. */
static void take_up_operation(struct machine *m)
{
	if (!operation_current(m))
		return;
	operation_machine_is_up(m);
	machine_commit(m);
}

void supervisor_adopt(struct machine *m)
{
	bool same_boot = strcmp(m->record.boot_id, m->hulld->boot_id) == 0 || !m->record.monitor.pid;

	if (!supervisor_make_timers(m)) {
		log_error("machine %s: out of memory", m->record.name);
		return;
	}
	m->ending_code[0] = '\0';
	m->up = m->record.state != MACHINE_STARTING && m->record.state != MACHINE_RESUMING;
	if (strcmp(m->record.boot_id, m->hulld->boot_id) == 0) {
		m->monitor = process_adopt(m->hulld->loop, &m->record.monitor, supervisor_on_monitor_end, m);
		m->passt = process_adopt(m->hulld->loop, &m->record.passt, supervisor_on_passt_end, m);
		folders_adopt(m);
	}
	if (!m->monitor) {
		conclude_unseen(m, same_boot);
		return;
	}
	m->restored = launch_is_restore(m);
	log_info("machine %s: adopted its monitor, pid %d", m->record.name, (int)m->record.monitor.pid);
	if (m->record.state == MACHINE_STARTING || m->record.state == MACHINE_RESUMING) {
		operation_enter(m, m->record.state == MACHINE_STARTING ? PHASE_KERNEL : PHASE_AGENT);
		loop_timer_arm(m->start_deadline, time_left(m, m->hulld->options.start_timeout_s) * NS_PER_MS);
		if (m->record.state == MACHINE_STARTING)
			supervisor_listen_for_agent(m);
		supervisor_ping(m);
		if (m->record.passt.pid && !m->passt)
			supervisor_lose_passt(m); /* it ended while hulld was down */
	} else if (m->record.state == MACHINE_STOPPING) {
		m->told_to_end = operation_is_in(m, PHASE_WORKLOAD);
		supervisor_stop(m, time_left(m, (unsigned)m->record.stop_timeout_s));
	} else if (m->record.state == MACHINE_SUSPENDING) {
		supervisor_go_on_suspending(m, time_left(m, (unsigned)suspend_timeout_s(m)));
	} else {
		take_up_operation(m);
		idle_begin(m);
		if (operation_is_in(m, PHASE_HEALTH)) /* no check has succeeded yet */
			health_begin_grace(m, now_ms() - operation_phase_since(m));
		health_start(m);
		clock_step(m); /* nobody told it what happened meanwhile */
	}
}
