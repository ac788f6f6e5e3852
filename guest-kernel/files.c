/* Files in and out of the machine.
 *
 * Theory of operation. Each client has a child of hull-init's, which may block as long as it likes, on a disk or on the client, while
 * the agent goes on. The child owns the connection: its end is the client's going, and what it is writing then is removed. The agent
 * only counts. SIGTERM, which the machine's end brings to all, is looked for with each frame. */
#include "guest-kernel/files.h"

#include "common/exec_spec.h"
#include "common/file_spec.h"
#include "common/frame.h"
#include "common/pack.h"
#include "guest-kernel/process.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define SOCKET_FD 3
#define LINGER_MS 10000

struct session {
	int fd;
	struct frame_reader reader;
	struct frame frame; /* of STDIN, of which `used` bytes were */
	size_t used;
	bool ended; /* STDIN_EOF */
	struct buf out;
};

/* Everything up to the agent's side runs in the child. */

static volatile sig_atomic_t told_to_end;

static void on_term(int signo)
{
	(void)signo;
	told_to_end = 1;
}

static int wait_for(const struct session *s, short events, int timeout_ms)
{
	struct pollfd pollfd = {.fd = s->fd, .events = events};
	struct timespec timeout = {.tv_sec = timeout_ms / 1000};
	sigset_t none, term;
	int r;

	sigemptyset(&none);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL); /* or it could come between being looked for and being waited for */
	r = told_to_end ? -1 : ppoll(&pollfd, 1, timeout_ms < 0 ? NULL : &timeout, &none);
	sigprocmask(SIG_UNBLOCK, &term, NULL);
	if (r < 0)
		return -EINTR;
	return r == 0 ? -ETIMEDOUT : 0;
}

static int next_frame(struct session *s)
{
	int r;

	if (told_to_end)
		return -EINTR;
	while ((r = frame_read(&s->reader, s->fd, &s->frame)) == 0)
		if ((r = wait_for(s, POLLIN, -1)) < 0)
			break;
	return r < 0 ? r : 0;
}

static int send_frame(struct session *s, enum hull_frame_type type, const void *data, size_t len)
{
	int r = told_to_end ? -EINTR : frame_put(&s->out, type, data, (uint32_t)len);

	while (r == 0 && s->out.len) {
		r = buf_send(&s->out, s->fd);
		if (r == 0 && s->out.len)
			r = wait_for(s, POLLOUT, -1);
	}
	return r;
}

static int write_output(void *ctx, const void *data, size_t len)
{
	const char *at = data;
	int r = 0;

	for (size_t part; len && r == 0; at += part, len -= part) {
		part = len < HULL_FRAME_MAX ? len : HULL_FRAME_MAX;
		r = send_frame(ctx, HULL_FRAME_STDOUT, at, part);
	}
	return r;
}

static ssize_t read_input(void *ctx, void *data, size_t len)
{
	struct session *s = ctx;
	size_t done = 0;

	while (done < len && !s->ended) {
		size_t part = s->frame.len - s->used < len - done ? s->frame.len - s->used : len - done;
		int r;

		memcpy((char *)data + done, s->frame.data + s->used, part);
		s->used += part;
		done += part;
		if (s->used < s->frame.len)
			continue;
		s->used = 0;
		r = next_frame(s);
		if (r == 0 && s->frame.type != HULL_FRAME_STDIN && (s->frame.type != HULL_FRAME_STDIN_EOF || s->frame.len))
			r = -EPROTO;
		if (r < 0) {
			s->frame.len = 0;
			return r;
		}
		s->ended = s->frame.type == HULL_FRAME_STDIN_EOF;
	}
	return (ssize_t)done;
}

