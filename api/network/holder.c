/* The outer process of who holds a network: it starts the inner, and passt, which needs the host's network. See network.h. */
#include "api/network/network.h"

#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define NOBODY		65534 /* as whom passt, started by root, runs, too */
#define BACKLOG		1024
#define PASST_AGAIN_MS	1000
#define LOG_LIMIT_BYTES (1u << 20)

/* Nothing of who has started us; standard error becomes the network's log. */
static int detach(const struct network *net, struct error *err)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = -1;
	char path[512];

	log = open(network_path(net, NETWORK_LOG, path, sizeof(path)), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (null < 0 || log < 0)
		return error_set_errno(err, errno, "cannot open %s", null < 0 ? "/dev/null" : path);
	if (dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
		return error_set_errno(err, errno, "cannot redirect standard input and output");
	log_limit(LOG_LIMIT_BYTES);
	setsid();
	umask(077);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	return chdir("/") < 0 ? error_set_errno(err, errno, "cannot enter /") : 0;
}

/* The host's administrator needs none of his rights for this. */
static int become_nobody(struct error *err)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
		return error_set_errno(err, errno, "cannot become the user %d", NOBODY);
	return 0;
}

/* With `stream` as its descriptor 3. As long as that is open it runs. Its pid, or -1. */
static pid_t start_passt(const struct network *net, int stream)
{
	const char *argv[] = {net->passt, "--foreground", "--quiet", "--fd", "3", "--address", UPLINK_ADDRESS, "--netmask", "24", "--gateway",
		UPLINK_GATEWAY, "--mac-addr", "02:00:00:00:00:02", "--dns-forward", UPLINK_DNS,
		/* The gateway's address would be the host's own loopback, and all that listens there. */
		"--no-map-gw", "--ipv4-only", "--no-dhcp", NULL};
	pid_t pid = fork();

	if (pid)
		return pid;
	if (dup2(stream, 3) < 0)
		_exit(127);
	if (stream == 3)
		fcntl(3, F_SETFD, 0);
	execv(argv[0], (char **)argv);
	log_error("cannot execute %s: %s", argv[0], strerror(errno));
	_exit(127);
}

/* The other end goes to the inner process. */
static pid_t connect_passt(const struct network *net, int control_fd)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -1;
	pid = start_passt(net, ends[0]);
	if (pid > 0)
		fd_send(control_fd, "s", 1, ends[1]); /* where that fails the inner process has ended, which is seen */
	close_fd(ends[0]);
	close_fd(ends[1]);
	return pid;
}

/* Until the inner process has ended. Its exit status. */
static int watch(const struct network *net, pid_t inner, int control_fd)
{
	for (;;) {
		pid_t passt = net->passt ? connect_passt(net, control_fd) : 0, ended;
		int status;

		do
			ended = waitpid(-1, &status, 0);
		while (ended < 0 && errno == EINTR);
		if (ended == inner || ended < 0)
			return ended == inner && WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
		if (ended == passt)
			log_warn("passt has ended, with status %d: it is started again", status);
		poll(NULL, 0, PASST_AGAIN_MS);
	}
}

int network_hold(const struct network *net, int ready_fd)
{
	cleanup_close int ready = ready_fd, listen_fd = -1;
	int control[2] = {-1, -1};
	struct error err;
	char path[512];
	pid_t inner = -1;

	if (detach(net, &err) == 0 &&
		(listen_fd = unix_listen(network_path(net, NETWORK_SOCKET, path, sizeof(path)), BACKLOG, 0600, &err)) >= 0 &&
		become_nobody(&err) == 0) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) < 0 || (inner = fork()) < 0)
			error_set_errno(&err, errno, "cannot hold the network");
	}
	if (inner < 0) {
		log_error_object(&err, "network");
		write_full(ready, err.message, strlen(err.message));
		return EXIT_FAILURE;
	}
	if (inner == 0) {
		close_fd(control[0]);
		exit(network_run_inside(net, listen_fd, control[1], ready));
	}
	/* It alone has the socket: when it ends, nobody listens any more. */
	listen_fd = close_fd(listen_fd);
	ready = close_fd(ready);
	close_fd(control[1]);
	return watch(net, inner, control[0]);
}
