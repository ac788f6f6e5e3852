/* Console bytes, both ways.
 *
 * Theory of operation. A write goes to the reader at once. What a slow one does not take becomes the backlog, which the
 * loop sends on as the reader makes room; the writing vCPU waits for that, as it would for a slow serial line. But it
 * does not wait while the vCPUs shall come to rest: they leave the rest of what they write in the backlog then. A device
 * that prints on the loop's thread cannot wait for the loop: it offers, and is told when it may go on. */
#include "vmm/console.h"

#include "common/io.h"
#include "common/log.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* What vCPUs on their way to rest may still write is less: a page each, from one string instruction. */
#define BACKLOG_MAX (1u << 20)

static int open_file(const char *path, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

	if (fd < 0)
		return error_set(err, errno, "%s: %s", path,
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

	if (console->out_fd < 0)
		buf_consume(backlog, backlog->len);
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
	bool sent;

	pthread_mutex_lock(&console->lock);
	drain(console);
	if (console->out)
		loop_set_events(console->out, console->backlog.len > 0 ? EPOLLOUT : 0);
	sent = console->offered && console->backlog.len == 0;
	if (sent)
		console->offered = false;
	pthread_mutex_unlock(&console->lock);
	if (sent)
		console->guest.sent(console->guest.ctx);
}

static void output_ready(void *ctx, uint32_t epoll_events)
{
	(void)epoll_events;
	send_backlog(ctx);
}

/* With the lock held. */
static void add(struct console *console, const void *data, size_t len)
{
	bool had_backlog = console->backlog.len > 0;

	if (console->out_broken)
		return;
	(void)buf_append(&console->backlog, data, len); /* beyond its limit it is lost */
	drain(console);
	if (console->backlog.len > 0 && !had_backlog)
		loop_post(console->loop, send_backlog, console);
}

bool console_offer(struct console *console, const void *data, size_t len)
{
	bool has_gone;

	pthread_mutex_lock(&console->lock);
	add(console, data, len);
	has_gone = console->backlog.len == 0;
	console->offered = !has_gone;
	pthread_mutex_unlock(&console->lock);
	return has_gone;
}

void console_write(struct console *console, const void *data, size_t len)
{
	pthread_mutex_lock(&console->lock);
	add(console, data, len);
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

static void init(struct console *console, struct loop *loop, const struct console_guest *guest, uint64_t limit_bytes)
{
	*console = (struct console){.loop = loop, .guest = *guest, .out_fd = -1, .in_fd = -1, .listen_fd = -1};
	console->limit = bounded_file(limit_bytes);
	buf_init(&console->backlog, BACKLOG_MAX);
	pthread_mutex_init(&console->lock, NULL);
	pthread_cond_init(&console->changed, NULL);
}

int console_init(struct console *console, struct loop *loop, const struct console_guest *guest, const char *path,
	uint64_t limit_bytes, struct error *err)
{
	int fd = path ? open_file(path, err) : open_standard_output(), r;

	*console = (struct console){0};
	if (path && fd < 0)
		return fd;
	init(console, loop, guest, limit_bytes);
	console->out_fd = fd < 0 ? STDOUT_FILENO : fd;
	console->owns_out_fd = fd >= 0;
	/* A pipe with any room takes that much (pipe(7)). Of a terminal that blocks nothing is known. */
	console->at_once = console->owns_out_fd || !isatty(console->out_fd) ? PIPE_BUF : 1;
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
	loop_remove(console->listener);
	close_fd(console->listen_fd);
	if (console->owns_out_fd)
		close_fd(console->out_fd);
	if (console->in_fd > STDIN_FILENO)
		close_fd(console->in_fd);
	if (console->socket_path)
		unlink(console->socket_path);
	free(console->socket_path);
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
	size_t taken = 0;

	if (console->pending_len > 0)
		taken = console->guest.receive(console->guest.ctx, console->pending, console->pending_len);
	console->pending_len -= taken;
	memmove(console->pending, console->pending + taken, console->pending_len);
	if (console->in)
		loop_set_events(console->in, console->pending_len ? 0 : EPOLLIN);
}

/* Whoever was at the socket is not any more. */
static void detach(struct console *console)
{
	loop_remove(console->in);
	console->in = NULL;
	console->in_fd = close_fd(console->in_fd);
	console->pending_len = 0;
	pthread_mutex_lock(&console->lock);
	loop_remove(console->out);
	console->out = NULL;
	console->out_fd = close_fd(console->out_fd);
	console->owns_out_fd = console->out_broken = false;
	pthread_mutex_unlock(&console->lock);
	send_backlog(console); /* to nobody */
}

static void input_ready(void *ctx, uint32_t epoll_events)
{
	struct console *console = ctx;
	ssize_t got = read(console->in_fd, console->pending, sizeof(console->pending));

	(void)epoll_events;
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) { /* its end: the guest goes on without */
		if (console->socket_path) {
			detach(console);
		} else {
			loop_remove(console->in);
			console->in = NULL;
		}
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

void console_read_standard_input(struct console *console)
{
	console->has_input = true;
	console->in_fd = STDIN_FILENO;
	/* /dev/null and regular files cannot be waited for: there is no input then. */
	console->in = loop_add_fd(console->loop, STDIN_FILENO, EPOLLIN, input_ready, console);
	if (console->in)
		take_terminal(console);
}

void console_room(struct console *console)
{
	if (console->has_input)
		loop_post(console->loop, feed, console);
}

/* ---- a socket ---- */

/* Whether the one at the socket has closed, which goes unnoticed while its input waits for the guest. */
static bool has_left(const struct console *console)
{
	struct pollfd in = {.fd = console->in_fd, .events = POLLRDHUP};

	return poll(&in, 1, 0) > 0;
}

/* `fd` is taken over. epoll knows a descriptor once, so there are two of it: one to write, one to read. */
static bool attach(struct console *console, int fd)
{
	struct error ignored;
	bool ok;

	pthread_mutex_lock(&console->lock);
	console->out_fd = fd;
	console->owns_out_fd = true;
	console->at_once = PIPE_BUF;
	ok = watch_output(console, &ignored) == 0;
	pthread_mutex_unlock(&console->lock);
	console->in_fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (ok && console->in_fd >= 0)
		console->in = loop_add_fd(console->loop, console->in_fd, EPOLLIN, input_ready, console);
	return console->in;
}

static void on_connection(void *ctx, uint32_t epoll_events)
{
	struct console *console = ctx;
	int fd = accept4(console->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)epoll_events;
	if (fd < 0)
		return;
	if (console->in && has_left(console))
		detach(console);
	if (console->in) {
		log_warn("%s: a second terminal is turned away", console->socket_path);
		close_fd(fd);
	} else if (!attach(console, fd)) {
		detach(console);
	}
}

int console_init_socket(struct console *console, struct loop *loop, const struct console_guest *guest, const char *path,
	struct error *err)
{
	init(console, loop, guest, 0);
	console->has_input = true;
	console->listen_fd = unix_listen(path, 1, 0600, err);
	if (console->listen_fd < 0) {
		console_done(console);
		return -err->errnum;
	}
	console->socket_path = strdup(path);
	if (!console->socket_path) {
		unlink(path);
		console_done(console);
		return error_set(err, ENOMEM, "out of memory");
	}
	console->listener = loop_add_fd(loop, console->listen_fd, EPOLLIN, on_connection, console);
	if (console->listener)
		return 0;
	error_set_errno(err, errno, "the console's socket cannot be waited for");
	console_done(console);
	return -err->errnum;
}
