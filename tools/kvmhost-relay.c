/* kvmhost-relay - keeps the host that `kvmhost up` started: owns its process, its monitor and its published ports.
 *
 *	kvmhost-relay start --run FOLDER [--log FILE] [--probe PORT] -- PROGRAM [ARG]...
 *	kvmhost-relay ask FOLDER status|down
 *	kvmhost-relay free-port [PREFERRED]
 *
 * Theory of operation. `start` puts itself into the background once the host is ready, or says why it is not. PROGRAM is
 * QEMU, which is given socket pairs for its monitor (forward.h), for the port on which the inside reports and is told to
 * end, and sockets for sessions; with --probe it is hulld itself, on a host that has /dev/kvm, ready when PORT answers.
 * starting → ready → stopping → ended; `down` and SIGTERM lead from the first two to stopping, and the end of the
 * foreground's process from the first. Stopping has a deadline (the monitor's quit) and after it another (SIGKILL). FOLDER
 * has `lock` (held while this runs), `control` (socket), `session.N`, and after an end nobody asked for `outcome`, one
 * line. PROGRAM dies with this process. */
#include "common/buf.h"
#include "common/checked.h"
#include "common/io.h"
#include "common/log.h"
#include "common/loop.h"
#include "tools/forward.h"
#include "tools/session.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NS_PER_S	1000000000ull
#define READY_TIMEOUT_S 300 /* an emulated host needs some ten seconds, a busy machine many times that */
#define STOP_TIMEOUT_S	90
#define QUIT_TIMEOUT_S	10
#define PROBE_PERIOD_NS (NS_PER_S / 10)
#define CLIENTS_MAX	16
#define EXTRA_ARGS_MAX	64
#define CHILD_FD	10 /* of the first socket PROGRAM inherits */

enum state { STATE_STARTING, STATE_READY, STATE_STOPPING, STATE_ENDED };

static const char *const state_names[] = {"starting", "up", "stopping", "down"};

struct client {
	struct relay *relay;
	int fd; /* -1: free */
	struct loop_source *source;
	bool waits; /* for the end */
};

struct relay {
	struct loop *loop;
	char folder[3072];
	enum state state;
	unsigned probe_port; /* 0: PROGRAM is QEMU */
	pid_t pid;
	int pidfd, lock_fd, listen_fd;
	int inside_fd; /* kvmhost.control's other end */
	struct buf inside;
	struct loop_source *pid_source, *inside_source, *starter_source, *deadline, *probe;
	struct forward *forward;
	int starter_fd; /* to the process in the foreground; -1 once it was told */
	bool forced;
	char failure[256]; /* why it is not ready, or ended; "" while all is well */
	struct client clients[CLIENTS_MAX];
};

static int path_in(const struct relay *r, const char *name, char path[4096])
{
	return (size_t)snprintf(path, 4096, "%s/%s", r->folder, name) < 4096 ? 0 : -ENAMETOOLONG;
}

/* ---- the ends -------------------------------------------------------------------------------------------------- */

/* Tells the process in the foreground: an empty line is success. */
static void tell_starter(struct relay *r, const char *failure)
{
	if (r->starter_fd < 0)
		return;
	loop_remove(r->starter_source);
	r->starter_source = NULL;
	dprintf(r->starter_fd, "%s\n", failure);
	r->starter_fd = close_fd(r->starter_fd);
}

static void kill_program(struct relay *r, int signo)
{
	syscall(SYS_pidfd_send_signal, r->pidfd, signo, NULL, 0);
}

static void begin_stop(struct relay *r)
{
	if (r->state >= STATE_STOPPING)
		return;
	log_info("stopping");
	if (r->probe_port)
		kill_program(r, SIGPWR); /* hulld, which ends its machines first */
	else if (r->state == STATE_STARTING) /* nobody listens inside yet; QEMU ends in good order on it */
		kill_program(r, SIGTERM);
	else if (send(r->inside_fd, "down\n", 5, MSG_NOSIGNAL | MSG_DONTWAIT) != 5)
		forward_quit(r->forward);
	r->state = STATE_STOPPING;
	loop_timer_arm(r->deadline, STOP_TIMEOUT_S * NS_PER_S);
}

