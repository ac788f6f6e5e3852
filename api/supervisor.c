/* Starting, watching and ending what runs for a machine. See machine.h and process.h for the theory.
 *
 * A start is a chain, each step begun by the end of the one before:
 *
 *	supervisor_start → (what it depends on) → (scratch disk, once) → (passt, when there is a network), (folders, if any) and monitor → PING … → machine_is_up()
 *	supervisor_resume → (passt) and monitor, restored → PING … → (suspend.h) → machine_is_up()
 *
 * Wherever it breaks, supervisor_finish() ends what runs and machine.c is told. One deadline spans the chain, another a stop, or a suspend. */
#include "api/supervisor_private.h"

#include "api/agent.h"
#include "api/agent_ready.h"
#include "api/clock.h"
#include "api/folders.h"
#include "api/health.h"
#include "api/idle.h"
#include "api/network_watch.h"
#include "api/networks.h"
#include "api/operation.h"
#include "api/saved.h"
#include "api/scratch.h"
#include "api/secrets.h"
#include "api/start_order.h"
#include "api/suspend.h"
#include "api/verdict.h"
#include "api/volume.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NS_PER_S	1000000000ull
#define NS_PER_MS	1000000ull
#define PING_EVERY_MS	250 /* by itself, should the agent not be heard */
#define PING_TIMEOUT_MS 5000
#define PING_RESTORED_MS 10 /* nobody calls from a machine that is restored */
#define SAVED_END_MS	 10000 /* that a monitor may take to end once it has saved */

/* Ending. */

void supervisor_end_run(struct machine *m)
{
	char path[512];

	suspend_forget(m);
	start_order_forget(m);
	agent_cancel(m->agent);
	m->agent = NULL;
	agent_ready_free(m->ready);
	m->ready = NULL;
	process_free(m->monitor);
	process_kill_and_free(m->passt);
	folders_end(m);
	scratch_cancel(m->scratch);
	m->monitor = m->passt = NULL;
	m->scratch = NULL;
	loop_timer_arm(m->start_deadline, UINT64_MAX);
	loop_timer_arm(m->stop_deadline, UINT64_MAX);
	loop_timer_arm(m->retry, UINT64_MAX);
	supervisor_forget_drain(m);
	m->up = m->restored = false;
	unlink(machine_run_path(m, "vsock.sock", path, sizeof(path)));
	unlink(machine_run_path(m, "monitor.sock", path, sizeof(path)));
}

void supervisor_finish(struct machine *m, const struct machine_end *end)
{
	supervisor_end_run(m);
	saved_forget(m);
	machine_has_ended(m, end);
}

void supervisor_fail_start(struct machine *m, const char *fmt, ...)
{
	struct machine_end end = {.code = "start_failed", .exit_status = -1, .failed = true};
	va_list args;

	va_start(args, fmt);
	vsnprintf(end.message, sizeof(end.message), fmt, args);
	va_end(args);
	if (m->record.state != MACHINE_RESUMING) {
		supervisor_finish(m, &end);
		return;
	}
	supervisor_end_run(m);
	machine_stays_suspended(m, end.message);
}

void supervisor_on_monitor_end(void *ctx, int status)
{
	struct machine *m = ctx;
	struct machine_end end;

	if (m->record.state == MACHINE_SUSPENDING && saved_is_whole(m)) {
		supervisor_end_run(m);
		machine_is_suspended(m);
		return;
	}
	end = verdict_of(m, status);
	supervisor_finish(m, &end);
}

static void end_monitor(struct machine *m, const char *code, int signo)
{
	struct machine_end end = {.exit_status = -1};

	snprintf(m->ending_code, sizeof(m->ending_code), "%s", code);
	if (m->monitor) {
		process_signal(m->monitor, signo);
		return;
	}
	snprintf(end.code, sizeof(end.code), "%s", code);
	snprintf(end.message, sizeof(end.message), "ended before its monitor was started");
	end.failed = strcmp(code, "start_timeout") == 0;
	supervisor_finish(m, &end);
}

void supervisor_kill(struct machine *m, const char *code)
{
	end_monitor(m, code, SIGKILL);
}

static void on_start_deadline(void *ctx)
{
	supervisor_kill(ctx, "start_timeout");
}

/* Others have begun to be saved since, and it goes on slower. */
static void on_suspend_deadline(struct machine *m)
{
	int64_t left_ms = suspend_left_ms(m);

	if (left_ms) {
		loop_timer_arm(m->stop_deadline, (uint64_t)left_ms * NS_PER_MS);
		operation_set_timeout(m, left_ms);
		machine_commit(m);
		return;
	}
	suspend_forget(m); /* whose call breaks off, which is no news */
	supervisor_kill(m, "suspend_timeout");
}

