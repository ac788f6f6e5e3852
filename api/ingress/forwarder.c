/* Asks the outside of an emulated host to forward ports to it.
 *
 * Theory of operation. A queue of questions; the first one is out, and the line that comes back is its answer. When the
 * answer does not come in time, or the other side goes, the first question fails, the descriptor is closed (a late
 * answer must not be taken for the next one's) and the next question opens it again. */
#include "api/ingress/forwarder.h"

#include "api/ingress/ingress.h"
#include "common/buf.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define ANSWER_NS	 (10 * NS_PER_S)
#define LINE_BYTES_MAX	 1024
#define QUESTION_BYTES_MAX 96

struct question {
	char line[QUESTION_BYTES_MAX];
	forwarder_done_fn done; /* NULL: nobody waits */
	void *ctx;
	struct question *next;
};

struct forwarder {
	struct loop *loop;
	char *path;
	int fd;
	struct loop_source *source, *deadline;
	struct question *first, **end;
	bool asked; /* the first question is out */
	struct buf answer;
	loop_fn drained; /* NULL: not draining */
	void *drained_ctx;
};

static void disconnect(struct forwarder *f)
{
	loop_remove(f->source);
	f->source = NULL;
	f->fd = close_fd(f->fd);
	buf_consume(&f->answer, f->answer.len);
}

/* Answers the first question and takes it from the queue. The next is asked by the deadline timer's next round: an
 * answer may be given from anywhere. */
static void answer(struct forwarder *f, const struct error *err)
{
	struct question *question = f->first;

	f->first = question->next;
	if (!f->first)
		f->end = &f->first;
	f->asked = false;
	loop_timer_arm(f->deadline, f->first ? 0 : UINT64_MAX);
	if (question->done)
		question->done(question->ctx, err);
	else if (err)
		log_warn("forwarder: %s: %s", question->line, err->message);
	free(question);
	if (f->drained && (!f->first || err))
		f->drained(f->drained_ctx);
}

static void fail(struct forwarder *f, int errnum, const char *why)
{
	struct error err;

	disconnect(f);
	error_set(&err, errnum, "the forwarder %s", why);
	answer(f, &err);
}

static void take_line(struct forwarder *f, const char *line)
{
	struct error err;

	if (!f->asked) {
		log_warn("forwarder: said \"%s\" unasked", line);
	} else if (strcmp(line, "ok") == 0) {
		answer(f, NULL);
	} else if (strncmp(line, "error ", 6) == 0) {
		error_set(&err, EADDRINUSE, "%s", line + 6);
		answer(f, &err);
	} else {
		fail(f, EPROTO, "gave an answer that is none");
	}
}

static void on_readable(void *ctx, uint32_t events)
{
	struct forwarder *f = ctx;
	ssize_t n = buf_read_fd(&f->answer, f->fd, 256);
	char *newline;

	(void)events;
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		if (f->asked)
			fail(f, EPIPE, "has gone");
		else
			disconnect(f);
		return;
	}
	while (f->source && f->answer.len && (newline = memchr(f->answer.data, '\n', f->answer.len))) {
		char line[LINE_BYTES_MAX + 1];
		size_t len = (size_t)(newline - f->answer.data);

		memcpy(line, f->answer.data, len);
		line[len] = '\0';
		buf_consume(&f->answer, len + 1);
		take_line(f, line);
	}
}

static int open_path(const char *path)
{
	struct stat status;
	int fd;

	if (stat(path, &status) < 0)
		return -errno;
	if (S_ISSOCK(status.st_mode))
		return unix_connect(path, 1, NULL);
	if (!S_ISCHR(status.st_mode))
		return -ENOTSUP;
	fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int connect_path(struct forwarder *f)
{
	if (f->fd >= 0)
		return 0;
	f->fd = open_path(f->path);
	if (f->fd >= 0)
		f->source = loop_add_fd(f->loop, f->fd, EPOLLIN, on_readable, f);
	if (f->source)
		return 0;
	f->fd = close_fd(f->fd);
	return -EIO;
}

/* Asks the first question, unless it is out already. */
static void ask(struct forwarder *f)
{
	size_t len;

	if (!f->first || f->asked)
		return;
	if (connect_path(f) < 0) {
		fail(f, EIO, "cannot be reached");
		return;
	}
	len = strlen(f->first->line);
	f->asked = true;
	loop_timer_arm(f->deadline, ANSWER_NS);
	/* Short enough for any buffer. */
	if (write(f->fd, f->first->line, len) != (ssize_t)len)
		fail(f, EIO, "takes no question");
}

/* Time to ask, or the time for the answer is over. */
static void on_deadline(void *ctx)
{
	struct forwarder *f = ctx;

	if (f->asked)
		fail(f, ETIMEDOUT, "does not answer");
	else if (!f->first && f->drained)
		f->drained(f->drained_ctx);
	else
		ask(f);
}

static void enqueue(struct forwarder *f, const char *verb, const char *address, uint16_t port, bool udp,
	forwarder_done_fn done, void *ctx)
{
	struct question *question = calloc(1, sizeof *question);

	if (!question)
		abort(); /* a lost "remove" would keep the port for ever */
	snprintf(question->line, sizeof question->line, "%s %s %u%s\n", verb, address, port, udp ? " udp" : "");
	question->done = done;
	question->ctx = ctx;
	*f->end = question;
	f->end = &question->next;
	if (f->first == question)
		loop_timer_arm(f->deadline, 0);
}

void forwarder_add(
	struct forwarder *f, const char *address, uint16_t port, bool udp, forwarder_done_fn done, void *ctx)
{
	enqueue(f, "add", address, port, udp, done, ctx);
}

void forwarder_remove(struct forwarder *f, const char *address, uint16_t port, bool udp)
{
	enqueue(f, "remove", address, port, udp, NULL, NULL);
}

void forwarder_cancel(struct forwarder *f, const void *ctx)
{
	for (struct question *question = f->first; question; question = question->next)
		if (question->ctx == ctx)
			question->done = NULL;
}

void forwarder_drain(struct forwarder *f, loop_fn drained, void *ctx)
{
	f->drained = drained;
	f->drained_ctx = ctx;
	if (!f->first)
		loop_timer_arm(f->deadline, 0);
}

struct forwarder *forwarder_new(struct loop *loop, const char *path)
{
	struct forwarder *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->loop = loop;
	f->fd = -1;
	f->end = &f->first;
	buf_init(&f->answer, LINE_BYTES_MAX);
	f->path = strdup(path);
	f->deadline = loop_add_timer(loop, on_deadline, f);
	if (f->path && f->deadline)
		return f;
	forwarder_free(f);
	return NULL;
}

void forwarder_free(struct forwarder *f)
{
	if (!f)
		return;
	disconnect(f);
	loop_remove(f->deadline);
	while (f->first) {
		struct question *question = f->first;

		f->first = question->next;
		free(question);
	}
	buf_done(&f->answer);
	free(f->path);
	free(f);
}
