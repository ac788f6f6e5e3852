/* kvmhost-attach - outside: one session with a host that `kvmhost up` started, in this terminal or over pipes.
 *
 *	kvmhost-attach FOLDER [COMMAND [ARG]...]
 *
 * FOLDER has the sockets session.0 … of the virtio-serial ports. Exit status: the command's; 255 when the session
 * broke; 2 for a wrong command line. Called by the kvmhost script. */
#include "common/checked.h"
#include "common/io.h"
#include "tools/session.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <termios.h>

#define LOST		    256	  /* no command's exit status */
#define GREETING_TIMEOUT_MS 30000 /* the agent answers when the emulated processor gets to it */

static struct termios saved_terminal;
static bool terminal_is_raw;

static void restore_terminal(void)
{
	if (terminal_is_raw)
		tcsetattr(0, TCSADRAIN, &saved_terminal);
	terminal_is_raw = false;
}

static int make_terminal_raw(void)
{
	struct termios raw;

	if (tcgetattr(0, &saved_terminal) < 0)
		return -errno;
	raw = saved_terminal;
	cfmakeraw(&raw);
	if (tcsetattr(0, TCSADRAIN, &raw) < 0)
		return -errno;
	terminal_is_raw = true;
	return 0;
}

/* A free port's socket. The lock beside it, held as long as this process lives, says who has it: QEMU would let a
 * second client wait unseen. */
static int open_port(const char *folder, struct error *err)
{
	for (int i = 0; i < SESSION_PORTS; i++) {
		char path[4096];
		int lock;

		if ((size_t)snprintf(path, sizeof(path), "%s/session.%d.lock", folder, i) >= sizeof(path))
			return error_set(err, ENAMETOOLONG, "%s: path too long", folder);
		lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (lock < 0)
			return error_set_errno(err, errno, "cannot open %s", path);
		if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
			close(lock);
			continue;
		}
		snprintf(path, sizeof(path), "%s/session.%d", folder, i);
		return unix_connect(path, 0, err);
	}
	return error_set(err, EBUSY, "all %d sessions are in use", SESSION_PORTS);
}

static int greet(int port, struct buf *from_port, struct error *err)
{
	char greeting[SESSION_GREETING_SIZE + SESSION_NONCE_SIZE] = SESSION_GREETING, answer[SESSION_NONCE_SIZE];
	char *nonce = greeting + SESSION_GREETING_SIZE;
	int r;

	if (getrandom(nonce, SESSION_NONCE_SIZE, 0) != SESSION_NONCE_SIZE)
		return error_set(err, EIO, "no random bytes");
	r = write_full(port, greeting, sizeof(greeting));
	if (r < 0)
		return error_set_errno(err, -r, "cannot write to the host");
	while (!session_skip_to_greeting(from_port, nonce, answer)) {
		if (poll(&(struct pollfd){.fd = port, .events = POLLIN}, 1, GREETING_TIMEOUT_MS) <= 0)
			return error_set(err, ETIMEDOUT, "the host does not answer");
		if (buf_read_fd(from_port, port, 4096) <= 0)
			return error_set(err, EPIPE, "the host ended");
	}
	return 0;
}

static int send_request(int port, bool terminal, int argc, char **argv, struct error *err)
{
	struct buf request;
	char wanted = terminal;
	int r;

	buf_init(&request, SESSION_PAYLOAD_MAX);
	r = buf_append(&request, &wanted, 1);
	for (int i = 0; i < argc && r == 0; i++)
		r = buf_append(&request, argv[i], strlen(argv[i]) + 1);
	if (r == 0)
		r = session_send(port, SESSION_RUN, request.data, request.len);
	buf_done(&request);
	return r < 0 ? error_set_errno(err, -r, "cannot send the command") : 0;
}

static int send_size(int port)
{
	struct winsize size;
	uint16_t payload[2];

	if (ioctl(0, TIOCGWINSZ, &size) < 0)
		return 0;
	payload[0] = htons(size.ws_row);
	payload[1] = htons(size.ws_col);
	return session_send(port, SESSION_SIZE, payload, sizeof(payload));
}

/* Writes out what came. -1 to go on, else the exit status. */
static int handle_frames(struct buf *from_port)
{
	const char *payload;
	size_t len, size;
	char type;
	int r;

	while ((r = session_peek(from_port, &type, &payload, &len, &size)) > 0) {
		if (type == SESSION_EXIT && len == 1)
			return (unsigned char)payload[0];
		if ((type == SESSION_OUTPUT || type == SESSION_ERROR) &&
			write_full(type == SESSION_OUTPUT ? 1 : 2, payload, len) < 0)
			return LOST;
		buf_consume(from_port, size);
	}
	return r < 0 ? LOST : -1;
}

static int pump(int port, struct buf *from_port, int resized)
{
	struct pollfd fds[] = {
		{.fd = port, .events = POLLIN},
		{.fd = 0, .events = POLLIN},
		{.fd = resized, .events = POLLIN},
	};
	int status = handle_frames(from_port);

	while (status < 0) {
		char data[16384];
		ssize_t got;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return LOST;
		if (fds[1].revents) {
			got = read(0, data, sizeof(data));
			if (got <= 0)
				fds[1].fd = -1;
			if (session_send(port, SESSION_INPUT, data, got > 0 ? (size_t)got : 0) < 0)
				return LOST;
		}
		if (fds[2].revents && read(resized, data, sizeof(struct signalfd_siginfo)) > 0)
			send_size(port);
		if (fds[0].revents && buf_read_fd(from_port, port, 16384) <= 0)
			return LOST;
		status = handle_frames(from_port);
	}
	return status;
}

static int fail(const struct error *err)
{
	char line[512];

	fprintf(stderr, "kvmhost: %s\n", error_line(err, line, sizeof(line)));
	return SESSION_STATUS_LOST;
}

int main(int argc, char **argv)
{
	bool terminal = argc == 2 && isatty(0) && isatty(1);
	struct error err = {0};
	struct buf from_port;
	sigset_t winch;
	int port, resized, status;

	if (argc < 2) {
		fprintf(stderr, "usage: kvmhost-attach FOLDER [COMMAND [ARG]...]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&winch);
	sigaddset(&winch, SIGWINCH);
	sigprocmask(SIG_BLOCK, &winch, NULL);
	resized = signalfd(-1, &winch, SFD_CLOEXEC);
	buf_init(&from_port, 4 * SESSION_PAYLOAD_MAX);
	port = open_port(argv[1], &err);
	if (port < 0 || greet(port, &from_port, &err) < 0 ||
		send_request(port, terminal, argc - 2, argv + 2, &err) < 0)
		return fail(&err);
	if (terminal) {
		send_size(port);
		make_terminal_raw();
	}
	status = pump(port, &from_port, resized);
	restore_terminal();
	if (status == LOST)
		fprintf(stderr, "kvmhost: the session with the host ended early\n");
	buf_done(&from_port);
	close(port);
	return status == LOST ? SESSION_STATUS_LOST : status;
}
