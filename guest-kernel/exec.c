/* Programs executed beside the workload for clients of the host.
 *
 * Theory of operation. An exec is its client's connection. What it owns tells how far it is:
 *
 *	nothing                the SPEC is awaited
 *	pid, report            a child was forked, and becomes the program or says why not
 *	pid                    the program runs; STARTED was sent
 *	exited                 waitpid() has given its status: what is in its pipes is sent, then EXIT, then the end
 *	closing                nothing is sent any more but what `out` holds
 *
 * Memory is bounded: output is read from the program only while `out` is empty, and `input` holds no more than the
 * client's credit. Nothing is dropped: each side waits for the other. The end of the client's stream, before the
 * program's, kills all that is in the program's cgroup; programs it left behind when it ended by itself go on.
 *
 * One of them may be the workload (execs_hold_workload()). Its output is copied into the log too, and it goes on without its
 * client. As the machine goes down when it has ended, its end counts only once the client has closed, and so has heard
 * everything. */
#include "guest-kernel/exec.h"

#include "common/exec_spec.h"
#include "common/frame.h"
#include "guest-kernel/cgroup.h"
#include "guest-kernel/exec_stdio.h"
#include "guest-kernel/process.h"
#include "guest-kernel/tee.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define EXECS_MAX    1024
#define OUTPUT_CHUNK (32 * 1024)
#define OUT_MAX	     (2 * HULL_FRAME_MAX)
#define FRAMES_A_TURN 16
#define CREDIT_STEP  (HULL_EXEC_WINDOW / 4)
#define CGROUPS	     "/sys/fs/cgroup/hull.exec"
/* One that multiplies leaves room for others. */
#define CGROUP_SHARES ((struct cgroup_shares){6, 4})
#define NS_PER_S     1000000000ull
#define CLOSE_TIMEOUT_S 10

struct execs {
	struct loop *loop;
	const struct guest_config *config;
	struct cgroups *cgroups, *workload_cgroups;
	struct exec *list;
	size_t n;
	struct held_workload workload;
	bool holds_workload; /* and nobody has executed it */
};

struct output {
	struct exec *exec;
	enum hull_frame_type type;
	int fd; /* -1: at its end */
	struct loop_source *source;
	int left; /* bytes to read still; -1: all there will be */
};

struct exec {
	struct execs *execs;
	struct exec *next, **link;
	int host_fd;
	struct loop_source *host;
	struct frame_reader reader;
	struct buf out; /* to the client */
	bool has_spec, closing;

	pid_t pid; /* 0: none yet */
	struct cgroup *cgroup;
	int report_fd;
	struct loop_source *report;
	bool exited;
	int status;

	bool terminal;
	int input_fd; /* -1: closed, and what comes is dropped */
	struct loop_source *input_source;
	struct buf input;
	bool input_eof;
	uint32_t credit, owed; /* what the client may send; what it has to be told of */
	struct output outputs[2];
	struct loop_source *patience; /* with a terminal that others hold open after the program's end, or a client after EXIT */

	bool is_workload;
	struct tee *log;
};

static void close_output(struct output *output)
{
	loop_remove(output->source);
	output->source = NULL;
	output->fd = close_fd(output->fd);
}

static void close_input(struct exec *e)
{
	loop_remove(e->input_source);
	e->input_source = NULL;
	e->input_fd = close_fd(e->input_fd);
}

static void exec_free(struct exec *e)
{
	*e->link = e->next;
	if (e->next)
		e->next->link = e->link;
	e->execs->n--;
	loop_remove(e->host);
	loop_remove(e->report);
	loop_remove(e->patience);
	close_input(e);
	close_output(&e->outputs[0]);
	close_output(&e->outputs[1]);
	close_fd(e->report_fd);
	close_fd(e->host_fd);
	tee_free(e->log);
	cgroup_free(e->cgroup);
	frame_reader_done(&e->reader);
	buf_done(&e->out);
	buf_done(&e->input);
	if (e->is_workload)
		e->execs->workload.ended(e->execs->workload.ctx, e->status);
	free(e);
}

static void exec_kill(struct exec *e)
{
	if (e->pid > 0 && !e->exited) {
		cgroup_kill(e->cgroup);
		kill(-e->pid, SIGKILL);
		kill(e->pid, SIGKILL); /* which may not have its session yet */
	}
	exec_free(e);
}