static void on_stop_deadline(void *ctx)
{
	struct machine *m = ctx;

	if (m->record.state == MACHINE_SUSPENDING) {
		on_suspend_deadline(m);
		return;
	}
	operation_enter(m, PHASE_MONITOR_END);
	supervisor_kill(m, "killed");
}

void supervisor_terminate(struct machine *m)
{
	operation_enter(m, PHASE_MONITOR_END);
	end_monitor(m, "stopped", SIGTERM);
}

/* Starting. */

void supervisor_is_up(struct machine *m)
{
	loop_timer_arm(m->start_deadline, UINT64_MAX);
	agent_ready_free(m->ready);
	m->ready = NULL;
	m->up = true;
	saved_forget(m); /* the monitor has it mapped */
	machine_is_up(m);
	network_watch_machine(m);
}

static void ping_later(struct machine *m)
{
	loop_timer_arm(m->retry, (m->record.state == MACHINE_RESUMING ? PING_RESTORED_MS : PING_EVERY_MS) * NS_PER_MS);
}

static void on_pong(void *ctx, int r)
{
	struct machine *m = ctx;

	m->agent = NULL;
	if (m->ending_code[0])
		return; /* it comes too late */
	if (r != 0) {
		ping_later(m);
	} else if (m->record.state == MACHINE_RESUMING) {
		operation_enter(m, PHASE_AGENT);
		suspend_finish_resume(m);
	} else {
		supervisor_is_up(m);
	}
}

void supervisor_ping(struct machine *m)
{
	char vsock[512];

	m->agent = agent_call(m->hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), HULL_AGENT_PING, 0,
		PING_TIMEOUT_MS, on_pong, m);
	if (!m->agent)
		ping_later(m);
}

/* From the loop: a ping that is under way already may have come too early. */
static void on_agent_ready(void *ctx)
{
	struct machine *m = ctx;

	loop_timer_arm(m->retry, UINT64_MAX);
	agent_cancel(m->agent);
	operation_enter(m, PHASE_AGENT);
	supervisor_ping(m);
}

void supervisor_listen_for_agent(struct machine *m)
{
	char vsock[512];
	struct error err;

	machine_run_path(m, "vsock.sock", vsock, sizeof(vsock));
	m->ready = agent_ready_new(m->hulld->loop, vsock, on_agent_ready, m, &err);
	if (!m->ready)
		log_error_object(&err, m->record.name);
}

static void on_retry(void *ctx)
{
	supervisor_ping(ctx);
}

bool supervisor_make_timers(struct machine *m)
{
	struct loop *loop = m->hulld->loop;

	if (!m->start_deadline)
		m->start_deadline = loop_add_timer(loop, on_start_deadline, m);
	if (!m->stop_deadline)
		m->stop_deadline = loop_add_timer(loop, on_stop_deadline, m);
	if (!m->retry)
		m->retry = loop_add_timer(loop, on_retry, m);
	return m->start_deadline && m->stop_deadline && m->retry;
}

void supervisor_lose_folder(struct machine *m)
{
	end_monitor(m, m->up ? "folder_lost" : "start_failed", SIGKILL);
}

void supervisor_lose_passt(struct machine *m)
{
	if (!m->up && !m->ending_code[0])
		end_monitor(m, "start_failed", SIGKILL);
}

/* It ends by itself, and with 0, when the monitor has gone. Of one that was adopted nobody knows the status: it has failed when the
 * monitor is still there. */
void supervisor_on_passt_end(void *ctx, int status)
{
	struct machine *m = ctx;

	process_free(m->passt);
	m->passt = NULL;
	if (status == 0 || (status < 0 && !process_is_running(m->monitor)))
		return;
	log_warn("machine %s: its passt ended with status %d", m->record.name, status);
	supervisor_lose_passt(m);
}

/* The monitor is still at its gate. */
static void give_up_processes(struct machine *m, const struct error *err)
{
	process_kill_and_free(m->monitor);
	m->monitor = NULL;
	m->record.monitor = m->record.passt = (struct process_id){0};
	supervisor_fail_start(m, "%s", err->message);
}

/* Unrecorded, none of them may run: they wait at their gates until it is known who they are. False: the start has failed. */
static bool record_processes(struct machine *m)
{
	struct error err;

	if (m->record.state == MACHINE_STARTING)
		operation_enter(m, PHASE_KERNEL); /* what is recorded runs at once */
	snprintf(m->record.boot_id, sizeof(m->record.boot_id), "%s", m->hulld->boot_id);
	if (operation_commit(m, &err) == 0)
		return true;
	give_up_processes(m, &err);
	return false;
}

