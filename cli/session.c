/* This process's input, output, terminal and signals, joined with a program's in a machine.
 *
 * Theory of operation. One poll loop over the connection, standard input, signals and the output that is
 * being written. Nothing is lost and memory is bounded: input is read within the credit the program gave and
 * while nothing waits to be sent; a frame is read only when the output before it was written. Signals and
 * resizes go out at once. */
#include "cli/session.h"

#include "common/checked.h"
#include "common/frame.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>

#define INPUT_CHUNK 32768

enum { POLL_SOCKET, POLL_SIGNALS, POLL_INPUT, POLL_OUTPUT, POLL_N };

struct session {
	struct upgrade *upgrade;
	struct frame_reader reader;
	struct buf out; /* to be sent */
	int signal_fd;
	bool input; /* more is to be read */
	uint32_t credit;
	struct frame shown; /* being written to */
	int shown_fd;
	size_t shown_done;
	bool writing;
	int status; /* -1: it has not ended */
};

void session_describe_terminal(json_t *spec)
{
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	json_t *env = json_object_get(spec, "env");
	const char *term = getenv("TERM");

	ioctl(STDIN_FILENO, TIOCGWINSZ, &size);
	json_object_set_new(spec, "tty", json_true());
	json_object_set_new(spec, "rows", json_integer(size.ws_row ? size.ws_row : 24));
	json_object_set_new(spec, "columns", json_integer(size.ws_col ? size.ws_col : 80));
	if (term && !json_object_get(env, "TERM"))
		json_object_set_new(env, "TERM", json_string(term));
}

/* ---- from the program ---- */

static int show(struct session *s, const struct frame *frame)
{
	s->shown = *frame;
	s->shown_fd = frame->type == HULL_FRAME_STDERR ? STDERR_FILENO : STDOUT_FILENO;
	s->shown_done = 0;
	s->writing = frame->len > 0;
	return 0;
}

static int take(struct session *s, const struct frame *frame)
{
	uint32_t number;

	switch (frame->type) {
	case HULL_FRAME_STDOUT:
	case HULL_FRAME_STDERR:
		return show(s, frame);
	case HULL_FRAME_CREDIT:
		if (frame_number(frame, &number) < 0 || number > UINT32_MAX - s->credit)
			return -EPROTO;
		s->credit += number;
		return 0;
	case HULL_FRAME_EXIT:
		if (frame_number(frame, &number) < 0 || number > 255)
			return -EPROTO;
		s->status = (int)number;
		return 0;
	default:
		return -EPROTO;
	}
}

static int receive(struct session *s)
{
	struct frame frame;
	void *at;
	size_t len;
	int r = 0;

	while (r == 0 && !s->writing && s->status < 0) {
		ssize_t n;

		r = frame_want(&s->reader, &at, &len);
		n = r < 0 ? r : upgrade_receive(s->upgrade, at, len);
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		r = frame_got(&s->reader, (size_t)n, &frame);
		if (r > 0)
			r = take(s, &frame);
	}
	return r;
}

/* Writes what will not block: poll() promises no more of a pipe than PIPE_BUF bytes. */
static int write_shown(struct session *s)
{
	size_t left = s->shown.len - s->shown_done;
	ssize_t n = write(s->shown_fd, s->shown.data + s->shown_done, left < PIPE_BUF ? left : PIPE_BUF);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	s->shown_done += (size_t)n;
	s->writing = s->shown_done < s->shown.len;
	return 0;
}

/* ---- to the program ---- */

/* A program that has ended takes nothing any more; what it said is to be read all the same. */
static void flush(struct session *s)
{
	size_t done = 0;
	ssize_t n = 0;

	while (done < s->out.len && n >= 0) {
		n = upgrade_send(s->upgrade, s->out.data + done, s->out.len - done);
		done += n > 0 ? (size_t)n : 0;
	}
	if (n < 0 && n != -EAGAIN) {
		done = s->out.len;
		s->input = false;
	}
	buf_consume(&s->out, done);
}