/* Each step below returns 0 or -errno; on failure its caller, at the end of the way up, abandons the exec. */

static int finish_step(struct exec *e);
static int pump_input(struct exec *e);

/* A workload goes on without its client, as one that never had any: what it writes is for the log only. */
static int detach(struct exec *e)
{
	int r;

	loop_remove(e->host);
	e->host = NULL;
	e->host_fd = close_fd(e->host_fd);
	e->input_eof = true;
	r = e->report ? 0 : pump_input(e);
	return r < 0 ? r : finish_step(e);
}

/* With `r` < 0 the client has gone, broke the rules, or there is no memory to serve it. */
static void conclude(struct exec *e, int r)
{
	if (r == 0)
		r = finish_step(e);
	if (r < 0 && e->is_workload && e->host && !e->exited)
		r = detach(e);
	if (r < 0)
		exec_kill(e);
}

/* Nothing goes to the client after this. */
static void begin_closing(struct exec *e)
{
	e->closing = true;
	close_input(e);
	close_output(&e->outputs[0]);
	close_output(&e->outputs[1]);
	tee_free(e->log);
	e->log = NULL;
}

static int refuse(struct exec *e, const struct error *err)
{
	json_t *dumped = exec_refusal_dump(err);
	cleanup_free char *text = dumped ? json_dumps(dumped, JSON_COMPACT) : NULL;

	json_decref(dumped);
	begin_closing(e);
	return text ? frame_put(&e->out, HULL_FRAME_REFUSED, text, (uint32_t)strlen(text)) : -ENOMEM;
}

/* ---- the program's input ---- */

static int give_credit(struct exec *e, size_t bytes)
{
	int r;

	e->owed += (uint32_t)bytes;
	if (e->owed < CREDIT_STEP || e->closing)
		return 0;
	r = frame_put_number(&e->out, HULL_FRAME_CREDIT, e->owed);
	if (r == 0) {
		e->credit += e->owed;
		e->owed = 0;
	}
	return r;
}

static void end_input(struct exec *e)
{
	static const char eof = 4; /* VEOF of a new terminal */

	if (!e->terminal)
		close_input(e);
	else if (write(e->input_fd, &eof, 1) == 1)
		e->input_eof = false; /* said; a terminal's input goes on */
	else if (errno != EAGAIN && errno != EINTR)
		close_input(e);
}

/* Gives the program what it takes. What it does not want any more is dropped, as by a broken pipe. */
static int pump_input(struct exec *e)
{
	size_t done = 0;
	int errnum = 0;

	while (e->input_fd >= 0 && done < e->input.len && !errnum) {
		ssize_t n = write(e->input_fd, e->input.data + done, e->input.len - done);

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EINTR)
			errnum = errno;
	}
	if (errnum && errnum != EAGAIN)
		close_input(e);
	if (e->input_fd < 0)
		done = e->input.len;
	buf_consume(&e->input, done);
	if (e->input_fd >= 0 && e->input.len == 0 && e->input_eof)
		end_input(e);
	if (e->input_source)
		loop_set_events(e->input_source, e->input.len || e->input_eof ? EPOLLOUT : 0);
	return give_credit(e, done);
}

static void on_input(void *ctx, uint32_t events)
{
	(void)events;
	conclude(ctx, pump_input(ctx));
}

/* ---- its output ---- */

static void watch_output(struct output *output)
{
	const struct exec *e = output->exec;

	if (output->source)
		loop_set_events(output->source, e->out.len == 0 && tee_is_idle(e->log) && !e->report ? EPOLLIN : 0);
}

/* One piece, if there is one. */
static int read_output(struct output *output)
{
	char chunk[OUTPUT_CHUNK];
	size_t want = output->left >= 0 && (size_t)output->left < sizeof chunk ? (size_t)output->left : sizeof chunk;
	ssize_t n = want ? read(output->fd, chunk, want) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR) && output->left < 0)
		return 0;
	if (n <= 0) { /* EIO: a terminal that nobody has open any more */
		close_output(output);
		return 0;
	}
	if (output->left >= 0)
		output->left -= (int)n;
	if (output->exec->log && tee_put(output->exec->log, chunk, (size_t)n) < 0)
		return -ENOMEM;
	return frame_put(&output->exec->out, output->type, chunk, (uint32_t)n);
}

