/* A monitor without a machine, for tests of what is between a client and the agent: the agent runs here, and
 * the programs it executes are this host's. Takes hull-vmm's options and looks at these: --config-file and --restore, for the
 * vsock socket, --status-fd, and --api-sock, where it is paused, saved and resumed (what it saves is how often it was), and
 * --accounting, whose file it makes.
 *
 * In the machine's state folder, what it does is written to `did`, a word a line; a file `fail-WORD` makes it fail, `hang-WORD` go no further,
 * `die-WORD` end, and `reset-WORD` end as one whose guest has reset it. */
#include "common/io.h"
#include "common/json.h"
#include "guest-kernel/agent.h"
#include "guest-kernel/hull_guest.h"
#include "guest-kernel/order_verbs.h"
#include "vmm/api.h"
#include "vmm/api_metrics.h"
#include "vmm/api_server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static struct loop *loop;
static struct agent *agent;
static int listener;
static struct guest_config config = {.hostname = (char *)"alone", .user = (char *)"root", .workdir = (char *)"/"};

static int status_fd;
static const char *state_folder; /* with a "/" at its end */
static int state_folder_bytes;
static enum api_state state = API_RUNNING;
static int64_t times_saved;

static char *beside(const char *kind, const char *word, char ret[512])
{
	snprintf(ret, 512, "%.*s%s%s", state_folder_bytes, state_folder, kind, word);
	return ret;
}

static void report(const char *cause, const char *message)
{
	dprintf(status_fd, "{\"cause\":\"%s\",\"exit_status\":%s,\"message\":\"%s\"}\n", cause, strcmp(cause, "poweroff") ? "null" : "0", message);
}

/* 0, or -EIO with `err` set. */
static int obey(const char *word, struct error *err)
{
	char path[512];
	int fd = open(beside("did", "", path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	dprintf(fd, "%s\n", word);
	close(fd);
	if (access(beside("die-", word, path), F_OK) == 0)
		_exit(9);
	if (access(beside("reset-", word, path), F_OK) == 0) {
		report("reset", "is told to reset");
		_exit(0);
	}
	while (access(beside("hang-", word, path), F_OK) == 0)
		usleep(1000);
	return access(beside("fail-", word, path), F_OK) == 0 ? error_set(err, EIO, "is told to fail") : 0;
}

/* In place of what would change this host: its clock, its name (--wrap). */
int __wrap_order_carry_out(struct order *order, struct guest_config *unused, struct order_answer *ret, struct error *err);
int __wrap_order_carry_out(struct order *order, struct guest_config *unused, struct order_answer *ret, struct error *err)
{
	(void)unused, (void)ret;
	return obey(order_verb_names[order->verb], err);
}

static enum api_state state_of(void *ctx)
{
	(void)ctx;
	return state;
}

static int patch_vm(void *ctx, struct api_call *call, struct error *err)
{
	bool pauses = strcmp(json_string_value(json_object_get(call->body, "state")), "Paused") == 0;
	int r = obey(pauses ? "pause" : "resume", err);

	(void)ctx;
	if (r == 0)
		state = pauses ? API_PAUSED : API_RUNNING;
	return r;
}

static int create(void *ctx, struct api_call *call, struct error *err)
{
	char text[24];
	int r = obey("save", err);

	(void)ctx;
	snprintf(text, sizeof(text), "%lld\n", (long long)times_saved + 1);
	if (r == 0)
		r = write_file_atomic(json_string_value(json_object_get(call->body, "mem_file_path")), text, strlen(text), 0600, err);
	if (r == 0)
		r = write_file_atomic(json_string_value(json_object_get(call->body, "snapshot_path")), text, strlen(text), 0600, err);
	if (r == 0)
		times_saved++;
	return r;
}

static const struct api_route routes[] = {
	{HTTP_PATCH, "/vm", API_STARTED, API_BODY_JSON, patch_vm}, {HTTP_PUT, "/snapshot/create", API_PAUSED, API_BODY_JSON, create}, {0}};

/* 0, or -errno with `err` set: as one that is not whole. */
static int restore(const json_t *file, struct error *err)
{
	const char *state_path = json_string_value(json_object_get(file, "snapshot_path"));
	json_t *saved = json_load_file(state_path, JSON_DECODE_ANY, NULL);
	int r = json_is_integer(saved) ? obey("restore", err) : error_set(err, EINVAL, "what was saved is damaged");

	times_saved = json_integer_value(saved);
	json_decref(saved);
	return r;
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

/* As the agent does once it listens; nobody awaits that of one that was restored. */
static void say_ready(const char *path)
{
	char ready[512];
	struct error err;

	snprintf(ready, sizeof(ready), "%s_%d", path, HULL_VSOCK_PORT_READY);
	close_fd(unix_connect(ready, 0, &err));
}

static const char *option(char **argv, const char *name)
{
	while (*argv && strcmp(*argv, name) != 0)
		argv++;
	return *argv ? argv[1] : NULL;
}

int main(int argc, char **argv)
{
	static struct api_metrics metrics;
	static const struct api api = {routes, state_of, NULL, &metrics};
	const char *restored = option(argv, "--restore"), *socket = option(argv, "--api-sock"), *counts = option(argv, "--accounting"), *path;
	struct api_server *server;
	struct error err;
	const char *description;
	json_t *file;

	(void)argc;
	status_fd = atoi(option(argv, "--status-fd"));
	if (counts)
		close(open(counts, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
	description = restored ? restored : option(argv, "--config-file");
	file = json_load_file(description, 0, NULL);
	path = json_string_value(json_object_get(json_object_get(file, restored ? "vsock_override" : "vsock"), "uds_path"));
	state_folder = restored ? json_string_value(json_object_get(file, "snapshot_path")) : description;
	state_folder_bytes = (int)((restored ? strstr(state_folder, "suspended/") : strrchr(state_folder, '/') + 1) - state_folder);
	if (restored && restore(file, &err) < 0) {
		report("error", err.message);
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* as PID 1 */
	config.env = json_pack("{s:s, s:s}", "WHO", "image", "AND", "machine");
	loop = loop_new();
	agent = agent_new(loop, &config, on_stop, NULL, &err);
	listener = unix_listen(path, 4096, 0600, &err);
	server = socket ? api_server_new(loop, socket, API_BODY_BYTES_DEFAULT, &api, &err) : NULL;
	if (!agent || listener < 0 || (socket && !server))
		return 1;
	loop_add_signal(loop, SIGCHLD, on_child, NULL);
	loop_add_signal(loop, SIGTERM, on_end, NULL);
	loop_add_fd(loop, listener, EPOLLIN, on_accept, NULL);
	if (!restored)
		say_ready(path);
	loop_run(loop);
	agent_free(agent);
	api_server_free(server);
	report("poweroff", "");
	unlink(path);
	return 0;
}
