/* hull run: a machine as a process. */
#include "cli/commands.h"
#include "cli/machine.h"
#include "cli/mount.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/spec.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define LOSS_WAIT_S "5"
#define EARLY_END_S "1"

const struct option_def run_options[] = {
	{0, "name", "NAME", "the machine's name (made up)"},
	{0, "cpus", "N", "processors (1)"},
	{'m', "memory", "MIB", "memory in MiB, or as 512m, 2g (256)"},
	{0, "disk", "MIB", "disk the machine can write to, in MiB, or as 2g (1024)"},
	{'p', "publish", "[ADDRESS:]HOST:GUEST[/udp]", "publish a port of the guest on this host"},
	{0, "hostname", "NAME:GUEST", "serve HTTP to that port of the guest by host name, as web.localhost:80"},
	{'v', "volume", "VOLUME:PATH[:ro]", "mount a volume there, ro: to read only; one that is not there is made, of 1 GiB; ./FOLDER: of the host"},
	{'e', "env", "KEY[=VALUE]", "environment variable; without a value, this one's own"},
	{0, "env-file", "FILE", "environment variables, one KEY=VALUE a line"},
	{0, "secret", "NAME", "one of `hull secret list`, as an environment variable of that name"},
	{'u', "user", "USER[:GROUP]", "who runs the command (the image's)"},
	{'w', "workdir", "FOLDER", "where the command runs (the image's)"},
	{0, "network", "NETWORK", "one that `hull network create` has made, or default (a way out only), or none (default)"},
	{0, "restart", "POLICY", "never, on-failure[:RETRIES] or always (never)"},
	{0, "stop-signal", "SIGNAL", "what asks the command to end, as SIGINT (the image's)"},
	{0, "stop-timeout", "S", "seconds a stop takes at most (10)"},
	{0, "idle", "AFTER[:suspend]", "stop, or suspend, it when nobody has used it for so long, as 90s, 15m or 12h, until somebody connects"},
	{0, "log-days", "DAYS", "days that what it says is kept, where the host keeps it for longer"},
	{0, "log-size", "MIB", "MiB of it that are kept, where the host keeps more"},
	{0, "depends-on", "NAME[:CONDITION]", "start it once that machine is ready, or is started, healthy or completed"},
	{0, "health-http", "PORT[/PATH]", "healthy while a GET of that is answered with 200 to 399"},
	{0, "health-tcp", "PORT", "healthy while connections are accepted there"},
	{0, "health-cmd", "COMMAND", "healthy while that shell command ends with 0"},
	{0, "health-interval", "S", "seconds from one check to the next (10)"},
	{0, "health-timeout", "S", "seconds one check may take (2)"},
	{0, "health-retries", "N", "checks in a row that have to fail until it is unhealthy (3)"},
	{0, "health-grace", "S", "seconds it may take to come up, in which none of them counts (0)"},
	{0, "label", "KEY=VALUE", "label"},
	{'i', "interactive", NULL, "give the command this one's input, as is done without it but for -d"},
	{'t', "tty", NULL, "a terminal for the command also when this one's output is none"},
	{'d', "detach", NULL, "return once the machine runs"},
	{0, "rm", NULL, "delete the machine when it has ended"},
	QUIET_OPTION("with -d: print the id only"),
	{'o', "output", "table|json|yaml", "with -d: how to print the machine (table: name and ports)"},
	{0},
};

struct run {
	struct client *client;
	const char *id; /* of the machine */
	const char *name;
	bool input, terminal; /* the workload's are this command's */
	struct upgrade *upgrade; /* to the workload; owned; NULL: none */
};

/* Deletes it, running or not; there is nobody to tell when that fails too. */
static void delete_machine(const struct run *run)
{
	cleanup_free char *path = client_path("machines", run->id, "?force=1");
	struct failure ignored = {0};

	client_ignore_signals(run->client);
	client_drop_timeout(run->client);
	if (client_call(run->client, "DELETE", path, NULL, NULL, &ignored) < 0) {
		error_prefix(&ignored.error, "%s is left behind: ", run->name);
		failure_print(&ignored);
	}
}

/* What the guest last said helps more than any message of ours. */
static void show_console(const struct run *run)
{
	cleanup_free char *path = client_path("machines", run->id, "/logs?source=console&tail=20");
	struct failure ignored = {0};

	client_stream(run->client, path, STDERR_FILENO, &ignored);
}