/* The process in the foreground was ended, by Ctrl-C for one: nobody would be told where the host is. */
static void on_starter_gone(void *ctx, uint32_t events)
{
	struct relay *r = ctx;

	(void)events;
	loop_remove(r->starter_source);
	r->starter_source = NULL;
	r->starter_fd = close_fd(r->starter_fd);
	log_info("who started the host has gone");
	begin_stop(r);
}

static void on_deadline(void *ctx)
{
	struct relay *r = ctx;

	if (r->state == STATE_STARTING) {
		snprintf(r->failure, sizeof(r->failure), "the host was not ready after %d seconds", READY_TIMEOUT_S);
		begin_stop(r);
	} else if (!r->forced && !r->probe_port) {
		log_warn("the host did not stop in %d seconds: ending it", STOP_TIMEOUT_S);
		r->forced = true;
		forward_quit(r->forward);
		loop_timer_arm(r->deadline, QUIT_TIMEOUT_S * NS_PER_S);
	} else {
		r->forced = true;
		kill_program(r, SIGKILL);
	}
}

static void on_program_ended(void *ctx, uint32_t events)
{
	struct relay *r = ctx;
	int status = 0;

	(void)events;
	waitpid(r->pid, &status, 0);
	if (r->state != STATE_STOPPING && !*r->failure)
		snprintf(r->failure, sizeof(r->failure), "%s ended unexpectedly (%s %d)", r->probe_port ? "hulld" : "QEMU",
			WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	log_info("ended%s%s", *r->failure ? ": " : "", r->failure);
	r->state = STATE_ENDED;
	loop_stop(r->loop);
}

/* ---- the host reports ------------------------------------------------------------------------------------------ */

static void become_ready(struct relay *r)
{
	if (r->state != STATE_STARTING)
		return;
	r->state = STATE_READY;
	log_info("ready");
	loop_timer_arm(r->deadline, UINT64_MAX);
	tell_starter(r, "");
}

static void on_inside(void *ctx, uint32_t events)
{
	struct relay *r = ctx;
	ssize_t got = buf_read_fd(&r->inside, r->inside_fd, 256);
	char *newline;

	(void)events;
	if (got == -EAGAIN)
		return;
	while (got > 0 && (newline = memchr(r->inside.data, '\n', r->inside.len))) {
		*newline = '\0';
		if (strcmp(r->inside.data, "ready") == 0) {
			become_ready(r);
		} else if (strncmp(r->inside.data, "failed ", 7) == 0 && r->state == STATE_STARTING) {
			snprintf(r->failure, sizeof(r->failure), "%.200s", r->inside.data + 7);
			for (char *c = r->failure; *c; c++)
				*c = *c < ' ' || *c == 127 ? '?' : *c; /* it will be shown on a terminal */
			begin_stop(r);
		}
		buf_consume(&r->inside, (size_t)(newline - r->inside.data) + 1);
	}
	if (got <= 0) { /* an inside that sends no newlines (-EMSGSIZE) is not listened to any more */
		loop_remove(r->inside_source);
		r->inside_source = NULL;
	}
}

static void on_probe(void *ctx)
{
	struct relay *r = ctx;
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)r->probe_port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		become_ready(r);
	else if (r->state == STATE_STARTING)
		loop_timer_arm(r->probe, PROBE_PERIOD_NS);
}

/* ---- the control socket ---------------------------------------------------------------------------------------- */

static void drop_client(struct client *client)
{
	loop_remove(client->source);
	client->source = NULL;
	client->fd = close_fd(client->fd);
	client->waits = false;
}

static void on_client(void *ctx, uint32_t events)
{
	struct client *client = ctx;
	char request[16] = "";
	ssize_t got = read(client->fd, request, sizeof(request) - 1);

	(void)events;
	if (got > 0 && strcmp(request, "status\n") == 0) {
		dprintf(client->fd, "%s\n", state_names[client->relay->state]);
	} else if (got > 0 && strcmp(request, "down\n") == 0) {
		client->waits = true;
		begin_stop(client->relay);
		return;
	}
	drop_client(client);
}