/* The monitor with them, or once its folders are there. False: the start has failed. */
static bool open_gates(struct machine *m, int *passt_gate, int *monitor_gate)
{
	struct error err;

	if (*passt_gate >= 0)
		process_open_gate(steal_fd(passt_gate));
	if (!m->folders)
		process_open_gate(steal_fd(monitor_gate));
	else if (folders_begin(m, steal_fd(monitor_gate), &err) < 0) {
		give_up_processes(m, &err);
		return false;
	}
	return true;
}

/* passt and monitor begin at the same time, each with an end of one connection. */
static void start_processes(struct machine *m)
{
	cleanup_close int passt_fd = -1, monitor_fd = -1, passt_gate = -1, monitor_gate = -1;
	struct error err;
	struct problem problem;
	int ends[2];

	if (volumes_check_start(m, &problem) < 0) {
		supervisor_fail_start(m, "%s", problem.error.message);
		return;
	}
	if (network_kind(machine_running_spec(m)) == NETWORK_DEFAULT) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
			supervisor_fail_start(m, "cannot make the network's connection: %s", strerror(errno));
			return;
		}
		monitor_fd = ends[0];
		passt_fd = ends[1];
		operation_enter(m, PHASE_NETWORK);
		if (supervisor_spawn_passt(m, passt_fd, supervisor_on_passt_end, &passt_gate, &err) < 0) {
			supervisor_fail_start(m, "%s", err.message);
			return;
		}
	}
	operation_enter(m, PHASE_MONITOR);
	if (folders_spawn(m, &err) < 0 || supervisor_spawn_monitor(m, monitor_fd, supervisor_on_monitor_end, &monitor_gate, &err) < 0) {
		supervisor_fail_start(m, "%s", err.message);
		return;
	}
	if (m->record.state == MACHINE_STARTING)
		supervisor_listen_for_agent(m);
	if (!record_processes(m) || !open_gates(m, &passt_gate, &monitor_gate))
		return;
	machine_tell_waiters(m);
	ping_later(m);
}

static void on_scratch(void *ctx, const char *reason)
{
	struct machine *m = ctx;

	m->scratch = NULL;
	if (reason)
		supervisor_fail_start(m, "cannot make the scratch disk: %s", reason);
	else
		start_processes(m);
}

static void make_scratch(struct machine *m)
{
	struct error err;

	m->scratch = scratch_make(m, on_scratch, m, &err);
	if (!m->scratch)
		supervisor_fail_start(m, "cannot make the scratch disk: %s", err.message);
}

static int check_folders(const struct machine *m, struct problem *problem)
{
	const char *why_not = folders_has_any(machine_running_spec(m)) ? folders_why_not(m->hulld) : NULL;

	if (why_not)
		return problem_set(problem, PROBLEM_MACHINE_FAILED, "mounts", "this host cannot share a folder: %s", why_not);
	return folders_check(m->hulld, m->record.project, machine_running_spec(m), problem);
}

static int check_network(const struct machine *m, struct problem *problem)
{
	if (network_kind(machine_running_spec(m)) == NETWORK_NAMED) {
		if (networks_check_host(m->hulld, problem) < 0) {
			problem->code = PROBLEM_MACHINE_FAILED;
			return -ECANCELED;
		}
		supervisor_find_passt(m->hulld); /* which is there, as the check says */
	}
	if (network_kind(machine_running_spec(m)) == NETWORK_DEFAULT && !supervisor_find_passt(m->hulld)) {
		problem_set(problem, PROBLEM_MACHINE_FAILED, "network", "passt is not installed on the host");
		return problem_set_hint(problem, "apt-get install passt, or create the machine with network none");
	}
	return 0;
}

int supervisor_check(const struct machine *m, struct problem *problem)
{
	const struct options *options = &m->hulld->options;
	bool boots = m->record.state != MACHINE_SUSPENDED && m->record.state != MACHINE_RESUMING;
	char blob[BLOB_PATH_MAX];
	const struct {
		const char *what, *path, *hint;
		int mode;
	} needed[] = {
		{"the monitor", options->vmm, "name another with --vmm", X_OK},
		{"the kernel", options->kernel, "install the guest files, or name another with --kernel", R_OK},
		{"the initramfs", options->initrd, "install the guest files, or name another with --initrd", R_OK},
		{"the image's blob", blob_path(m->hulld->blobs, m->record.rootfs, blob), "upload the image again", R_OK},
	};

	for (size_t i = 0; i < (boots ? ARRAY_SIZE(needed) : 1); i++) {
		if (access(needed[i].path, needed[i].mode) == 0)
			continue;
		problem_set(problem, PROBLEM_MACHINE_FAILED, NULL, "%s cannot be used: %s: %s", needed[i].what,
			needed[i].path, strerror(errno));
		return problem_set_hint(problem, "%s", needed[i].hint);
	}
	if (check_network(m, problem) < 0)
		return -ECANCELED;
	if (!boots)
		return volumes_check_start(m, problem);
	/* One that waits for others may wait for those that have its volumes: it is asked again when it is its turn. */
	if (!m->spec.depends_on.len && volumes_check_start(m, problem) < 0)
		return -ECANCELED;
	return secrets_check(m->hulld, m->record.project, &m->spec, problem) < 0 ? -ECANCELED : check_folders(m, problem);
}