static void on_output(void *ctx, uint32_t events)
{
	struct output *output = ctx;
	struct exec *e = output->exec;

	(void)events;
	if (e->exited && e->terminal)
		loop_timer_arm(e->patience, NS_PER_S);
	conclude(e, e->out.len == 0 && tee_is_idle(e->log) ? read_output(output) : 0);
}

static void on_log_idle(void *ctx)
{
	conclude(ctx, 0);
}

/* The program has ended: what it wrote before is in its pipes now, and what comes later is others'. A terminal's is
 * on its way still, and ends by itself, unless others hold it open. */
static void bound_outputs(struct exec *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(e->outputs); i++) {
		struct output *output = &e->outputs[i];

		if (output->fd < 0)
			continue;
		if (e->terminal)
			loop_timer_arm(e->patience, NS_PER_S);
		else if (ioctl(output->fd, FIONREAD, &output->left) < 0)
			output->left = 0;
	}
}

static void on_patience(void *ctx)
{
	struct exec *e = ctx;

	if (e->closing) { /* a client that has heard everything, and does not close */
		exec_free(e);
		return;
	}
	if (e->out.len) { /* it is the client who is slow */
		loop_timer_arm(e->patience, NS_PER_S);
		return;
	}
	close_output(&e->outputs[0]);
	conclude(e, 0);
}

/* ---- its end ---- */

/* What a program that has ended still has to say, a piece at a time, and then EXIT. 1 with something in
 * `out`, 0 when there is nothing to say now, -errno. */
static int say_last(struct exec *e)
{
	/* Not in the middle of finding out why it never began. */
	if (!e->exited || e->report || e->closing || !tee_is_idle(e->log))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(e->outputs); i++)
		while (e->outputs[i].fd >= 0) {
			int r = e->terminal ? 0 : read_output(&e->outputs[i]);

			if (r < 0 || e->terminal || e->out.len || !tee_is_idle(e->log))
				return r < 0 ? r : e->out.len > 0;
		}
	begin_closing(e);
	return frame_put_number(&e->out, HULL_FRAME_EXIT, (uint32_t)e->status) < 0 ? -ENOMEM : 1;
}

/* As buf_send(). Without a client, what is for it is nobody's. */
static int flush(struct exec *e)
{
	if (e->host)
		return buf_send(&e->out, e->host_fd);
	buf_consume(&e->out, e->out.len);
	return 0;
}

/* After anything that happened: sends what there is to send, and says what is waited for. Frees an exec that
 * is over. */
static int finish_step(struct exec *e)
{
	int r;

	do {
		r = flush(e);
		if (r == 0 && e->out.len == 0)
			r = say_last(e);
	} while (r > 0);
	if (r < 0)
		return r;
	if (e->closing && e->out.len == 0 && (!e->is_workload || !e->host)) {
		exec_free(e);
		return 0;
	}
	if (e->closing && e->out.len == 0)
		loop_timer_arm(e->patience, CLOSE_TIMEOUT_S * NS_PER_S);
	watch_output(&e->outputs[0]);
	watch_output(&e->outputs[1]);
	if (e->host)
		loop_set_events(e->host, e->out.len ? EPOLLIN | EPOLLOUT : EPOLLIN);
	return 0;
}

/* ---- its start ---- */

/* The child has become the program, or has said why not. */
static void on_report(void *ctx, uint32_t events)
{
	struct exec *e = ctx;
	struct process_failure failure;
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX];
	ssize_t n = read(e->report_fd, &failure, sizeof failure);
	int r;

	(void)events;
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	loop_remove(e->report);
	e->report = NULL;
	e->report_fd = close_fd(e->report_fd);
	if (n == (ssize_t)sizeof failure && failure.status == PROCESS_STATUS_SETUP) {
		conclude(e, refuse(e, &failure.error));
		return;
	}
	r = frame_put_number(&e->out, HULL_FRAME_STARTED, (uint32_t)e->pid);
	if (r == 0 && n == (ssize_t)sizeof failure) {
		size_t len = strlen(error_line(&failure.error, line, sizeof line - 1));

		line[len++] = '\n';
		r = frame_put(&e->out, e->outputs[1].fd >= 0 ? HULL_FRAME_STDERR : HULL_FRAME_STDOUT, line, (uint32_t)len);
	}
	conclude(e, r < 0 ? r : pump_input(e));
}

