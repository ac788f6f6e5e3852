/* Running programs. */
#include "cli/subprocess.h"

#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define BAR_TICK_MS 1000

static void caught_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

int subprocess_catch_signals(struct failure *fail)
{
	sigset_t set;
	int fd;

	caught_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? error_set_errno(&fail->error, errno, "cannot catch signals") : fd;
}

bool subprocess_exists(const char *program)
{
	const char *path = getenv("PATH");

	for (const char *c = path ? path : ""; *c;) {
		size_t len = strcspn(c, ":");
		char whole[4096];

		if ((size_t)snprintf(whole, sizeof(whole), "%.*s/%s", (int)len, c, program) < sizeof(whole) &&
			access(whole, X_OK) == 0)
			return true;
		c += len + (c[len] == ':');
	}
	return false;
}

/* In the child: only async-signal-safe calls. */
static void become(const char *const *argv, int out)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(127);
	/* As root it mounts devices into what it makes, and what it could not take away again, being busy, would stay: in a namespace
	 * of its own it goes with the last process. Who may not have one is no root, or has one already. */
	if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0)
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	/* What libraries left open stays ours. mmdebstrap even fails when its own descriptors get two digits. */
	close_range(3, ~0u, 0);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

/* Keeps the end of what was said, which is where programs say why they gave up. */
static int read_output(int fd, struct buf *log, bool show)
{
	size_t before;
	ssize_t got;

	if (log->len + 4096 > log->max)
		buf_consume(log, log->len / 2);
	before = log->len;
	got = buf_read_fd(log, fd, 4096);
	if (got > 0 && show)
		write_full(STDERR_FILENO, log->data + before, (size_t)got);
	return (int)got;
}

static int follow(pid_t pid, int out, int signal_fd, struct buf *log, bool show, struct bar *bar, const char *doing)
{
	struct pollfd fds[] = {{.fd = out, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
	struct signalfd_siginfo info;
	int r = 0;

	for (;;) {
		if (poll(fds, 2, bar ? BAR_TICK_MS : -1) < 0)
			continue; /* EINTR, the only thing that can happen here */
		if (bar)
			bar_steps(bar, 0, 0, doing);
		if (fds[1].revents && read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
			kill(-pid, SIGTERM);
			r = -EINTR;
		}
		if (fds[0].revents && read_output(out, log, show) <= 0)
			return r;
	}
}

int subprocess_run(const char *const *argv, int signal_fd, struct buf *log, bool show, struct bar *bar, const char *doing,
	struct failure *fail)
{
	int out[2], status, r;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return error_set_errno(&fail->error, errno, "cannot run %s", argv[0]);
	pid = fork();
	if (pid == 0)
		become(argv, out[1]);
	close(out[1]);
	if (pid < 0) {
		close(out[0]);
		return error_set_errno(&fail->error, errno, "cannot run %s", argv[0]);
	}
	setpgid(pid, pid); /* whichever of us is first */
	r = follow(pid, out[0], signal_fd, log, show, bar, doing);
	if (bar)
		bar_end(bar);
	close(out[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return error_set(&fail->error, EINTR, "interrupted");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFSIGNALED(status))
		return error_set(&fail->error, ECHILD, "%s was ended by signal %d", argv[0], WTERMSIG(status));
	return error_set(&fail->error, ECHILD, "%s gave up with status %d", argv[0], WEXITSTATUS(status));
}