static bool has_scratch(const struct machine *m)
{
	char path[512];

	return access(machine_state_path(m, "scratch.ext4", path, sizeof(path)), F_OK) == 0;
}

/* Of what begins once there is nothing to wait for. */
static void enter_first_phase(struct machine *m)
{
	operation_enter(m, !has_scratch(m) ? PHASE_DISK
			   : network_kind(machine_running_spec(m)) != NETWORK_NONE ? PHASE_NETWORK : PHASE_MONITOR);
	operation_set_timeout(m, (int64_t)m->hulld->options.start_timeout_s * 1000);
}

void supervisor_enter_first_phase(struct machine *m)
{
	if (!m->spec.depends_on.len) {
		enter_first_phase(m);
		return;
	}
	operation_enter(m, PHASE_DEPENDENCIES);
	operation_set_timeout(m, (int64_t)m->hulld->options.dependency_timeout_s * 1000);
}

void supervisor_start(struct machine *m)
{
	m->ending_code[0] = '\0';
	m->up = m->told_to_end = m->network_lost = false;
	if (supervisor_make_timers(m))
		start_order_begin(m);
	else
		supervisor_fail_start(m, "out of memory");
}

void supervisor_give_up(struct machine *m, const struct machine_end *end)
{
	supervisor_finish(m, end);
}

void supervisor_begin(struct machine *m)
{
	struct error err;

	enter_first_phase(m);
	loop_timer_arm(m->start_deadline, m->hulld->options.start_timeout_s * NS_PER_S);
	if (launch_prepare(m, &err) < 0)
		supervisor_fail_start(m, "%s", err.message);
	else if (!has_scratch(m))
		make_scratch(m);
	else
		start_processes(m);
}

/* Suspending, and resuming. */

void supervisor_suspend(struct machine *m, uint64_t timeout_ms)
{
	m->ending_code[0] = '\0';
	loop_timer_arm(m->stop_deadline, timeout_ms * NS_PER_MS);
	suspend_begin(m);
}

void supervisor_go_on_suspending(struct machine *m, uint64_t timeout_ms)
{
	m->ending_code[0] = '\0';
	loop_timer_arm(m->stop_deadline, timeout_ms * NS_PER_MS);
	suspend_take_up(m);
}

void supervisor_end_saved(struct machine *m)
{
	loop_timer_arm(m->stop_deadline, SAVED_END_MS * NS_PER_MS);
	process_signal(m->monitor, SIGTERM);
}

void supervisor_runs_on(struct machine *m)
{
	m->up = true;
	loop_timer_arm(m->stop_deadline, UINT64_MAX);
}

void supervisor_enter_resume_phase(struct machine *m)
{
	operation_enter(m, network_kind(machine_running_spec(m)) == NETWORK_DEFAULT ? PHASE_NETWORK : PHASE_MONITOR);
	operation_set_timeout(m, (int64_t)m->hulld->options.start_timeout_s * 1000);
}

void supervisor_resume(struct machine *m)
{
	struct error err;

	m->ending_code[0] = '\0';
	m->up = m->told_to_end = m->network_lost = false;
	m->restored = true;
	if (!supervisor_make_timers(m)) {
		supervisor_fail_start(m, "out of memory");
		return;
	}
	loop_timer_arm(m->start_deadline, m->hulld->options.start_timeout_s * NS_PER_S);
	if (launch_prepare_restore(m, &err) < 0)
		supervisor_fail_start(m, "%s", err.message);
	else
		start_processes(m);
}

void supervisor_throw_away(struct machine *m)
{
	struct machine_end end = {.code = "stopped", .message = "what was saved of it was thrown away", .exit_status = -1};

	if (supervisor_make_timers(m))
		supervisor_finish(m, &end);
	else
		log_error("machine %s: out of memory", m->record.name);
}

void supervisor_release(struct machine *m)
{
	suspend_forget(m);
	start_order_forget(m);
	agent_cancel(m->agent);
	agent_ready_free(m->ready);
	process_free(m->monitor);
	process_free(m->passt);
	folders_release(m);
	scratch_cancel(m->scratch);
	loop_remove(m->start_deadline);
	loop_remove(m->stop_deadline);
	loop_remove(m->retry);
	supervisor_forget_drain(m);
}
