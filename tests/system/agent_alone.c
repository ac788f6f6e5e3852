/* A monitor without a machine, for tests of what is between a client and the agent: the agent runs here, and
 * the programs it executes are this host's. Takes hull-vmm's options and looks at two: --config-file, for the
 * vsock socket, and --status-fd. */
#include "common/io.h"
#include "common/json.h"
#include "guest-kernel/agent.h"
#include "guest-kernel/order_verbs.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static struct loop *loop;
static struct agent *agent;
static int listener;
static struct guest_config config = {.hostname = (char *)"alone", .user = (char *)"root", .workdir = (char *)"/"};

/* In place of what would change this host: its clock, its name (--wrap). */
int __wrap_order_carry_out(struct order *order, struct guest_config *unused, struct order_answer *ret, struct error *err);
int __wrap_order_carry_out(struct order *order, struct guest_config *unused, struct order_answer *ret, struct error *err)
{
	(void)order, (void)unused, (void)ret, (void)err;
	return 0;
}

static void on_stop(void *ctx, uint32_t timeout_ms)
{
	(void)ctx, (void)timeout_ms;
	loop_stop(loop);
}

static void on_end(void *ctx, uint32_t signo)
{
	(void)ctx, (void)signo;
	loop_stop(loop);
}

static void on_child(void *ctx, uint32_t signo)
{
	int status;
	pid_t pid;

	(void)ctx, (void)signo;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		agent_child_ended(agent, pid, status);
}

static void on_accept(void *ctx, uint32_t events)
{
	char c = 0;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	(void)ctx, (void)events;
	/* hulld has said CONNECT when it is heard, or at once afterwards. */
	while (c != '\n' && read(fd, &c, 1) == 1)
		;
	write_full(fd, "OK 1\n", 5);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	agent_serve(agent, fd);
}

static const char *option(char **argv, const char *name)
{
	while (*argv && strcmp(*argv, name) != 0)
		argv++;
	return *argv ? argv[1] : NULL;
}

int main(int argc, char **argv)
{
	static const char outcome[] = "{\"cause\":\"poweroff\",\"exit_status\":0,\"message\":\"\"}\n";
	json_t *file = json_load_file(option(argv, "--config-file"), 0, NULL);
	const char *path = json_string_value(json_object_get(json_object_get(file, "vsock"), "uds_path"));
	struct error err;

	(void)argc;
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* as PID 1 */
	config.env = json_pack("{s:s, s:s}", "WHO", "image", "AND", "machine");
	loop = loop_new();
	agent = agent_new(loop, &config, on_stop, NULL, &err);
	listener = unix_listen(path, 4096, 0600, &err);
	if (!agent || listener < 0)
		return 1;
	loop_add_signal(loop, SIGCHLD, on_child, NULL);
	loop_add_signal(loop, SIGTERM, on_end, NULL);
	loop_add_fd(loop, listener, EPOLLIN, on_accept, NULL);
	loop_run(loop);
	agent_free(agent);
	write_full(atoi(option(argv, "--status-fd")), outcome, sizeof outcome - 1);
	unlink(path);
	return 0;
}