static void on_connection(void *ctx, uint32_t events)
{
	struct relay *r = ctx;
	int fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	for (size_t i = 0; i < CLIENTS_MAX && fd >= 0; i++) {
		struct client *client = &r->clients[i];

		if (client->fd >= 0)
			continue;
		*client = (struct client){.relay = r, .fd = fd};
		client->source = loop_add_fd(r->loop, fd, EPOLLIN, on_client, client);
		if (!client->source)
			drop_client(client);
		return;
	}
	close_fd(fd);
}

static void on_signal(void *ctx, uint32_t signo)
{
	log_info("signal %u", signo);
	begin_stop(ctx);
}

/* ---- the program ----------------------------------------------------------------------------------------------- */

/* QEMU's arguments for what this process holds the other end of. Strings are never freed: they live as long as we. */
static size_t add_ports(const struct relay *r, const char **extra)
{
	size_t n = 0;
	char *text;

#define ADD(option, ...)                                                                                      \
	do {                                                                                                  \
		if (asprintf(&text, __VA_ARGS__) < 0)                                                         \
			abort();                                                                              \
		extra[n++] = option;                                                                          \
		extra[n++] = text;                                                                            \
	} while (0)
	ADD("-chardev", "socket,id=qmp,fd=%d", CHILD_FD);
	ADD("-mon", "chardev=qmp,mode=control");
	ADD("-chardev", "socket,id=forward,fd=%d", CHILD_FD + 1);
	ADD("-device", "virtserialport,chardev=forward,name=hull.forward");
	ADD("-chardev", "socket,id=control,fd=%d", CHILD_FD + 2);
	ADD("-device", "virtserialport,chardev=control,name=kvmhost.control");
	for (int i = 0; i < SESSION_PORTS; i++) {
		ADD("-chardev", "socket,id=session%d,path=%s/session.%d,server=on,wait=off", i, r->folder, i);
		ADD("-device", "virtserialport,chardev=session%d,name=kvmhost.session.%d", i, i);
	}
#undef ADD
	return n;
}

/* In the child. */
static void exec_program(char **arguments, const int *inherited, size_t n)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (size_t i = 0; i < n; i++) {
		int high = fcntl(inherited[i], F_DUPFD_CLOEXEC, CHILD_FD + (int)n);

		if (high < 0 || dup2(high, CHILD_FD + (int)i) < 0)
			_exit(127);
	}
	execvp(arguments[0], arguments);
	dprintf(2, "%s: %s\n", arguments[0], strerror(errno));
	_exit(127);
}