static int make_volume(struct client *client, const char *name, struct failure *fail)
{
	json_t *spec = json_pack("{s:s}", "name", name), *volume = NULL;
	int r = client_call(client, "POST", "/v1/volumes", spec, &volume, fail);

	if (r == 0)
		fprintf(stderr, "hull: volume %s was not there, and is made, of %lld MiB\n", name, (long long)json_number(volume, "size_mib"));
	json_decref(volume);
	json_decref(spec);
	return r;
}

/* With the volumes that it names and nobody has made. */
static int create_with_volumes(struct client *client, const json_t *spec, json_t **ret, struct failure *fail)
{
	const char *missing;
	int r;

	while ((r = client_call(client, "POST", "/v1/machines", spec, ret, fail)) < 0 && mount_missing(spec, fail, &missing)) {
		*fail = (struct failure){0};
		r = make_volume(client, missing, fail);
		if (r < 0)
			return r;
	}
	return r;
}

/* Blocks signals first, so that one which comes while the API answers meets a machine whose id is known. */
static int create(struct client *client, const json_t *spec, json_t **ret, struct failure *fail)
{
	int r = client_catch_signals(client, fail);

	client_ignore_signals(client);
	/* A reader that went away is an error like others: there is a machine to see to. */
	signal(SIGPIPE, SIG_IGN);
	return r < 0 ? r : create_with_volumes(client, spec, ret, fail);
}

/* How the machine has ended, once its workload's connection was lost with `lost`. What ends a monitor also ends that, a moment before
 * it is known; where it goes on nevertheless, hulld has gone, and the workload is alone now. */
static int explain_loss(const struct run *run, const struct failure *lost, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", run->id, "/wait?state=stopped,failed&timeout_s=" LOSS_WAIT_S);
	json_t *machine = NULL;
	int r = client_call(run->client, "GET", path, NULL, &machine, fail);

	if (r == 0)
		r = machine_exit_status(machine, fail);
	else
		*fail = *lost;
	json_decref(machine);
	return r;
}

/* Executes the workload of a machine that was started attached. 0 or -errno with `fail` set. */
static int execute(struct run *run, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", run->id, "/exec");
	json_t *spec = json_pack("{s:b, s:{}}", "workload", 1, "env");

	if (run->terminal)
		session_describe_terminal(spec);
	run->upgrade = upgrade_open(run->client, path, "hull-exec", spec, fail);
	json_decref(spec);
	client_drop_timeout(run->client);
	return run->upgrade ? 0 : -fail->error.errnum;
}

/* Joins the workload with this command's input, output and signals, to its end and the machine's. Its exit status, or -errno with
 * `fail` set. */
static int attach(struct run *run, struct failure *fail)
{
	struct failure lost;
	int r = session_run(run->upgrade, run->input, run->terminal, fail);

	client_ignore_signals(run->client);
	upgrade_close(run->upgrade); /* the machine ends when its client has heard of the workload's end, and closed */
	run->upgrade = NULL;
	if (r >= 0)
		return machine_wait(run->client, run->id, "stopped,failed", NULL, fail) < 0 ? -fail->error.errnum : r;
	if (r == -EPIPE)
		return r; /* it is here that nobody reads the output */
	lost = *fail;
	return explain_loss(run, &lost, fail);
}

static bool is_for_people(const struct args *args)
{
	enum output_format format = OUTPUT_TABLE;
	struct failure unsaid; /* it was looked at before */

	output_format(args, OUTPUT_TABLE, &format, &unsaid);
	return format == OUTPUT_TABLE && !args_flag(args, "quiet");
}

static void print_detached(const struct args *args, const json_t *machine)
{
	enum output_format format = OUTPUT_TABLE;
	struct failure unsaid; /* it was looked at before */
	const json_t *port;
	size_t i;

	output_format(args, OUTPUT_TABLE, &format, &unsaid);
	if (format != OUTPUT_TABLE) {
		print_value(machine, format);
		return;
	}
	if (args_flag(args, "quiet")) {
		printf("%s\n", json_text(machine, "id"));
		return;
	}
	printf("%s\n", json_text(machine, "name"));
	json_array_foreach (json_object_get(machine, "ports"), i, port) {
		bool udp = strcmp(json_text(port, "protocol"), "udp") == 0;

		if (json_object_get(port, "hostname"))
			printf("  %s, by host name -> port %lld\n", json_text(port, "hostname"), (long long)json_number(port, "guest"));
		else
			printf("  %s%s:%lld -> port %lld%s\n", udp ? "" : "http://", json_text(port, "address"),
			(long long)json_number(port, "host"), (long long)json_number(port, "guest"), udp ? "/udp" : "");
	}
}

