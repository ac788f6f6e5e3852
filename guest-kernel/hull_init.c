/* hull-init: the first and only program of the host's in a machine. As PID 1 it makes the machine's root file system,
 * starts the workload, carries its output, answers the agent's requests, and hands the exit status over at the end.
 *
 * Theory of operation. Everything before the workload is sequential; a step that fails is said on the console in one
 * line (and in the log, where it is the workload that cannot be started), and the machine ends with status 125, 126 or 127. From then on there is one loop and a phase:
 *
 *	RUNNING ──workload ended──▶ TERM ──2 s──▶ KILL ──no child left──▶ DRAIN ──▶ loop ends
 *	                              └───────no child left──────────────────▲
 *
 * A workload that is `attached` begins when a client of the agent executes it, and has ended when that client has heard so.
 * TERM: everything else was sent SIGTERM. KILL: SIGKILL. DRAIN: the output goes to the host. Each phase has a deadline,
 * so a machine that was told to end does. */
#include "common/cleanup.h"
#include "common/io.h"
#include "common/loop.h"
#include "guest-kernel/agent.h"
#include "guest-kernel/clock.h"
#include "guest-kernel/config.h"
#include "guest-kernel/console.h"
#include "guest-kernel/hull_guest.h"
#include "guest-kernel/modules.h"
#include "guest-kernel/mounts.h"
#include "guest-kernel/net.h"
#include "guest-kernel/output.h"
#include "guest-kernel/power_button.h"
#include "guest-kernel/process.h"
#include "guest-kernel/root.h"
#include "guest-kernel/vsock.h"
#include "guest-kernel/workload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define NS_PER_MS	 1000000ull
#define STOP_TIMEOUT_MS	 10000 /* when a signal or the power button, not the agent, asks for the end */
#define ATTACH_TIMEOUT_MS 60000 /* for who executes a workload that waits for it */
#define TERM_TIMEOUT_MS	 2000
#define KILL_TIMEOUT_MS	 5000
#define DRAIN_TIMEOUT_MS 10000

enum phase { PHASE_RUNNING, PHASE_TERM, PHASE_KILL, PHASE_DRAIN };

struct init {
	struct guest_config config;
	struct loop *loop;
	struct loop_source *deadline;
	struct output *output;
	struct agent *agent;
	struct power_button *button; /* NULL where the kernel has no ACPI */
	pid_t workload; /* 0: it waits for a client, or has ended */
	int log_fd;	/* of one that waits: the write end of the output's pipe, until the agent has it */
	enum phase phase;
	bool stopping; /* RUNNING only: the stop signal was sent */
	int status;    /* the workload's exit status, or why there was none */
	bool out_of_memory; /* killed, for want of it */
	unsigned no_mount;  /* HULL_EXIT_NO_MOUNT and what goes with it; 0: all are mounted */
	const char *step; /* of the set-up: what the console names when it fails */
};

static void stop_loop(void *ctx)
{
	struct init *init = ctx;

	loop_stop(init->loop);
}

static void enter_drain(struct init *init)
{
	init->phase = PHASE_DRAIN;
	loop_timer_arm(init->deadline, UINT64_MAX);
	output_drain(init->output, DRAIN_TIMEOUT_MS, stop_loop, init);
}

/* Also one that has ended, and whom nobody has waited for. */
static bool has_child(void)
{
	siginfo_t info;

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* Ends what the workload left behind. */
static void enter_term(struct init *init)
{
	init->phase = PHASE_TERM;
	if (init->agent) {
		agent_drop_workload(init->agent);
		agent_thaw(init->agent);
	}
	kill(-1, SIGTERM);
	kill(-1, SIGCONT); /* a stopped process would not hear it */
	loop_timer_arm(init->deadline, TERM_TIMEOUT_MS * NS_PER_MS);
	if (!has_child()) /* and so no end of one would be heard of */
		enter_drain(init);
}

static void enter_kill(struct init *init)
{
	init->phase = PHASE_KILL;
	kill(-1, SIGKILL);
	loop_timer_arm(init->deadline, KILL_TIMEOUT_MS * NS_PER_MS);
}

static void on_deadline(void *ctx)
{
	struct init *init = ctx;

	switch (init->phase) {
	case PHASE_RUNNING:
		if (init->workload) { /* asked to stop, and did not: its status will say SIGKILL */
			kill(-1, SIGKILL);
			break;
		}
		console_say("nobody came to execute the workload");
		enter_term(init);
		break;
	case PHASE_TERM:
		enter_kill(init);
		break;
	case PHASE_KILL:
		console_say("some processes cannot be killed; going on without");
		enter_drain(init);
		break;
	case PHASE_DRAIN:
		break;
	}
}

/* Who was asked to stop, and did not, was killed for that. */
static void end_with(struct init *init, int status)
{
	init->workload = 0;
	init->status = status;
	init->out_of_memory = status == 128 + SIGKILL && !init->stopping && workload_ran_out_of_memory();
}

static void on_child(void *ctx, uint32_t signo)
{
	struct init *init = ctx;
	int wait_status;
	pid_t pid;

	(void)signo;
	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		if (init->agent)
			agent_child_ended(init->agent, pid, wait_status);
		if (pid != init->workload)
			continue;
		end_with(init, process_exit_status(wait_status));
		if (!init->config.attached)
			enter_term(init);
		else if (init->phase == PHASE_RUNNING)
			loop_timer_arm(init->deadline, UINT64_MAX); /* on_workload_ended() comes soon, in any case */
	}
	if (pid < 0 && errno == ECHILD && (init->phase == PHASE_TERM || init->phase == PHASE_KILL))
		enter_drain(init);
}