static int start_program(struct relay *r, int argc, char **argv, struct error *err)
{
	const char *extra[EXTRA_ARGS_MAX];
	size_t n_extra = r->probe_port ? 0 : add_ports(r, extra), n = r->probe_port ? 0 : 3;
	cleanup_free char **arguments = calloc((size_t)argc + n_extra + 1, sizeof(char *));
	int ours[3] = {-1, -1, -1}, theirs[3];

	if (!arguments)
		return error_set(err, ENOMEM, "out of memory");
	memcpy(arguments, argv, (size_t)argc * sizeof(char *));
	if (n_extra)
		memcpy(arguments + argc, extra, n_extra * sizeof(char *));
	for (size_t i = 0; i < n; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return error_set_errno(err, errno, "cannot create a socket pair");
		ours[i] = pair[0];
		theirs[i] = pair[1];
		fcntl(ours[i], F_SETFL, O_NONBLOCK);
	}
	r->pid = fork();
	if (r->pid < 0)
		return error_set_errno(err, errno, "cannot fork");
	if (r->pid == 0)
		exec_program(arguments, theirs, n);
	for (size_t i = 0; i < n; i++)
		close(theirs[i]);
	r->pidfd = (int)syscall(SYS_pidfd_open, r->pid, 0);
	if (r->pidfd < 0)
		return error_set_errno(err, errno, "pidfd_open");
	if (n) {
		r->forward = forward_new(r->loop, ours[0], ours[1]);
		r->inside_fd = ours[2];
		r->inside_source = loop_add_fd(r->loop, r->inside_fd, EPOLLIN, on_inside, r);
	}
	r->pid_source = loop_add_fd(r->loop, r->pidfd, EPOLLIN, on_program_ended, r);
	if (!r->pid_source || (n && (!r->forward || !r->inside_source)))
		return error_set(err, ENOMEM, "cannot watch the program");
	return 0;
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

static int take_folder(struct relay *r, struct error *err)
{
	char path[4096];

	if (path_in(r, "lock", path) < 0)
		return error_set(err, ENAMETOOLONG, "%s: path too long", r->folder);
	r->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r->lock_fd < 0)
		return error_set_errno(err, errno, "cannot open %s", path);
	if (flock(r->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, EBUSY, "another kvmhost works in %s", r->folder);
	path_in(r, "outcome", path);
	unlink(path);
	path_in(r, "control", path);
	r->listen_fd = unix_listen(path, CLIENTS_MAX, 0600, err);
	return r->listen_fd < 0 ? r->listen_fd : 0;
}

/* Waits in the foreground for what the relay in the background says. The exit status. */
static int await_relay(int fd)
{
	char line[512];
	ssize_t got = read_full(fd, line, sizeof(line) - 1);

	if (got == 1 && line[0] == '\n')
		return 0;
	line[got > 0 ? got : 0] = '\0';
	fprintf(stderr, "kvmhost: %s", got > 0 ? line : "the relay ended unexpectedly\n");
	return 1;
}

static int watch_everything(struct relay *r, struct error *err)
{
	r->deadline = loop_add_timer(r->loop, on_deadline, r);
	r->probe = loop_add_timer(r->loop, on_probe, r);
	r->starter_source = loop_add_fd(r->loop, r->starter_fd, EPOLLERR, on_starter_gone, r);
	if (!r->deadline || !r->probe || !r->starter_source || !loop_add_fd(r->loop, r->listen_fd, EPOLLIN, on_connection, r) ||
		!loop_add_signal(r->loop, SIGTERM, on_signal, r) || !loop_add_signal(r->loop, SIGINT, on_signal, r))
		return error_set(err, ENOMEM, "cannot watch the control socket");
	loop_timer_arm(r->deadline, READY_TIMEOUT_S * NS_PER_S);
	if (r->probe_port)
		loop_timer_arm(r->probe, 0);
	return 0;
}

/* Removes what was made, leaves the outcome, and tells who waits. */
static void leave_folder(struct relay *r)
{
	char path[4096], name[32];

	path_in(r, "outcome", path);
	if (*r->failure)
		write_file_atomic(path, r->failure, strlen(r->failure), 0600, NULL);
	for (int i = 0; i < SESSION_PORTS; i++) {
		snprintf(name, sizeof(name), "session.%d", i);
		path_in(r, name, path);
		unlink(path);
	}
	path_in(r, "control", path);
	unlink(path);
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		if (r->clients[i].fd >= 0 && r->clients[i].waits)
			dprintf(r->clients[i].fd, "%s\n", r->forced ? "forced" : "down");
}

/* In the background. */
static int run_relay(struct relay *r, int argc, char **argv)
{
	struct error err = {0};
	int result;

	signal(SIGPIPE, SIG_IGN);
	r->loop = loop_new();
	if (!r->loop)
		result = error_set_errno(&err, errno, "cannot create the event loop");
	else
		result = watch_everything(r, &err);
	if (result == 0)
		result = start_program(r, argc, argv, &err);
	if (result == 0)
		result = loop_run(r->loop);
	if (result < 0)
		error_line(&err, r->failure, sizeof(r->failure));
	tell_starter(r, *r->failure ? r->failure : "stopped before it was ready");
	leave_folder(r);
	forward_free(r->forward);
	loop_free(r->loop);
	buf_done(&r->inside);
	return result < 0 || *r->failure;
}

/* Nothing of the caller's stays open: it may wait for the end of a pipe. */
static int go_to_background(const char *log)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (setsid() < 0 || null < 0 || fd < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(fd, 2) < 0)
		return -errno;
	close(null);
	close(fd);
	return 0;
}