static void tell_nobody_wakes(const json_t *machine)
{
	const char *name = json_text(machine, "name");

	if (json_is_object(json_object_get(machine, "idle")) && !json_array_size(json_object_get(machine, "ports")))
		fprintf(stderr, "hull: %s has no port that somebody could wake it by; once it is asleep, `hull start %s` does\n", name, name);
}

/* A command that is misspelt, or lacks something, has ended by now or does in a moment: who has left it alone is told. */
static void tell_early_end(const struct run *run, const json_t *machine)
{
	cleanup_free char *path = client_path("machines", run->id, "/wait?state=stopped,failed&timeout_s=" EARLY_END_S);
	bool ended = strcmp(json_text(machine, "state"), "stopped") == 0;
	struct failure fail = {0}; /* most often 408: it runs */
	json_t *later = NULL;
	int status;

	fflush(stdout);
	if (!ended && client_call(run->client, "GET", path, NULL, &later, &fail) < 0)
		return;
	machine = ended ? machine : later;
	status = machine_exit_status(machine, &fail);
	if (status >= 0) {
		error_set_field(&fail.error, ECHILD, run->name, "its command has ended, with status %d%s", status,
			strcmp(json_text(machine, "state"), "stopped") == 0 ? "" : ", and is started again");
		failure_hint(&fail, "`hull logs %s` shows what it said", run->name);
	}
	failure_print(&fail);
	json_decref(later);
}

static int start(struct run *run, const struct args *args, struct failure *fail)
{
	bool detach = args_flag(args, "detach");
	json_t *machine = NULL;
	int r = client_catch_signals(run->client, fail);

	if (r == 0)
		r = machine_start(run->client, run->id, !detach, &machine, fail);
	if (r == 0 && !detach)
		r = execute(run, fail);
	if (r < 0) {
		client_ignore_signals(run->client);
		if (!machine && r != -EINTR)
			show_console(run);
		if (strncmp(fail->hint, "`hull logs", 10) == 0)
			fail->hint[0] = '\0'; /* there will be no machine to ask */
		delete_machine(run);
		r = r == -EINTR ? EXIT_INTERRUPTED : r;
	} else if (detach) {
		print_detached(args, machine);
		if (is_for_people(args)) {
			tell_nobody_wakes(machine);
			tell_early_end(run, machine);
		}
	}
	json_decref(machine);
	return r;
}

/* What of this command's is the workload's. A command in the background must not take the terminal from the one in front. */
static int choose_streams(const struct args *args, struct run *run, struct failure *fail)
{
	enum output_format format;
	bool detach = args_flag(args, "detach"), in_front = !isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) == getpgrp();

	if (args_flag(args, "rm") && detach)
		return failure_usage(fail, "--rm", "not together with --detach: nobody would wait for the end");
	if (args_flag(args, "interactive") && detach)
		return failure_usage(fail, "--interactive", "not together with --detach: nobody would give it input");
	if (args_flag(args, "tty") && detach)
		return failure_usage(fail, "--tty", "not together with --detach: its output is for the log");
	if (args_flag(args, "tty") && !isatty(STDIN_FILENO))
		return failure_usage(fail, "--tty", "this command's input is no terminal");
	if (output_format(args, OUTPUT_TABLE, &format, fail) < 0)
		return -fail->error.errnum;
	if (format != OUTPUT_TABLE && !detach)
		return failure_usage(fail, "--output", "only with --detach: else it is the workload's output that is shown");
	if (args_value(args, "restart") && strcmp(args_value(args, "restart"), "never") != 0 && !detach)
		return failure_usage(fail, "--restart", "only with --detach: this command is with the workload once");
	run->input = in_front;
	run->terminal = in_front && isatty(STDIN_FILENO) && (args_flag(args, "tty") || isatty(STDOUT_FILENO));
	return 0;
}

int machine_run_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	json_t *spec = NULL, *machine = NULL;
	struct run run = {0};
	int r;

	r = choose_streams(args, &run, fail);
	if (r == 0)
		r = spec_from_args(args, &spec, fail);
	if (r < 0)
		return r;
	client = client_new(args, fail);
	r = client ? create(client, spec, &machine, fail) : -fail->error.errnum;
	json_decref(spec);
	if (r < 0)
		return r;
	run.client = client;
	run.id = json_text(machine, "id");
	run.name = json_text(machine, "name");
	r = start(&run, args, fail);
	if (run.upgrade) {
		r = attach(&run, fail);
		if (r < 0 && !args_flag(args, "rm"))
			failure_hint(fail, "the machine may still run: hull ps, hull logs -f %s", run.name);
		if (args_flag(args, "rm"))
			delete_machine(&run);
	}
	json_decref(machine);
	return r;
}