static void on_stop(void *ctx, uint32_t timeout_ms)
{
	struct init *init = ctx;

	if (init->phase != PHASE_RUNNING)
		return;
	if (!init->workload) {
		enter_term(init);
		return;
	}
	agent_thaw(init->agent); /* or it would not hear it */
	if (!init->stopping)
		kill(init->workload, guest_config_stop_signal(&init->config));
	init->stopping = true;
	loop_timer_arm(init->deadline, timeout_ms * NS_PER_MS); /* a later request may shorten it */
}

/* Ctrl-Alt-Del arrives as SIGINT; SIGTERM and SIGPWR are what people send to PID 1; SIGUSR1 and SIGUSR2 are what busybox's halt and
 * poweroff send it. */
static void on_stop_signal(void *ctx, uint32_t signo)
{
	(void)signo;
	on_stop(ctx, STOP_TIMEOUT_MS);
}

/* Who presses it again does not get more time, nor less. */
static void on_power_button(void *ctx)
{
	struct init *init = ctx;

	if (!init->stopping)
		on_stop(init, STOP_TIMEOUT_MS);
}

static void protect_self(void)
{
	const struct rlimit files = {65536, 65536};
	cleanup_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write_full(fd, "-1000", 5) < 0)
		console_say("cannot protect itself from the OOM killer: %s", strerror(errno));
	/* Whoever gives the machine swap does not have us wait for it. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		console_say("cannot keep itself in memory: %s", strerror(errno));
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		console_say("cannot raise the limit of open files: %s", strerror(errno));
	reboot(RB_DISABLE_CAD);
}

static int watch_signals(struct init *init, struct error *err)
{
	static const int stop_signals[] = {SIGTERM, SIGINT, SIGPWR, SIGUSR1, SIGUSR2};
	bool failed = !loop_add_signal(init->loop, SIGCHLD, on_child, init);

	for (size_t i = 0; i < ARRAY_SIZE(stop_signals) && !failed; i++)
		failed = !loop_add_signal(init->loop, stop_signals[i], on_stop_signal, init);
	return failed ? error_set_errno(err, errno, "watch signals") : 0;
}

static void on_workload_started(void *ctx, pid_t pid)
{
	struct init *init = ctx;

	init->workload = pid;
	loop_timer_arm(init->deadline, UINT64_MAX);
}

static void on_workload_ended(void *ctx, int status)
{
	struct init *init = ctx;

	end_with(init, status);
	if (init->phase == PHASE_RUNNING)
		enter_term(init);
}

/* Hands the workload to whoever executes it. */
static void hold_workload(struct init *init)
{
	const struct held_workload workload = {init->log_fd, on_workload_started, on_workload_ended, init};

	init->log_fd = -1;
	agent_hold_workload(init->agent, &workload);
	loop_timer_arm(init->deadline, ATTACH_TIMEOUT_MS * NS_PER_MS);
}

/* In the log, where its output would be: who reads that learns why there is none. */
static void log_refusal(struct init *init, int log_fd, const struct error *err)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX];

	dprintf(log_fd, "hull-init: %s\n", error_line(err, line, sizeof line));
	close_fd(log_fd);
	enter_drain(init);
	loop_run(init->loop);
}

static int start_workload(struct init *init, struct error *err)
{
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "make the output pipe");
	/* Ours alone: the workload's end stays blocking. */
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	init->output = output_new(init->loop, ends[0], err);
	if (!init->output) {
		close_fd(ends[0]);
		close_fd(ends[1]);
		return -err->errnum;
	}
	if (init->config.attached) {
		fcntl(ends[1], F_SETFL, O_NONBLOCK);
		init->log_fd = ends[1];
		return 0;
	}
	r = workload_start(&init->config, ends[1], &init->workload, &init->status, err);
	if (r < 0)
		log_refusal(init, ends[1], err);
	else
		close_fd(ends[1]);
	return r;
}

static int watch_button(struct init *init, struct error *err)
{
	init->button = power_button_new(init->loop, on_power_button, init, err);
	return init->button || err->errnum == ENOENT ? 0 : -err->errnum;
}

