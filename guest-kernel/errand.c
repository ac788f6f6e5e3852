/* A program that the agent itself runs, for what it has to say. */
#include "guest-kernel/errand.h"

#include "guest-kernel/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define CGROUPS	 "/sys/fs/cgroup/hull.agent"
#define LINE_MAX_BYTES 160

struct errands {
	struct loop *loop;
	struct cgroups *cgroups;
	struct errand *list;
};

struct errand {
	struct errands *errands;
	struct errand *next, **link;
	pid_t pid;
	struct cgroup *cgroup;
	int report_fd; /* of process_spawn() */
	int output_fd;
	struct loop_source *output;
	char line[LINE_MAX_BYTES + 1]; /* the last that was not empty, */
	size_t line_len;
	bool line_ended; /* and whether the next byte begins another */
	errand_fn fn;
	void *ctx;
};

static void errand_free(struct errand *e)
{
	*e->link = e->next;
	if (e->next)
		e->next->link = e->link;
	loop_remove(e->output);
	close_fd(e->output_fd);
	close_fd(e->report_fd);
	cgroup_free(e->cgroup);
	free(e);
}

void errand_cancel(struct errand *e)
{
	if (!e)
		return;
	if (e->pid > 0) {
		cgroup_kill(e->cgroup);
		kill(-e->pid, SIGKILL);
		kill(e->pid, SIGKILL); /* which may not have its session yet */
	}
	errand_free(e);
}

static void keep_line(struct errand *e, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n') {
			e->line_ended = true;
			continue;
		}
		if (e->line_ended)
			e->line_len = 0;
		e->line_ended = false;
		if (e->line_len < LINE_MAX_BYTES)
			e->line[e->line_len++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '?';
	}
	e->line[e->line_len] = '\0';
}

/* Reads what is there: a pipe's worth at most, as more may always come. */
static void read_output(struct errand *e)
{
	char bytes[4096];

	for (int i = 0; i < 16 && e->output_fd >= 0; i++) {
		ssize_t n = read(e->output_fd, bytes, sizeof bytes);

		if (n > 0) {
			keep_line(e, bytes, (size_t)n);
			continue;
		}
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		loop_remove(e->output);
		e->output = NULL;
		e->output_fd = close_fd(e->output_fd);
	}
}

static void on_output(void *ctx, uint32_t events)
{
	(void)events;
	read_output(ctx);
}

struct errand *errand_new(
	struct errands *errands, const struct process_spec *spec, errand_fn fn, void *ctx, struct error *err)
{
	struct errand *e = calloc(1, sizeof *e);
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), inside = -1;
	struct process_spec process = *spec;
	int ends[2];

	if (e)
		*e = (struct errand){.errands = errands, .next = errands->list, .link = &errands->list, .report_fd = -1,
			.output_fd = -1, .fn = fn, .ctx = ctx};
	if (!e || null < 0 || pipe2(ends, O_CLOEXEC) < 0) {
		error_set_errno(err, e ? errno : ENOMEM, "cannot run a program");
		free(e);
		return NULL;
	}
	if (e->next)
		e->next->link = &e->next;
	errands->list = e;
	inside = ends[1];
	e->output_fd = ends[0];
	fcntl(e->output_fd, F_SETFL, O_NONBLOCK);
	e->output = loop_add_fd(errands->loop, e->output_fd, EPOLLIN, on_output, e);
	e->cgroup = cgroup_new(errands->cgroups);
	process.cgroup_fd = cgroup_fd(e->cgroup);
	memcpy(process.stdio, (const int[]){null, inside, inside}, sizeof process.stdio);
	if (!e->output)
		error_set_errno(err, errno, "cannot run a program");
	else
		e->report_fd = process_spawn(&process, &e->pid, err);
	if (e->report_fd >= 0)
		return e;
	errand_free(e);
	return NULL;
}

void errands_child_ended(struct errands *errands, pid_t pid, int wait_status)
{
	struct errand *e = errands->list;
	struct process_failure failure;
	char line[sizeof e->line];
	errand_fn fn;
	bool failed;
	void *ctx;

	cgroups_sweep(errands->cgroups);
	while (e && e->pid != pid)
		e = e->next;
	if (!e)
		return;
	/* It has ended, so that what it had to say is there. */
	failed = read(e->report_fd, &failure, sizeof failure) == (ssize_t)sizeof failure;
	read_output(e);
	memcpy(line, e->line, sizeof line);
	fn = e->fn;
	ctx = e->ctx;
	errand_free(e);
	fn(ctx, failed ? &failure.error : NULL, process_exit_status(wait_status), line);
}

struct errands *errands_new(struct loop *loop)
{
	struct errands *errands = calloc(1, sizeof *errands);

	if (errands)
		*errands = (struct errands){.loop = loop, .cgroups = cgroups_new(CGROUPS, (struct cgroup_shares){0})};
	if (errands && !errands->cgroups) {
		free(errands);
		return NULL;
	}
	return errands;
}

void errands_free(struct errands *errands)
{
	if (!errands)
		return;
	cgroups_free(errands->cgroups);
	free(errands);
}