static int read_input(struct session *s)
{
	char chunk[INPUT_CHUNK];
	ssize_t n = read(STDIN_FILENO, chunk, s->credit < sizeof(chunk) ? s->credit : sizeof(chunk));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		s->input = false;
		return frame_put(&s->out, HULL_FRAME_STDIN_EOF, NULL, 0);
	}
	s->credit -= (uint32_t)n;
	return frame_put(&s->out, HULL_FRAME_STDIN, chunk, (uint32_t)n);
}

static int pass_signal(struct session *s)
{
	struct signalfd_siginfo info;
	struct hull_frame_size size;
	struct winsize window;

	if (read(s->signal_fd, &info, sizeof(info)) != sizeof(info))
		return 0;
	if (info.ssi_signo != SIGWINCH)
		return frame_put_number(&s->out, HULL_FRAME_SIGNAL, info.ssi_signo);
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &window) < 0)
		return 0;
	size = (struct hull_frame_size){htole16(window.ws_row), htole16(window.ws_col)};
	return frame_put(&s->out, HULL_FRAME_RESIZE, &size, sizeof(size));
}

/* ---- the loop ---- */

static int wait_and_do(struct session *s)
{
	struct pollfd fds[POLL_N] = {
		[POLL_SOCKET] = {upgrade_fd(s->upgrade), (short)((s->writing ? 0 : POLLIN) | (s->out.len ? POLLOUT : 0)), 0},
		[POLL_SIGNALS] = {s->signal_fd, POLLIN, 0},
		[POLL_INPUT] = {s->input && s->credit && !s->out.len ? STDIN_FILENO : -1, POLLIN, 0},
		[POLL_OUTPUT] = {s->writing ? s->shown_fd : -1, POLLOUT, 0},
	};
	int r = 0;

	/* Nothing more may come of it, and then it would be ready all the time. */
	if (!fds[POLL_SOCKET].events)
		fds[POLL_SOCKET].fd = -1;
	if (poll(fds, POLL_N, -1) < 0)
		return errno == EINTR ? 0 : -errno;
	if (fds[POLL_SIGNALS].revents)
		r = pass_signal(s);
	if (r == 0 && fds[POLL_INPUT].revents)
		r = read_input(s);
	return r;
}

static int run(struct session *s, struct failure *fail)
{
	int r = 0, written = 0;

	while (r == 0 && s->status < 0) {
		struct pollfd output = {s->shown_fd, POLLOUT, 0};

		r = receive(s);
		while (r == 0 && s->writing && written == 0 && poll(&output, 1, 0) > 0) {
			output.fd = s->shown_fd;
			written = write_shown(s);
			if (!s->writing)
				r = receive(s);
		}
		if (written < 0)
			return error_set_errno(&fail->error, -written, "cannot write the output");
		if (r == 0 && s->status < 0)
			flush(s);
		if (r == 0 && s->status < 0)
			r = wait_and_do(s);
	}
	if (s->status >= 0)
		return s->status;
	if (r == -EPROTO)
		return error_set(&fail->error, EPROTO, "what the machine says makes no sense");
	return error_set(&fail->error, -r, "the connection ended before the program did: %s", strerror(-r));
}

static int catch_signals(bool terminal, sigset_t *ret_before)
{
	static const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
		sigaddset(&set, passed[i]);
	if (terminal)
		sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, ret_before);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int session_run(struct upgrade *upgrade, bool input, bool terminal, struct failure *fail)
{
	struct session s = {.upgrade = upgrade, .input = input, .credit = HULL_EXEC_WINDOW, .status = -1};
	struct termios before, raw;
	sigset_t mask;
	int r;

	signal(SIGPIPE, SIG_IGN); /* a reader that went away is an error like others */
	s.signal_fd = catch_signals(terminal, &mask);
	if (s.signal_fd < 0)
		return error_set_errno(&fail->error, errno, "cannot catch signals");
	frame_reader_init(&s.reader, HULL_FRAME_MAX);
	buf_init(&s.out, 2 * HULL_FRAME_MAX);
	terminal = terminal && tcgetattr(STDIN_FILENO, &before) == 0;
	if (terminal) {
		raw = before;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	}
	if (!input)
		frame_put(&s.out, HULL_FRAME_STDIN_EOF, NULL, 0);
	r = run(&s, fail);
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
	buf_done(&s.out);
	frame_reader_done(&s.reader);
	close_fd(s.signal_fd);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	return r;
}
