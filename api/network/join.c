/* A machine's tap, from who holds its network, who is started where there is nobody. See network.h. */
#include "api/network/network.h"

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>

#define SELF	 "/proc/self/exe"
#define READY_FD 3
#define ATTEMPTS 3

char *network_path(const struct network *net, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/%s", net->folder, name);
	return ret;
}

/* Is it that nobody holds the network, or that who did has just ended? */
static bool nobody_is_there(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED || r == -ECONNRESET || r == -EPIPE;
}

static int ask(const struct network *net, uint32_t address, struct error *err)
{
	const struct network_request request = {NETWORK_ATTACH, address};
	struct network_answer answer;
	cleanup_close int sock = -1, tap = -1;
	char path[512];
	int r;

	sock = unix_connect(network_path(net, NETWORK_SOCKET, path, sizeof(path)), 0, err);
	if (sock < 0)
		return sock;
	r = fd_send(sock, &request, sizeof(request), -1);
	if (r == 0)
		r = fd_receive(sock, &answer, sizeof(answer), &tap);
	if (r < 0)
		return error_set_errno(err, -r, "who holds the network does not answer");
	if (answer.errnum || tap < 0)
		return error_set(err, answer.errnum ? answer.errnum : EIO, "%.255s", answer.message);
	return steal_fd(&tap);
}

/* In a child: executes who holds the network, with nothing of ours but descriptor READY_FD. */
static void __attribute__((noreturn)) execute_holder(const struct network *net, int ready)
{
	char subnet[SUBNET_TEXT_BYTES];
	const char *argv[] = {"hull-network", "hold", "--folder", net->folder, "--subnet", subnet_format(&net->subnet, subnet), "--ready-fd",
		"3", net->passt ? "--egress" : NULL, "--passt", net->passt, NULL};

	if (ready == READY_FD ? fcntl(ready, F_SETFD, 0) == 0 : dup2(ready, READY_FD) == READY_FD) {
		close_range(READY_FD + 1, ~0u, 0);
		execv(SELF, (char **)argv);
	}
	_exit(127);
}

/* Waits until it is ready. 0 or -errno with `err` set. */
static int start_holder(const struct network *net, struct error *err)
{
	int ends[2];
	struct buf said;
	pid_t pid;
	int r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "cannot start who holds the network");
	pid = fork();
	if (pid == 0)
		execute_holder(net, ends[1]);
	close(ends[1]);
	buf_init(&said, ERROR_MESSAGE_MAX);
	while ((r = (int)buf_read_fd(&said, ends[0], 256)) > 0)
		;
	close(ends[0]);
	if (pid < 0)
		r = error_set_errno(err, EAGAIN, "cannot start who holds the network");
	else if (said.len == 1 && said.data[0] == '+')
		r = 0;
	else
		r = error_set(err, EIO, "%s", said.len ? said.data : "who holds the network ended before it was ready");
	buf_done(&said);
	return r;
}

/* One of those that find nobody does it, the others wait for it. */
static int start_holder_once(const struct network *net, struct error *err)
{
	cleanup_close int lock = -1, there = -1;
	char path[512];

	lock = open(network_path(net, "lock", path, sizeof(path)), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return error_set_errno(err, errno, "cannot lock %s", path);
	there = unix_connect(network_path(net, NETWORK_SOCKET, path, sizeof(path)), 0, err);
	return there >= 0 ? 0 : start_holder(net, err);
}

int network_join(const struct network *net, uint32_t address, struct error *err)
{
	for (int i = 1;; i++) {
		int r = ask(net, address, err);

		if (r >= 0 || !nobody_is_there(r) || i == ATTEMPTS)
			return r;
		r = start_holder_once(net, err);
		if (r < 0)
			return r;
	}
}
