/* kvmhost-agent - inside the emulated host: runs what `kvmhost shell` asks for.
 *
 *	kvmhost-agent [barrier]
 *
 * With `barrier` it only raises that (barrier.h), before there are machines.
 *
 * Theory of operation. One process a virtio-serial port, one session at a time on it. A port's hang-up means that the
 * outside is gone: the session's processes then get SIGHUP, and SIGKILL if they stay. Only root inside can open a port
 * and only the user who ran `kvmhost up` can reach its other end, so a session needs no credentials. */
#include "common/checked.h"
#include "common/io.h"
#include "tools/barrier.h"
#include "tools/session.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ARGUMENTS_MAX 1024
#define PORT_FOLDER   "/dev/virtio-ports"

struct session {
	int port;
	struct buf from_port;
	bool terminal;
	pid_t pid;
	int pidfd;
	int input, output, error; /* ours; -1 once at the end. With a terminal, input and output are two to one pty */
};

static void close_session(struct session *s)
{
	s->input = close_fd(s->input);
	s->output = close_fd(s->output);
	s->error = close_fd(s->error);
	s->pidfd = close_fd(s->pidfd);
}

/* In the child. */
static void exec_command(char **arguments)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (chdir("/root") < 0)
		_exit(126);
	if (!arguments[0]) {
		const char *shell = access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";

		execl(shell, shell, "-l", NULL);
	} else {
		execvp(arguments[0], arguments);
	}
	dprintf(2, "%s: %s\n", arguments[0] ? arguments[0] : "sh", strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static int start_on_terminal(struct session *s, char **arguments)
{
	int pty;

	s->pid = forkpty(&pty, NULL, NULL, NULL);
	if (s->pid < 0)
		return -errno;
	if (s->pid == 0)
		exec_command(arguments);
	s->output = pty;
	s->input = fcntl(pty, F_DUPFD_CLOEXEC, 0);
	return s->input < 0 ? -errno : 0;
}

static int start_on_pipes(struct session *s, char **arguments)
{
	cleanup_close int in = -1, out = -1, err = -1;
	int pipes[3][2];

	for (int i = 0; i < 3; i++) {
		if (pipe2(pipes[i], O_CLOEXEC) < 0) {
			while (i-- > 0) {
				close(pipes[i][0]);
				close(pipes[i][1]);
			}
			return -EMFILE;
		}
	}
	in = pipes[0][0];
	out = pipes[1][1];
	err = pipes[2][1];
	s->input = pipes[0][1];
	s->output = pipes[1][0];
	s->error = pipes[2][0];
	s->pid = fork();
	if (s->pid < 0)
		return -errno;
	if (s->pid == 0) {
		setsid();
		if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
			_exit(126);
		exec_command(arguments);
	}
	return 0;
}

/* 0 or -errno; on failure nothing runs. */
static int start(struct session *s, const char *payload, size_t len)
{
	char *arguments[ARGUMENTS_MAX + 1];
	size_t n = 0;
	int r;

	if (len < 1 || (len > 1 && payload[len - 1] != '\0'))
		return -EPROTO;
	s->terminal = payload[0];
	for (size_t at = 1; at < len; at += strlen(payload + at) + 1) {
		if (n == ARGUMENTS_MAX)
			return -E2BIG;
		arguments[n++] = (char *)payload + at;
	}
	arguments[n] = NULL;
	r = s->terminal ? start_on_terminal(s, arguments) : start_on_pipes(s, arguments);
	if (r == 0) {
		s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
		if (s->pidfd < 0)
			r = -errno;
		/* The command may be slower than who feeds it: hang-up and output must still be seen. */
		else if (fcntl(s->input, F_SETFL, O_NONBLOCK) < 0)
			r = -errno;
	}
	return r;
}

static void set_size(struct session *s, const char *payload, size_t len)
{
	uint16_t rows, columns;

	if (len != 4 || !s->terminal)
		return;
	memcpy(&rows, payload, 2);
	memcpy(&columns, payload + 2, 2);
	ioctl(s->output, TIOCSWINSZ, &(struct winsize){.ws_row = ntohs(rows), .ws_col = ntohs(columns)});
}

/* Passes input on. A frame the command has not taken whole stays in the buffer, shortened: -EAGAIN. */
static int pass_input(struct session *s, const char *payload, size_t len)
{
	ssize_t put;
	uint32_t rest;

	if (s->input < 0)
		return 0; /* the command closed it */
	if (len == 0) {
		if (s->terminal) /* a terminal has no end, but a character that says so */
			return write(s->input, "\004", 1) < 0 && errno == EAGAIN ? -EAGAIN : 0;
		s->input = close_fd(s->input);
		return 0;
	}
	put = write(s->input, payload, len);
	if (put < 0 && errno == EAGAIN)
		return -EAGAIN;
	if (put < 0) {
		s->input = close_fd(s->input);
		return 0;
	}
	if ((size_t)put == len)
		return 0;
	buf_consume(&s->from_port, (size_t)put);
	rest = htonl((uint32_t)(len - (size_t)put));
	s->from_port.data[0] = SESSION_INPUT;
	memcpy(s->from_port.data + 1, &rest, sizeof(rest));
	return -EAGAIN;
}

/* Handles what came from outside. 0; 1 when the command must take its input first; -errno when the session is over. */
static int handle_frames(struct session *s)
{
	const char *payload;
	size_t len, size;
	char type;
	int r;

	while ((r = session_peek(&s->from_port, &type, &payload, &len, &size)) > 0) {
		if (type == SESSION_INPUT && pass_input(s, payload, len) == -EAGAIN)
			return 1;
		if (type == SESSION_SIZE)
			set_size(s, payload, len);
		buf_consume(&s->from_port, size);
	}
	return r;
}

/* Sends what the command wrote. The descriptor, or -1 at its end. */
static int pass_output(struct session *s, int fd, enum session_frame type)
{
	char data[16384];
	ssize_t got = read(fd, data, sizeof(data));

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return fd;
	if (got <= 0 || session_send(s->port, type, data, (size_t)got) < 0)
		return close_fd(fd); /* (a pty whose last user is gone reads EIO) */
	return fd;
}

static bool readable(int fd)
{
	return fd >= 0 && poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) > 0;
}

