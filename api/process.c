/* Starting and watching processes. See process.h for the theory of operation. */
#include "api/process.h"

#include "api/host_stats.h"
#include "api/spawn.h"
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

struct process *process_spawn(struct loop *loop, const char *const *argv, const int *fds, size_t n_fds, process_fn fn,
	void *ctx, struct process_id *ret_id, int *ret_gate, struct error *err)
{
	struct process *process;
	int gate[2];
	pid_t pid;

	if (pipe2(gate, O_CLOEXEC) < 0) {
		error_set_errno(err, errno, "cannot start %s", argv[0]);
		return NULL;
	}
	pid = spawn_at_gate(argv, fds, n_fds, gate[0], err);
	close(gate[0]);
	process = pid > 0 ? watch(loop, pid, fn, ctx) : NULL;
	if (!process) {
		if (pid > 0)
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