static int start(struct relay *r, const char *log, int argc, char **argv)
{
	struct error err = {0};
	char line[512];
	int ready[2];
	pid_t pid;

	if (take_folder(r, &err) < 0) {
		fprintf(stderr, "kvmhost: %s\n", error_line(&err, line, sizeof(line)));
		return 1;
	}
	if (pipe2(ready, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		perror("kvmhost: cannot start the relay");
		return 1;
	}
	if (pid > 0) {
		close(ready[1]);
		return await_relay(ready[0]);
	}
	close(ready[0]);
	r->starter_fd = ready[1];
	if (go_to_background(log) < 0) {
		tell_starter(r, "cannot open the log");
		return 1;
	}
	return run_relay(r, argc, argv);
}

static int start_command(int argc, char **argv)
{
	struct relay r = {.pidfd = -1, .lock_fd = -1, .listen_fd = -1, .inside_fd = -1, .starter_fd = -1};
	const char *log = "/dev/null";
	int at = 0;

	for (size_t i = 0; i < CLIENTS_MAX; i++)
		r.clients[i].fd = -1;
	buf_init(&r.inside, 1024);
	log_open("kvmhost-relay", LOG_LEVEL_INFO, 2);
	for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
		if (strcmp(argv[at], "--run") == 0)
			snprintf(r.folder, sizeof(r.folder), "%s", argv[at + 1]);
		else if (strcmp(argv[at], "--log") == 0)
			log = argv[at + 1];
		else if (strcmp(argv[at], "--probe") == 0)
			r.probe_port = (unsigned)atoi(argv[at + 1]);
		else
			return 2;
	}
	if (at + 1 >= argc || !*r.folder)
		return 2;
	return start(&r, log, argc - at - 1, argv + at + 1);
}

/* ---- the small commands ---------------------------------------------------------------------------------------- */

/* Prints the relay's answer. 0; 3 when no relay is there. */
static int ask_command(const char *folder, const char *what)
{
	char path[4096], line[64];
	cleanup_close int fd = -1;
	ssize_t got;

	if ((size_t)snprintf(path, sizeof(path), "%s/control", folder) >= sizeof(path))
		return 2;
	fd = unix_connect(path, 0, NULL);
	if (fd < 0)
		return 3;
	dprintf(fd, "%s\n", what);
	got = read_full(fd, line, sizeof(line));
	if (got <= 0)
		return 3;
	return write_full(1, line, (size_t)got) < 0 ? 1 : 0;
}

/* Prints a TCP port of 127.0.0.1 that is free, the preferred one if it is. */
static int free_port_command(unsigned preferred)
{
	const unsigned tries[] = {preferred, 0};

	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)tries[i]),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t len = sizeof(address);
		int one = 1;

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (tries[i] > 65535 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
			getsockname(fd, (struct sockaddr *)&address, &len) < 0)
			continue;
		printf("%u\n", ntohs(address.sin_port));
		return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	int status = 2;

	if (argc >= 2 && strcmp(argv[1], "start") == 0)
		status = start_command(argc - 2, argv + 2);
	else if (argc == 4 && strcmp(argv[1], "ask") == 0)
		status = ask_command(argv[2], argv[3]);
	else if (argc >= 2 && strcmp(argv[1], "free-port") == 0)
		status = free_port_command(argc > 2 ? (unsigned)atoi(argv[2]) : 0);
	if (status == 2)
		fprintf(stderr, "usage: kvmhost-relay start --run FOLDER [--log FILE] [--probe PORT] -- PROGRAM [ARG]...\n"
				"       kvmhost-relay ask FOLDER status|down\n"
				"       kvmhost-relay free-port [PREFERRED]\n");
	return status;
}
