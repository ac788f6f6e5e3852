/* Starting, watching and ending what runs for a machine. See machine.h and process.h for the theory.
 *
 * A start is a chain, each step begun by the end of the one before:
 *
 *	supervisor_start → (what it depends on) → (scratch disk, once) → (passt, when there is a network), (folders, if any) and monitor → PING … → machine_is_up()
 *
 * Wherever it breaks, finish() ends what runs and machine.c is told. One deadline spans the chain, another a stop. */
#include "api/supervisor.h"

#include "api/agent.h"
#include "api/agent_ready.h"
#include "api/clock.h"
#include "api/folders.h"
#include "api/health.h"
#include "api/idle.h"
#include "api/log_age.h"
#include "api/networks.h"
#include "api/operation.h"
#include "api/scratch.h"
#include "api/secrets.h"
#include "api/start_order.h"
#include "api/verdict.h"
#include "api/volume.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NS_PER_S	1000000000ull
#define NS_PER_MS	1000000ull
#define PING_EVERY_MS	250 /* by itself, should the agent not be heard */
#define PING_TIMEOUT_MS 5000
#define ADOPTED_MS	5000

/* Ending. */

/* Ends everything but the monitor, which has ended or was never there, and tells machine.c. */
static void finish(struct machine *m, const struct machine_end *end)
{
	char path[512];

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
	unlink(machine_run_path(m, "vsock.sock", path, sizeof(path)));
	machine_has_ended(m, end);
}

/* A start that broke before there was a monitor. */
static void fail_start(struct machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail_start(struct machine *m, const char *fmt, ...)
{
	struct machine_end end = {.code = "start_failed", .exit_status = -1, .failed = true};
	va_list args;

	va_start(args, fmt);
	vsnprintf(end.message, sizeof(end.message), fmt, args);
	va_end(args);
	finish(m, &end);
}

static void on_monitor_end(void *ctx, int status)
{
	struct machine *m = ctx;
	struct machine_end end = verdict_of(m, status);

	finish(m, &end);
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
	finish(m, &end);
}

void supervisor_kill(struct machine *m, const char *code)
{
	end_monitor(m, code, SIGKILL);
}

static void on_start_deadline(void *ctx)
{
	supervisor_kill(ctx, "start_timeout");
}

static void on_stop_deadline(void *ctx)
{
	operation_enter(ctx, PHASE_MONITOR_END);
	supervisor_kill(ctx, "killed");
}

void supervisor_terminate(struct machine *m)
{
	operation_enter(m, PHASE_MONITOR_END);
	end_monitor(m, "stopped", SIGTERM);
}

/* Starting. */

static void on_pong(void *ctx, int r)
{
	struct machine *m = ctx;

	m->agent = NULL;
	if (m->ending_code[0])
		return; /* it comes too late */
	if (r != 0) {
		loop_timer_arm(m->retry, PING_EVERY_MS * NS_PER_MS);
		return;
	}
	loop_timer_arm(m->start_deadline, UINT64_MAX);
	agent_ready_free(m->ready);
	m->ready = NULL;
	m->up = true;
	machine_is_up(m);
}

static void ping(struct machine *m)
{
	char vsock[512];

	m->agent = agent_call(m->hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), HULL_AGENT_PING, 0,
		PING_TIMEOUT_MS, on_pong, m);
	if (!m->agent)
		loop_timer_arm(m->retry, PING_EVERY_MS * NS_PER_MS);
}

/* From the loop: a ping that is under way already may have come too early. */
static void on_agent_ready(void *ctx)
{
	struct machine *m = ctx;

	loop_timer_arm(m->retry, UINT64_MAX);
	agent_cancel(m->agent);
	operation_enter(m, PHASE_AGENT);
	ping(m);
}

/* Without this, the agent is found by asking. */
static void listen_for_agent(struct machine *m)
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
	ping(ctx);
}

static bool make_timers(struct machine *m)
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

static int open_log(const struct machine *m, const char *name, int flags)
{
	char path[512];

	return open(machine_state_path(m, name, path, sizeof(path)), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags,
		0600);
}

/* It waits at its gate. `net_fd` (borrowed) becomes its MONITOR_NET_FD; -1: it has none, or gets one by way of hull-network. False: the
 * start has failed. */