static int put(struct session *s, const struct file_spec *spec, struct error *err)
{
	static const struct unpack_options all = {.keep_owner = true, .trust_modes = true};
	struct unpack_options options = all;
	struct tar_source source = {read_input, s};
	char dropped[4096];
	ssize_t n;
	int r;

	options.into = spec->into;
	s->frame.len = 0; /* the SPEC was used */
	r = unpack(spec->path, &source, &options, err);
	while (r == 0 && (n = read_input(s, dropped, sizeof dropped)) != 0) /* blocks behind the end */
		if (n < 0)
			r = error_set_errno(err, (int)-n, "cannot read the archive");
	return r;
}

static int carry_out(struct session *s, const struct frame *frame, struct error *err)
{
	json_t *object = frame->type == HULL_FRAME_SPEC ? json_parse(frame->data, frame->len, err) : NULL;
	struct tar_sink sink = {write_output, s};
	struct file_spec spec;
	int r;

	if (!object && frame->type != HULL_FRAME_SPEC)
		return error_set(err, EPROTO, "is no SPEC");
	r = object ? json_read(&file_spec_table, object, &spec, err) : -err->errnum;
	json_decref(object);
	if (r < 0)
		return r;
	r = spec.verb == FILE_GET ? pack(spec.path, &sink, NULL, NULL, err) : put(s, &spec, err);
	json_done(&file_spec_table, &spec);
	return r;
}

/* What a client that goes on sending would not read, were the connection closed under it. */
static void linger(struct session *s)
{
	char dropped[4096];

	shutdown(s->fd, SHUT_WR);
	while (wait_for(s, POLLIN, LINGER_MS) == 0 && recv(s->fd, dropped, sizeof dropped, MSG_DONTWAIT) > 0)
		;
}

static int answer(struct session *s)
{
	struct hull_agent_reply reply = {.magic = htole32(HULL_AGENT_MAGIC)};
	cleanup_free char *text = NULL;
	struct error err = {0};
	json_t *refusal;
	int r;

	if (send(s->fd, &reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply)
		return -errno;
	r = next_frame(s);
	if (r < 0)
		return r;
	if (carry_out(s, &s->frame, &err) == 0)
		return send_frame(s, HULL_FRAME_ANSWER, "{}", 2);
	refusal = exec_refusal_dump(&err);
	text = json_dumps(refusal, JSON_COMPACT);
	json_decref(refusal);
	return text ? send_frame(s, HULL_FRAME_REFUSED, text, strlen(text)) : -ENOMEM;
}

int files_converse(int fd)
{
	struct session s = {.fd = fd};
	int r;

	frame_reader_init(&s.reader, HULL_FRAME_MAX);
	buf_init(&s.out, 2 * HULL_FRAME_MAX);
	r = answer(&s);
	if (r == 0)
		linger(&s);
	frame_reader_done(&s.reader);
	buf_done(&s.out);
	return r;
}

/* No exec() closes what is the agent's. */
static void __attribute__((noreturn)) run_child(int fd)
{
	struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART}; /* poll() ends all the same */

	process_forget_parent();
	sigaction(SIGTERM, &action, NULL);
	if (fd != SOCKET_FD && dup2(fd, SOCKET_FD) < 0)
		_exit(1);
	close_range(SOCKET_FD + 1, ~0u, 0);
	files_converse(SOCKET_FD);
	_exit(0);
}

/* ---- the agent's side ---- */

int files_serve(struct files *files, int fd)
{
	pid_t *slot = files->children, pid;

	while (slot < files->children + FILES_MAX && *slot)
		slot++;
	if (slot == files->children + FILES_MAX)
		return -EAGAIN;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		run_child(fd);
	*slot = pid;
	return 0;
}

void files_child_ended(struct files *files, pid_t pid)
{
	for (size_t i = 0; i < FILES_MAX; i++)
		if (files->children[i] == pid)
			files->children[i] = 0;
}

void files_done(struct files *files)
{
	for (size_t i = 0; i < FILES_MAX; i++)
		if (files->children[i])
			kill(files->children[i], SIGTERM);
}