/* Ends and reaps the command. Its exit status as a shell counts it. */
static int finish(struct session *s, bool abandoned)
{
	int status;

	if (abandoned) {
		kill(-s->pid, SIGHUP);
		if (poll(&(struct pollfd){.fd = s->pidfd, .events = POLLIN}, 1, 2000) == 0)
			kill(-s->pid, SIGKILL);
	}
	if (waitpid(s->pid, &status, 0) < 0)
		return 255;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Until the command ends (true) or the outside is gone (false). */
static bool pump(struct session *s)
{
	int blocked = handle_frames(s);

	while (blocked >= 0) {
		struct pollfd fds[] = {
			{.fd = s->port, .events = blocked ? 0 : POLLIN},
			{.fd = blocked ? s->input : -1, .events = POLLOUT},
			{.fd = s->output, .events = POLLIN},
			{.fd = s->error, .events = POLLIN},
			{.fd = s->pidfd, .events = POLLIN},
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return false;
		if (fds[2].revents)
			s->output = pass_output(s, s->output, SESSION_OUTPUT);
		if (fds[3].revents)
			s->error = pass_output(s, s->error, SESSION_ERROR);
		if (fds[0].revents & POLLHUP)
			return false;
		if (fds[0].revents & POLLIN && buf_read_fd(&s->from_port, s->port, 16384) < 0)
			return false;
		if (fds[4].revents && !fds[2].revents && !fds[3].revents)
			return true; /* ended, and what it wrote was sent; what it left running is not waited for */
		blocked = handle_frames(s);
	}
	return false;
}

static void run_session(struct session *s, const char *payload, size_t len)
{
	unsigned char status;
	bool ended = false;
	int r = start(s, payload, len);

	if (r < 0) {
		char line[128];

		snprintf(line, sizeof(line), "kvmhost: cannot start the command: %s\n", strerror(-r));
		session_send(s->port, SESSION_ERROR, line, strlen(line));
		status = 126;
	} else {
		ended = pump(s);
		while (ended && (readable(s->output) || readable(s->error))) {
			if (readable(s->output))
				s->output = pass_output(s, s->output, SESSION_OUTPUT);
			if (readable(s->error))
				s->error = pass_output(s, s->error, SESSION_ERROR);
		}
		status = (unsigned char)finish(s, !ended);
	}
	close_session(s);
	session_send(s->port, SESSION_EXIT, &status, 1);
}

/* Waits for more from outside. 0, or -errno when it is gone. */
static int read_more(struct session *s)
{
	ssize_t got;

	if (poll(&(struct pollfd){.fd = s->port, .events = POLLIN}, 1, -1) < 0)
		return -errno;
	got = buf_read_fd(&s->from_port, s->port, 4096);
	return got < 0 ? (int)got : got == 0 ? -EPIPE : 0;
}

/* One session: greeting, request, command. Returns when it is over, or when the outside is gone. What is left in from_port may be the next
 * one's greeting, if the outside came back sooner than its hang-up was seen. */
static void serve(struct session *s)
{
	char greeting[SESSION_GREETING_SIZE + SESSION_NONCE_SIZE] = SESSION_GREETING;
	const char *payload;
	size_t len, size;
	char type;
	int r;

	while (!session_skip_to_greeting(&s->from_port, NULL, greeting + SESSION_GREETING_SIZE))
		if (read_more(s) < 0)
			return;
	if (write_full(s->port, greeting, sizeof(greeting)) < 0)
		return;
	while ((r = session_peek(&s->from_port, &type, &payload, &len, &size)) == 0)
		if (read_more(s) < 0)
			return;
	if (r > 0 && type == SESSION_RUN) {
		cleanup_free char *request = malloc(len + 1);

		if (!request)
			return;
		memcpy(request, payload, len);
		buf_consume(&s->from_port, size);
		run_session(s, request, len);
	}
}

/* Sleeps until the outside has connected and sent something. A port without a peer is always ready (it hangs up), so
 * only an edge tells. */
static int wait_for_outside(int port)
{
	cleanup_close int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, port, &event) < 0)
		return -errno;
	do {
		if (epoll_wait(epoll, &event, 1, -1) < 0) {
			if (errno != EINTR)
				return -errno;
			event.events = EPOLLHUP;
		}
	} while (event.events & EPOLLHUP); /* (with it, EPOLLIN says that a read would return at once: the end) */
	return 0;
}

/* The port stays open from one session to the next: the kernel throws away what has come for one that is closed, and who comes next may
 * have greeted before this one is over. */
static void serve_port(int number)
{
	struct session s = {.input = -1, .output = -1, .error = -1, .pidfd = -1};
	char path[64];

	snprintf(path, sizeof(path), PORT_FOLDER "/kvmhost.session.%d", number);
	s.port = open(path, O_RDWR | O_CLOEXEC);
	if (s.port < 0)
		_exit(1);
	buf_init(&s.from_port, 4 * SESSION_PAYLOAD_MAX);
	do
		serve(&s);
	while (wait_for_outside(s.port) == 0);
	_exit(1);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "barrier") == 0)
		return barrier_raise() == 0 ? 0 : 1;
	signal(SIGPIPE, SIG_IGN);
	for (int i = 1; i < SESSION_PORTS; i++)
		if (fork() == 0)
			serve_port(i);
	serve_port(0);
}