static bool spawn_monitor(struct machine *m, int net_fd, int *ret_gate)
{
	char config[512], counts[512], limit_mib[24];
	const char *argv[] = {m->hulld->options.vmm, "--config-file",
		machine_state_path(m, "config.json", config, sizeof(config)), "--no-api", "--id", m->record.id, "--log-fd",
		"3", "--status-fd", "4", "--output-limit", limit_mib, "--accounting",
		machine_run_path(m, "accounting", counts, sizeof(counts)),
		/* The agent stops a workload. Where it does not answer, nobody would hear the power button either. */
		"--shutdown-timeout", "0", NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	cleanup_close int console = open_log(m, "console.log", 0), log = open_log(m, "vmm.log", 0);
	cleanup_close int workload = open_log(m, "workload.log", 0), status = open_log(m, "status.json", O_TRUNC);
	cleanup_close int archive = -1;
	struct launch_join join;
	struct error err;

	snprintf(limit_mib, sizeof(limit_mib), "%" PRIu64, log_age_limits(m).bytes >> 20);
	if (null < 0 || console < 0 || log < 0 || workload < 0 || status < 0) {
		fail_start(m, "cannot open the machine's logs: %s", strerror(errno));
		return false;
	}
	if (machine_running_spec(m)->secrets.len && (archive = launch_archive_fd(m, &err)) < 0) {
		fail_start(m, "%s", err.message);
		return false;
	}
	if (launch_join(m, argv, &join, &err) < 0) {
		fail_start(m, "%s", err.message);
		return false;
	}
	m->monitor = process_spawn(m->hulld->loop, join.argv, (int[]){null, console, log, workload, status, net_fd < 0 ? null : net_fd, archive},
		archive >= 0 ? MONITOR_ARCHIVE_FD + 1 : net_fd >= 0 || join.is_needed ? MONITOR_NET_FD + 1 : MONITOR_NET_FD, on_monitor_end, m,
		&m->record.monitor, ret_gate, &err);
	if (!m->monitor)
		fail_start(m, "%s", err.message);
	return m->monitor;
}

void supervisor_lose_folder(struct machine *m)
{
	end_monitor(m, m->up ? "folder_lost" : "start_failed", SIGKILL);
}

static void lose_passt(struct machine *m)
{
	if (!m->up && !m->ending_code[0])
		end_monitor(m, "start_failed", SIGKILL);
}

/* It ends by itself, and with 0, when the monitor has gone. Of one that was adopted nobody knows the status: it has failed when the
 * monitor is still there. */
static void on_passt_end(void *ctx, int status)
{
	struct machine *m = ctx;

	process_free(m->passt);
	m->passt = NULL;
	if (status == 0 || (status < 0 && !process_is_running(m->monitor)))
		return;
	log_warn("machine %s: its passt ended with status %d", m->record.name, status);
	lose_passt(m);
}

/* The one that was found last, as long as it is there: there are many folders to look in. */
static bool find_passt(struct hulld *hulld)
{
	return access(hulld->passt, X_OK) == 0 || find_program("passt", hulld->passt, sizeof(hulld->passt)) == 0;
}

/* It waits at its gate, with `net_fd` (borrowed). False: the start has failed. */
static bool spawn_passt(struct machine *m, int net_fd, int *ret_gate)
{
	const char *argv[] = {m->hulld->passt, "--foreground", "--quiet", "--fd", "3", "--address", "10.0.2.15", "--netmask", "24", "--gateway",
		"10.0.2.2", "--mac-addr", "02:00:00:00:00:02", "--dns-forward", "10.0.2.3",
		/* The gateway's address would be the host's own loopback, and all that listens there. */
		"--no-map-gw", "--ipv4-only", "--no-dhcp", NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = open_log(m, "passt.log", O_TRUNC);
	int fds[] = {null, log, log, net_fd};
	struct error err;

	if (!find_passt(m->hulld) || null < 0 || log < 0) {
		fail_start(m, "cannot start passt: it is not installed, or its log cannot be opened");
		return false;
	}
	m->passt = process_spawn(m->hulld->loop, argv, fds, ARRAY_SIZE(fds), on_passt_end, m, &m->record.passt, ret_gate, &err);
	if (!m->passt)
		fail_start(m, "%s", err.message);
	return m->passt;
}

/* The monitor is still at its gate. */
static void give_up_processes(struct machine *m, const struct error *err)
{
	process_kill_and_free(m->monitor);
	m->monitor = NULL;
	fail_start(m, "%s", err->message);
}

/* Unrecorded, none of them may run: they wait at their gates until it is known who they are. False: the start has failed. */
static bool record_processes(struct machine *m)
{
	struct error err;

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
		fail_start(m, "%s", problem.error.message);
		return;
	}
	if (network_kind(machine_running_spec(m)) == NETWORK_DEFAULT) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
			fail_start(m, "cannot make the network's connection: %s", strerror(errno));
			return;
		}
		monitor_fd = ends[0];
		passt_fd = ends[1];
		operation_enter(m, PHASE_NETWORK);
		if (!spawn_passt(m, passt_fd, &passt_gate))
			return;
	}
	operation_enter(m, PHASE_MONITOR);
	if (folders_spawn(m, &err) < 0) {
		fail_start(m, "%s", err.message);
		return;
	}
	if (!spawn_monitor(m, monitor_fd, &monitor_gate))
		return;
	listen_for_agent(m);
	if (!record_processes(m) || !open_gates(m, &passt_gate, &monitor_gate))
		return;
	machine_tell_waiters(m);
	loop_timer_arm(m->retry, PING_EVERY_MS * NS_PER_MS);
}

static void on_scratch(void *ctx, const char *reason)
{
	struct machine *m = ctx;

	m->scratch = NULL;
	if (reason)
		fail_start(m, "cannot make the scratch disk: %s", reason);
	else
		start_processes(m);
}

