/* Console bytes, both ways.
 *
 * Theory of operation. A reader that is slow makes the writing vCPU wait, as a slow serial line would; that
 * wait must end when the machine shall end, so it is a poll() of the output and of stop_fd, and a write never
 * brings more than a pipe with room for anything takes at once. The output's descriptor is shared with
 * whoever started the monitor, so it cannot be made non-blocking. */
#include "vmm/console.h"

#include "common/io.h"
#include "devices/uart16550.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

static int open_file(const char *path, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

	if (fd < 0)
		return error_set_field(err, errno, "serial.serial_out_path", "%s: %s", path,
			errno == ENXIO ? "nobody reads this FIFO" : strerror(errno));
	fcntl(fd, F_SETFL, O_APPEND); /* O_NONBLOCK was for the opening only */
	return fd;
}

int console_init(struct console *console, struct loop *loop, const char *path, struct error *err)
{
	struct stat st;
	int fd = STDOUT_FILENO;

	*console = (struct console){.loop = loop, .out_fd = -1, .stop_fd = -1};
	if (path) {
		fd = open_file(path, err);
		if (fd < 0)
			return fd;
	}
	console->out_fd = fd;
	console->owns_out_fd = path != NULL;
	console->out_is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	console->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (console->stop_fd < 0) {
		int r = error_set_errno(err, errno, "no descriptor for the console");

		console_done(console);
		return r;
	}
	return 0;
}

void console_done(struct console *console)
{
	if (!console->loop)
		return;
	if (console->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &console->terminal);
	loop_remove(console->in);
	if (console->owns_out_fd)
		close_fd(console->out_fd);
	close_fd(console->stop_fd);
	*console = (struct console){0};
}

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

/* Every key is the guest's, Ctrl-C too. Not in the background: changing the terminal would stop the monitor.
 */
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

/* True when a write will not wait. */
static bool wait_for_room(const struct console *console)
{
	struct pollfd fds[] = {
		{.fd = console->out_fd, .events = POLLOUT},
		{.fd = console->stop_fd, .events = POLLIN},
	};
	int n;

	if (console->out_is_file)
		return true;
	do
		n = poll(fds, 2, -1);
	while ((n < 0 && errno == EINTR) || (n > 0 && !fds[0].revents && !fds[1].revents));
	return n > 0 && fds[0].revents & (POLLOUT | POLLERR | POLLHUP);
}

void console_write(struct console *console, const void *data, size_t len)
{
	while (len > 0 && !console->out_broken && wait_for_room(console)) {
		size_t chunk = len < PIPE_BUF ? len : PIPE_BUF;
		ssize_t put = write(console->out_fd, data, chunk);

		if (put < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (put < 0) { /* what a full disk does not take is lost; a pipe without reader gets none ever
				  again */
			console->out_broken = errno == EPIPE;
			return;
		}
		data = (const char *)data + put;
		len -= (size_t)put;
	}
}

void console_stop(struct console *console)
{
	eventfd_write(console->stop_fd, 1);
}
