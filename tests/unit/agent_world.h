/* An agent on a loop and a thread of its own, and its clients, over socket pairs in place of vsock. */
#include "tests/unit/test.h"

#include "guest-kernel/agent.h"
#include "guest-kernel/hull_guest.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct fixture {
	struct loop *loop;
	struct guest_config config;
	struct agent *agent;
	pthread_t thread;
	uint32_t stop_ms;
	int stops;
	int serve_fd;
};

static void on_stop(void *ctx, uint32_t timeout_ms)
{
	struct fixture *f = ctx;

	f->stops++;
	f->stop_ms = timeout_ms;
}

static void *run(void *arg)
{
	struct fixture *f = arg;

	loop_run(f->loop);
	return NULL;
}

static void on_child(void *ctx, uint32_t signo)
{
	struct fixture *f = ctx;
	int wait_status;
	pid_t pid;

	(void)signo;
	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0)
		agent_child_ended(f->agent, pid, wait_status);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct error err;

	signal(SIGPIPE, SIG_IGN); /* as in hull-init */
	f->loop = loop_new();
	f->config = (struct guest_config){.hostname = (char *)"unit", .env = json_pack("{s:s, s:s}", "A", "base", "B", "base"),
		.user = (char *)"root", .workdir = (char *)"/"};
	f->agent = agent_new(f->loop, &f->config, on_stop, f, &err);
	assert_non_null(f->agent);
	assert_non_null(loop_add_signal(f->loop, SIGCHLD, on_child, f));
	pthread_create(&f->thread, NULL, run, f);
	*state = f;
	return 0;
}

static void stop_thread(struct fixture *f)
{
	loop_stop(f->loop);
	pthread_join(f->thread, NULL);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	stop_thread(f);
	agent_free(f->agent);
	loop_free(f->loop);
	json_decref(f->config.env);
	free(f);
	return 0;
}

static void serve(void *ctx)
{
	struct fixture *f = ctx;

	agent_serve(f->agent, f->serve_fd);
}

/* A connection to the agent; blocking, with a deadline. */
static int connect_agent(struct fixture *f)
{
	struct timeval deadline = {.tv_sec = 20};
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
	f->serve_fd = ends[1];
	loop_post(f->loop, serve, f);
	return ends[0];
}

static int ask(struct fixture *f, struct hull_agent_request request)
{
	int fd = connect_agent(f);

	assert_int_equal(send(fd, &request, sizeof request, 0), sizeof request);
	return fd;
}

static struct hull_agent_request request_of(uint16_t verb, uint32_t arg)
{
	return (struct hull_agent_request){HULL_AGENT_MAGIC, HULL_AGENT_VERSION, verb, arg};
}

static uint32_t status_of(int fd)
{
	struct hull_agent_reply reply;

	assert_int_equal(recv(fd, &reply, sizeof reply, MSG_WAITALL), sizeof reply);
	assert_int_equal(reply.magic, HULL_AGENT_MAGIC);
	return reply.status;
}

static void ended(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close_fd(fd);
}