static int watch_child(struct exec *e)
{
	struct loop *loop = e->execs->loop;

	e->report = loop_add_fd(loop, e->report_fd, EPOLLIN, on_report, e);
	e->patience = loop_add_timer(loop, on_patience, e);
	e->input_source = loop_add_fd(loop, e->input_fd, EPOLLOUT, on_input, e);
	for (size_t i = 0; i < ARRAY_SIZE(e->outputs); i++)
		if (e->outputs[i].fd >= 0)
			e->outputs[i].source = loop_add_fd(loop, e->outputs[i].fd, EPOLLIN, on_output, &e->outputs[i]);
	if (!e->report || !e->patience || !e->input_source || !e->outputs[0].source ||
		(e->outputs[1].fd >= 0 && !e->outputs[1].source))
		return -ENOMEM;
	loop_set_events(e->input_source, 0);
	return 0;
}

static int spawn(struct exec *e, const struct exec_spec *spec, struct exec_stdio *stdio, struct error *err)
{
	const struct guest_config *config = e->execs->config;
	struct process_spec process = {.argv = spec->workload ? config->command.items : spec->command.items,
		.env = config->env,
		.more_env = spec->env,
		.hostname = config->hostname,
		.user = spec->user ? spec->user : config->user,
		.workdir = spec->workdir ? spec->workdir : config->workdir,
		.make_workdir = spec->workload,
		.stdio = {stdio->inside[0], stdio->inside[1], stdio->inside[2]},
		.terminal = spec->tty};

	e->cgroup = cgroup_new(spec->workload ? e->execs->workload_cgroups : e->execs->cgroups);
	process.cgroup_fd = cgroup_fd(e->cgroup);
	e->report_fd = process_spawn(&process, &e->pid, err);
	if (e->report_fd < 0)
		return -err->errnum;
	fcntl(e->report_fd, F_SETFL, O_NONBLOCK);
	e->terminal = spec->tty;
	e->input_fd = steal_fd(&stdio->input);
	e->outputs[0].fd = steal_fd(&stdio->output);
	e->outputs[1].fd = steal_fd(&stdio->error);
	return 0;
}

static void begin_workload(struct exec *e)
{
	struct execs *execs = e->execs;

	e->is_workload = true;
	e->log = tee_new(execs->loop, steal_fd(&execs->workload.log_fd), on_log_idle, e);
	execs->holds_workload = false;
	execs->workload.started(execs->workload.ctx, e->pid);
}

/* 0: begun, or refused to the client; -errno. */
static int start(struct exec *e, const struct frame *frame)
{
	struct exec_stdio stdio = EXEC_STDIO_NONE;
	struct exec_spec spec;
	struct error err = {0};
	json_t *object = json_parse(frame->data, frame->len, &err);
	int r = object ? json_read(&exec_spec_table, object, &spec, &err) : -err.errnum;

	json_decref(object);
	if (r < 0)
		return refuse(e, &err);
	r = exec_spec_check(&spec, &err);
	if (r == 0 && spec.workload && !e->execs->holds_workload)
		r = error_set_field(&err, EALREADY, "workload", "does not wait to be executed");
	if (r == 0)
		r = exec_stdio_open(&stdio, spec.tty, (uint16_t)spec.rows, (uint16_t)spec.columns, &err);
	if (r == 0)
		r = spawn(e, &spec, &stdio, &err);
	if (r == 0 && spec.workload)
		begin_workload(e);
	exec_stdio_close(&stdio);
	json_done(&exec_spec_table, &spec);
	return r < 0 ? refuse(e, &err) : watch_child(e);
}

/* ---- the client ---- */

static int take_input(struct exec *e, const struct frame *frame)
{
	int r;

	if (frame->len > e->credit || e->input_eof)
		return -EPROTO;
	e->credit -= frame->len;
	r = buf_append(&e->input, frame->data, frame->len);
	return r < 0 || e->report ? r : pump_input(e);
}

static int resize(struct exec *e, const struct frame *frame)
{
	struct hull_frame_size size;

	if (frame->len != sizeof size)
		return -EPROTO;
	memcpy(&size, frame->data, sizeof size);
	if (e->terminal && e->input_fd >= 0)
		exec_stdio_resize(e->input_fd, le16toh(size.rows), le16toh(size.columns));
	return 0;
}

