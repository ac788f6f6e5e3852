/* Console bytes, both ways.
 *
 * Theory of operation. A write goes to the reader at once. What a slow one does not take becomes the backlog, which the
 * loop sends on as the reader makes room; the writing vCPU waits for that, as it would for a slow serial line. But it
 * does not wait while the vCPUs shall come to rest: they leave the rest of what they write in the backlog then. */
#include "vmm/console.h"

#include "common/io.h"
#include "devices/uart16550.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

/* What vCPUs on their way to rest may still write is less: a page each, from one string instruction. */
#define BACKLOG_MAX (1u << 20)

static int open_file(const char *path, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

	if (fd < 0)
		return error_set_field(err, errno, "serial.serial_out_path", "%s: %s", path,
			errno == ENXIO ? "nobody reads this FIFO" : strerror(errno));
	return fd;
}

/* Standard output once more, for ourselves alone: whoever started the monitor has the other, so that one cannot be made
 * non-blocking. -1 for a file, whose offset they share, and for what cannot be opened again: a socket, a terminal
 * of another user. */
static int open_standard_output(void)
{
	struct stat st;

	if (fstat(STDOUT_FILENO, &st) < 0 || S_ISREG(st.st_mode))
		return -1;
	return open("/proc/self/fd/1", O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

/* ---- output ---- */

/* True when a write of `at_once` bytes will not wait. */
static bool has_room(const struct console *console)
{
	struct pollfd out = {.fd = console->out_fd, .events = POLLOUT};

	return !console->out || poll(&out, 1, 0) > 0;
}

/* With the lock held: writes what the reader takes now. */
static void drain(struct console *console)
{
	struct buf *backlog = &console->backlog;

	while (backlog->len > 0 && has_room(console)) {
		size_t chunk = backlog->len < console->at_once ? backlog->len : console->at_once;
		ssize_t put = write(console->out_fd, backlog->data, chunk);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno == EAGAIN)
			break;
		/* What a full disk does not take is lost; a pipe without reader gets none ever again. */
		if (put < 0)
			console->out_broken = errno == EPIPE;
		else
			bounded_file_wrote(&console->limit, console->out_fd, (uint64_t)put);
		buf_consume(backlog, put < 0 ? backlog->len : (size_t)put);
	}
	if (backlog->len == 0)
		pthread_cond_broadcast(&console->changed);
}

/* Loop thread: the reader has made room, or there is something to wait for. */
static void send_backlog(void *ctx)
{
	struct console *console = ctx;

	pthread_mutex_lock(&console->lock);
	drain(console);
	loop_set_events(console->out, console->backlog.len > 0 ? EPOLLOUT : 0);
	pthread_mutex_unlock(&console->lock);
}

static void output_ready(void *ctx, uint32_t epoll_events)
{
	(void)epoll_events;
	send_backlog(ctx);
}

void console_write(struct console *console, const void *data, size_t len)
{
	bool had_backlog;

	pthread_mutex_lock(&console->lock);
	if (!console->out_broken) {
		had_backlog = console->backlog.len > 0;
		(void)buf_append(&console->backlog, data, len); /* beyond its limit it is lost */
		drain(console);
		if (console->backlog.len > 0 && !had_backlog)
			loop_post(console->loop, send_backlog, console);
	}
	while (console->backlog.len > 0 && console->may_wait)
		pthread_cond_wait(&console->changed, &console->lock);
	pthread_mutex_unlock(&console->lock);
}

void console_may_wait(struct console *console, bool may_wait)
{
	pthread_mutex_lock(&console->lock);
	console->may_wait = may_wait;
	pthread_cond_broadcast(&console->changed);
	pthread_mutex_unlock(&console->lock);
}

/* Registers the output with the loop, parked. What epoll cannot wait for never makes a write wait. */
static int watch_output(struct console *console, struct error *err)
{
	console->out = loop_add_fd(console->loop, console->out_fd, EPOLLOUT, output_ready, console);
	if (console->out)
		return loop_set_events(console->out, 0);
	return errno == EPERM ? 0 : error_set_errno(err, errno, "the console's output cannot be waited for");
}

int console_init(
	struct console *console, struct loop *loop, const char *path, uint64_t limit_bytes, struct error *err)
{
	int fd = path ? open_file(path, err) : open_standard_output(), r;

	*console = (struct console){0};
	if (path && fd < 0)
		return fd;
	console->loop = loop;
	console->limit = bounded_file(limit_bytes);
	console->out_fd = fd < 0 ? STDOUT_FILENO : fd;
	console->owns_out_fd = fd >= 0;
	/* A pipe with any room takes that much (pipe(7)). Of a terminal that blocks nothing is known. */
	console->at_once = console->owns_out_fd || !isatty(console->out_fd) ? PIPE_BUF : 1;
	buf_init(&console->backlog, BACKLOG_MAX);
	pthread_mutex_init(&console->lock, NULL);
	pthread_cond_init(&console->changed, NULL);
	r = watch_output(console, err);
	if (r < 0)
		console_done(console);
	return r;
}

void console_done(struct console *console)
{
	if (!console->loop)
		return;
	drain(console);
	if (console->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &console->terminal);
	loop_remove(console->in);
	loop_remove(console->out);
	if (console->owns_out_fd)
		close_fd(console->out_fd);
	buf_done(&console->backlog);
	pthread_mutex_destroy(&console->lock);
	pthread_cond_destroy(&console->changed);
	*console = (struct console){0};
}

/* ---- input ---- */

/* Offers what is pending; waits for more input only when all of it was taken. */
static void feed(void *ctx)
{
	struct console *console = ctx;
	size_t taken = uart16550_receive(console->uart, console->pending, console->pending_len);

	console->pending_len -= taken;
	memmove(console->pending, console->pending + taken, console->pending_len);
	if (console->in)
		loop_set_events(console->in, console->pending_len ? 0 : EPOLLIN);
}

static void input_ready(void *ctx, uint32_t epoll_events)
{
	struct console *console = ctx;
	ssize_t got = read(STDIN_FILENO, console->pending, sizeof(console->pending));

	(void)epoll_events;
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) { /* its end: the guest goes on without */
		loop_remove(console->in);
		console->in = NULL;
		return;
	}
	console->pending_len = (size_t)got;
	feed(console);
}

/* Every key is the guest's, Ctrl-C too. Not in the background: changing the terminal would stop the monitor. */
static void take_terminal(struct console *console)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp() ||
		tcgetattr(STDIN_FILENO, &console->terminal) < 0)
		return;
	raw = console->terminal;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG | IEXTEN);
	raw.c_iflag &= ~(tcflag_t)(ICRNL | IXON);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	console->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void console_read_input(struct console *console, struct uart16550 *uart)
{
	console->uart = uart;
	/* /dev/null and regular files cannot be waited for: there is no input then. */
	console->in = loop_add_fd(console->loop, STDIN_FILENO, EPOLLIN, input_ready, console);
	if (console->in)
		take_terminal(console);
}

void console_room(struct console *console)
{
	if (console->uart)
		loop_post(console->loop, feed, console);
}
