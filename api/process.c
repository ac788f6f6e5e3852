/* Starting and watching processes. See process.h for the theory of operation. */
#include "api/process.h"

#include "api/host_stats.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FDS_MAX 8

struct process {
	pid_t pid;
	int pidfd;
	struct loop_source *source;
	process_fn fn;
	void *ctx;
};

/* 0: no such process, or a zombie. */
static uint64_t read_start_time(pid_t pid)
{
	char path[64], text[1024];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read_full(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return host_stats_start_time(text);
}

static void on_end(void *ctx, uint32_t events)
{
	struct process *process = ctx;
	int status;

	(void)events;
	if (waitpid(process->pid, &status, WNOHANG) != process->pid)
		status = -1;
	loop_remove(process->source);
	process->source = NULL;
	if (process->fn)
		process->fn(process->ctx, status);
	else
		process_free(process);
}

static struct process *watch(struct loop *loop, pid_t pid, process_fn fn, void *ctx)
{
	struct process *process = calloc(1, sizeof(*process));

	if (!process)
		return NULL;
	process->pid = pid;
	process->fn = fn;
	process->ctx = ctx;
	process->pidfd = pidfd_open(pid, 0);
	if (process->pidfd >= 0)
		process->source = loop_add_fd(loop, process->pidfd, EPOLLIN, on_end, process);
	if (process->source)
		return process;
	process_free(process);
	return NULL;
}

void process_free(struct process *process)
{
	if (!process)
		return;
	loop_remove(process->source);
	close_fd(process->pidfd);
	free(process);
}

bool process_is_running(const struct process *process)
{
	struct pollfd ended = {.fd = process ? process->pidfd : -1, .events = POLLIN};

	return process && process->source && poll(&ended, 1, 0) == 0;
}

void process_signal(struct process *process, int signo)
{
	if (process && process->source)
		pidfd_send_signal(process->pidfd, signo, NULL, 0);
}

void process_kill_and_free(struct process *process)
{
	if (!process)
		return;
	if (!process->source) {
		process_free(process); /* has ended already */
		return;
	}
	process->fn = NULL;
	process_signal(process, SIGKILL);
}

struct process *process_adopt(struct loop *loop, const struct process_id *id, process_fn fn, void *ctx)
{
	struct process *process = id->pid > 0 ? watch(loop, id->pid, fn, ctx) : NULL;

	if (process && read_start_time(id->pid) != id->start_time) {
		process_free(process);
		process = NULL;
	}
	return process;
}

/* In the child, which may have been forked from a process with threads: only async-signal-safe calls. */
static void __attribute__((noreturn)) run_child(const char *const *argv, int *fds, size_t n_fds, const int gate[2])
{
	static const char cannot[] = "hulld: cannot execute ";
	int wait_at;
	sigset_t none;
	char go;

	/* First of all hulld's own descriptors go: a successor must not find its sockets still listening. */
	wait_at = fcntl(gate[0], F_DUPFD, 2 * FDS_MAX);
	for (size_t i = 0; i < n_fds; i++)
		fds[i] = fcntl(fds[i], F_DUPFD, FDS_MAX); /* out of the way: one may have the number of another's place */
	for (size_t i = 0; i < n_fds; i++)
		if (fds[i] < 0 || dup2(fds[i], (int)i) < 0)
			_exit(127);
	close_range((unsigned)n_fds, (unsigned)wait_at - 1, 0);
	close_range((unsigned)wait_at + 1, ~0u, 0);
	if (wait_at < 0 || read(wait_at, &go, 1) != 1)
		_exit(0);
	close(wait_at);
	setsid();
	umask(077);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(argv[0], (char *const *)argv);
	if (write(2, cannot, sizeof(cannot) - 1) < 0 || write(2, argv[0], strlen(argv[0])) < 0 || write(2, "\n", 1) < 0)
		_exit(126);
	_exit(127);
}

struct process *process_spawn(struct loop *loop, const char *const *argv, const int *fds, size_t n_fds, process_fn fn,
	void *ctx, struct process_id *ret_id, int *ret_gate, struct error *err)
{
	struct process *process;
	int gate[2], copy[FDS_MAX];
	pid_t pid;

	memcpy(copy, fds, n_fds * sizeof(*fds));
	if (pipe2(gate, O_CLOEXEC) < 0) {
		error_set_errno(err, errno, "cannot start %s", argv[0]);
		return NULL;
	}
	pid = fork();
	if (pid == 0)
		run_child(argv, copy, n_fds, gate);
	close(gate[0]);
	process = pid > 0 ? watch(loop, pid, fn, ctx) : NULL;
	if (!process) {
		error_set_errno(err, errno, "cannot start %s", argv[0]);
		close_fd(gate[1]);
		if (pid > 0)
			waitpid(pid, NULL, 0); /* at once: its gate has closed */
		return NULL;
	}
	*ret_id = (struct process_id){pid, read_start_time(pid)};
	*ret_gate = gate[1];
	return process;
}

void process_open_gate(int gate)
{
	if (write_full(gate, "g", 1) < 0)
		log_warn("a process ended before it began");
	close(gate);
}

int find_program(const char *name, char *ret, size_t size)
{
	const char *path = getenv("PATH");
	cleanup_free char *folders = NULL;
	char *rest = NULL;

	if (asprintf(&folders, "%s:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", path ? path : "") < 0)
		return -ENOMEM;
	for (char *folder = strtok_r(folders, ":", &rest); folder; folder = strtok_r(NULL, ":", &rest)) {
		int len = snprintf(ret, size, "%s/%s", folder, name);

		if (folder[0] == '/' && len > 0 && (size_t)len < size && access(ret, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}