static int pass_signal(const struct exec *e, const struct frame *frame)
{
	uint32_t signo;
	pid_t group = e->pid;

	if (frame_number(frame, &signo) < 0 || signo < 1 || signo >= NSIG)
		return -EPROTO;
	if (e->pid <= 0 || e->exited)
		return 0;
	if (e->terminal && e->input_fd >= 0 && (ioctl(e->input_fd, TIOCGPGRP, &group) < 0 || group <= 0))
		group = e->pid;
	if (kill(-group, (int)signo) < 0)
		kill(e->pid, (int)signo);
	return 0;
}

static int handle(struct exec *e, const struct frame *frame)
{
	if (!e->has_spec) {
		if (frame->type != HULL_FRAME_SPEC)
			return -EPROTO;
		e->has_spec = true;
		e->reader.max = HULL_FRAME_MAX;
		return start(e, frame);
	}
	if (e->closing)
		return 0; /* said before our end of it was heard */
	switch (frame->type) {
	case HULL_FRAME_STDIN:
		return take_input(e, frame);
	case HULL_FRAME_STDIN_EOF:
		e->input_eof = true;
		return e->report ? 0 : pump_input(e);
	case HULL_FRAME_RESIZE:
		return resize(e, frame);
	case HULL_FRAME_SIGNAL:
		return pass_signal(e, frame);
	default:
		return -EPROTO;
	}
}

static void on_host(void *ctx, uint32_t events)
{
	struct exec *e = ctx;
	struct frame frame;
	int r = 1;

	(void)events;
	for (int i = 0; i < FRAMES_A_TURN && r > 0; i++) {
		r = frame_read(&e->reader, e->host_fd, &frame);
		if (r > 0)
			r = handle(e, &frame) < 0 ? -EPROTO : 1;
	}
	conclude(e, r < 0 ? r : 0);
}

/* ---- all of them ---- */

struct execs *execs_new(struct loop *loop, const struct guest_config *config)
{
	struct execs *execs = calloc(1, sizeof *execs);

	if (!execs)
		return NULL;
	*execs = (struct execs){.loop = loop, .config = config, .cgroups = cgroups_new(CGROUPS, CGROUP_SHARES),
		.workload_cgroups = cgroups_new(WORKLOAD_CGROUPS, WORKLOAD_CGROUP_SHARES)};
	if (execs->cgroups && execs->workload_cgroups)
		return execs;
	execs_free(execs);
	return NULL;
}

void execs_free(struct execs *execs)
{
	if (!execs)
		return;
	execs_drop_workload(execs);
	while (execs->list)
		exec_kill(execs->list);
	cgroups_free(execs->cgroups);
	cgroups_free(execs->workload_cgroups);
	free(execs);
}

void execs_hold_workload(struct execs *execs, const struct held_workload *workload)
{
	execs->workload = *workload;
	execs->holds_workload = true;
}

void execs_drop_workload(struct execs *execs)
{
	if (execs->holds_workload)
		close_fd(execs->workload.log_fd);
	execs->holds_workload = false;
}

int execs_serve(struct execs *execs, int fd)
{
	struct exec *e;

	if (execs->n >= EXECS_MAX)
		return -EAGAIN;
	e = calloc(1, sizeof *e);
	if (!e)
		return -ENOMEM;
	*e = (struct exec){.execs = execs, .next = execs->list, .link = &execs->list, .host_fd = -1, .report_fd = -1,
		.input_fd = -1, .credit = HULL_EXEC_WINDOW, .status = PROCESS_STATUS_SETUP,
		.outputs = {{e, HULL_FRAME_STDOUT, -1, NULL, -1}, {e, HULL_FRAME_STDERR, -1, NULL, -1}}};
	frame_reader_init(&e->reader, HULL_SPEC_MAX);
	buf_init(&e->out, OUT_MAX);
	buf_init(&e->input, HULL_EXEC_WINDOW);
	if (e->next)
		e->next->link = &e->next;
	execs->list = e;
	execs->n++;
	e->host = loop_add_fd(execs->loop, fd, EPOLLIN, on_host, e);
	if (!e->host) {
		exec_free(e);
		return -ENOMEM;
	}
	e->host_fd = fd;
	return 0;
}

void execs_child_ended(struct execs *execs, pid_t pid, int wait_status)
{
	struct exec *e = execs->list;

	cgroups_sweep(execs->cgroups);
	cgroups_sweep(execs->workload_cgroups);
	while (e && (e->pid != pid || e->exited))
		e = e->next;
	if (!e)
		return;
	e->exited = true;
	e->status = process_exit_status(wait_status);
	bound_outputs(e);
	conclude(e, 0);
}