static int make_loop(struct init *init, struct error *err)
{
	init->loop = loop_new();
	if (!init->loop)
		return error_set_errno(err, errno, "make it");
	init->deadline = loop_add_timer(init->loop, on_deadline, init);
	if (!init->deadline)
		return error_set_errno(err, errno, "make a timer");
	return watch_signals(init, err);
}

static int mount_kernel_files(struct init *init, struct error *err)
{
	int r = root_mount_kernel_files(err);

	(void)init;
	return r < 0 ? r : console_open(err);
}

static int prepare_kernel(struct init *init, struct error *err)
{
	(void)init;
	(void)err;
	protect_self();
	signal(SIGPIPE, SIG_IGN); /* a program that reads no more of its input */
	modules_load("/hull/modules.d", "/hull/modules");
	return 0;
}

/* A machine can do without the right time, and on a kernel of one's own may have to. */
static int set_clock(struct init *init, struct error *err)
{
	int64_t moved_ns;

	(void)init;
	if (clock_set_by_host(&moved_ns, err) < 0 && err->errnum != ENOENT)
		console_say("%s", err->message);
	*err = (struct error){0};
	return 0;
}

static int read_config(struct init *init, struct error *err)
{
	return guest_config_read(HULL_GUEST_CONFIG_PATH, &init->config, err);
}

static int enter_root(struct init *init, struct error *err)
{
	return root_enter(&init->config.root, err);
}

static int enter_mounts(struct init *init, struct error *err)
{
	size_t failed;
	int r = mounts_enter(&init->config, &failed, err);

	if (r < 0)
		init->no_mount = HULL_EXIT_NO_MOUNT | (unsigned)failed << HULL_EXIT_MOUNT_SHIFT |
				 ((unsigned)-r & HULL_EXIT_ERRNO_MASK) << HULL_EXIT_ERRNO_SHIFT;
	return r;
}

static int set_up_network(struct init *init, struct error *err)
{
	int r = net_configure(&init->config, err);

	return r < 0 ? r : net_write_names(&init->config, err);
}

/* The host need not ask whether the agent listens. One that does not hear finds out nevertheless. */
static void tell_host(void)
{
	close_fd(vsock_connect_host(HULL_VSOCK_PORT_READY));
}

static int start_agent(struct init *init, struct error *err)
{
	init->agent = agent_new(init->loop, &init->config, on_stop, init, err);
	if (!init->agent)
		return -err->errnum;
	if (init->config.attached)
		hold_workload(init);
	if (agent_listen(init->agent, err) < 0)
		return -err->errnum;
	tell_host();
	return 0;
}

/* Everything up to the running workload, in this order. */
static const struct {
	const char *name; /* as the console names it */
	int (*run)(struct init *init, struct error *err);
} steps[] = {
	{"first mounts", mount_kernel_files},
	{"kernel", prepare_kernel},
	{"clock", set_clock},
	{"configuration", read_config},
	{"root file system", enter_root},
	{"mounts", enter_mounts},
	{"network", set_up_network},
	{"event loop", make_loop},
	{"power button", watch_button},
	{"workload", start_workload},
	{"agent", start_agent}, /* last: that it answers means that the workload runs */
};

static int set_up(struct init *init, struct error *err)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps) && r == 0; i++) {
		init->step = steps[i].name;
		r = steps[i].run(init, err);
	}
	return r;
}

static void tear_down(struct init *init)
{
	kill(-1, SIGKILL); /* nobody, unless a deadline passed or the set-up failed */
	power_button_free(init->button);
	agent_free(init->agent);
	output_free(init->output);
	loop_free(init->loop);
	guest_config_done(&init->config);
	root_leave();
}

static void __attribute__((noreturn)) power_off(const struct init *init)
{
	if (ioperm(HULL_EXIT_PORT, 4, 1) == 0)
		outl(HULL_EXIT_MAGIC | (init->out_of_memory ? HULL_EXIT_OUT_OF_MEMORY : 0) | init->no_mount | ((unsigned)init->status & 0xff),
			HULL_EXIT_PORT);
	else
		console_say("cannot hand the exit status over: %s", strerror(errno));
	reboot(RB_POWER_OFF);
	console_say("cannot power off: %s", strerror(errno));
	for (;;)
		pause(); /* the end of PID 1 would be a kernel panic */
}

int main(void)
{
	struct init init = {.status = PROCESS_STATUS_SETUP};
	struct error err = {0};
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX];

	if (getpid() != 1) {
		console_say("runs only as the first process of a machine");
		return 2;
	}
	if (set_up(&init, &err) < 0)
		console_say("%s: %s", init.step, error_line(&err, line, sizeof line));
	else if (loop_run(init.loop) < 0)
		console_say("the event loop failed: %s", strerror(errno));
	tear_down(&init);
	power_off(&init);
}