static void make_scratch(struct machine *m)
{
	struct error err;

	m->scratch = scratch_make(m, on_scratch, m, &err);
	if (!m->scratch)
		fail_start(m, "cannot make the scratch disk: %s", err.message);
}

static int check_folders(const struct machine *m, struct problem *problem)
{
	const char *why_not = folders_has_any(machine_running_spec(m)) ? folders_why_not(m->hulld) : NULL;

	if (why_not)
		return problem_set(problem, PROBLEM_MACHINE_FAILED, "mounts", "this host cannot share a folder: %s", why_not);
	return folders_check(m->hulld, m->record.project, machine_running_spec(m), problem);
}

int supervisor_check(const struct machine *m, struct problem *problem)
{
	const struct options *options = &m->hulld->options;
	char blob[BLOB_PATH_MAX];
	const struct {
		const char *what, *path, *hint;
		int mode;
	} needed[] = {
		{"the kernel", options->kernel, "install the guest files, or name another with --kernel", R_OK},
		{"the initramfs", options->initrd, "install the guest files, or name another with --initrd", R_OK},
		{"the monitor", options->vmm, "name another with --vmm", X_OK},
		{"the image's blob", blob_path(m->hulld->blobs, m->record.rootfs, blob), "upload the image again", R_OK},
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (access(needed[i].path, needed[i].mode) == 0)
			continue;
		problem_set(problem, PROBLEM_MACHINE_FAILED, NULL, "%s cannot be used: %s: %s", needed[i].what,
			needed[i].path, strerror(errno));
		return problem_set_hint(problem, "%s", needed[i].hint);
	}
	if (network_kind(machine_running_spec(m)) == NETWORK_NAMED) {
		if (networks_check_host(m->hulld, problem) < 0) {
			problem->code = PROBLEM_MACHINE_FAILED;
			return -ECANCELED;
		}
		find_passt(m->hulld); /* which is there, as the check says */
	}
	if (network_kind(machine_running_spec(m)) == NETWORK_DEFAULT && !find_passt(m->hulld)) {
		problem_set(problem, PROBLEM_MACHINE_FAILED, "network", "passt is not installed on the host");
		return problem_set_hint(problem, "apt-get install passt, or create the machine with network none");
	}
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
	m->up = m->told_to_end = false;
	if (make_timers(m))
		start_order_begin(m);
	else
		fail_start(m, "out of memory");
}

void supervisor_give_up(struct machine *m, const struct machine_end *end)
{
	finish(m, end);
}

void supervisor_begin(struct machine *m)
{
	struct error err;

	enter_first_phase(m);
	loop_timer_arm(m->start_deadline, m->hulld->options.start_timeout_s * NS_PER_S);
	if (launch_prepare(m, &err) < 0)
		fail_start(m, "%s", err.message);
	else if (!has_scratch(m))
		make_scratch(m);
	else
		start_processes(m);
}

/* After a restart of hulld. */

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
		fail_start(m, "%s", problem.error.message);
	else
		supervisor_start(m);
}

static void conclude_unseen(struct machine *m, bool same_boot)
{
	struct machine_end end = {.exit_status = -1};

	/* A monitor that was never recorded left no status of its own: what lies there is of the run before. */
	if (m->record.monitor.pid && verdict_read_status(m, &end)) {
		finish(m, &end);
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
	finish(m, &end);
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

	if (!make_timers(m)) {
		log_error("machine %s: out of memory", m->record.name);
		return;
	}
	m->ending_code[0] = '\0';
	m->up = m->record.state != MACHINE_STARTING;
	if (strcmp(m->record.boot_id, m->hulld->boot_id) == 0) {
		m->monitor = process_adopt(m->hulld->loop, &m->record.monitor, on_monitor_end, m);
		m->passt = process_adopt(m->hulld->loop, &m->record.passt, on_passt_end, m);
		folders_adopt(m);
	}
	if (!m->monitor) {
		conclude_unseen(m, same_boot);
		return;
	}
	log_info("machine %s: adopted its monitor, pid %d", m->record.name, (int)m->record.monitor.pid);
	if (m->record.state == MACHINE_STARTING) {
		operation_enter(m, PHASE_KERNEL);
		loop_timer_arm(m->start_deadline, time_left(m, m->hulld->options.start_timeout_s) * NS_PER_MS);
		listen_for_agent(m);
		ping(m);
		if (m->record.passt.pid && !m->passt)
			lose_passt(m); /* it ended while hulld was down */
	} else if (m->record.state == MACHINE_STOPPING) {
		m->told_to_end = operation_is_in(m, PHASE_WORKLOAD);
		supervisor_stop(m, time_left(m, (unsigned)m->record.stop_timeout_s));
	} else {
		take_up_operation(m);
		idle_begin(m);
		if (operation_is_in(m, PHASE_HEALTH)) /* no check has succeeded yet */
			health_begin_grace(m, now_ms() - operation_phase_since(m));
		health_start(m);
		clock_step(m); /* nobody told it what happened meanwhile */
	}
}

void supervisor_release(struct machine *m)
{
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
