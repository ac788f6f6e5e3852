/* hull run: create and start a machine, follow it to its end. */
#include "cli/commands.h"
#include "cli/machine.h"
#include "cli/output.h"
#include "cli/spec.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

const struct option_def run_options[] = {
	{0, "name", "NAME", "the machine's name (made up)"},
	{0, "cpus", "N", "processors (1)"},
	{'m', "memory", "MIB", "memory in MiB, or as 512m, 2g (256)"},
	{0, "disk", "MIB", "disk the machine can write to, in MiB, or as 2g (1024)"},
	{'p', "publish", "[ADDRESS:]HOST:GUEST", "publish a port of the guest on this host"},
	{'e', "env", "KEY[=VALUE]", "environment variable; without a value, this one's own"},
	{0, "env-file", "FILE", "environment variables, one KEY=VALUE a line"},
	{'u', "user", "USER[:GROUP]", "who runs the command (the image's)"},
	{'w', "workdir", "FOLDER", "where the command runs (the image's)"},
	{0, "network", "default|none", "what network the machine has (default)"},
	{0, "restart", "POLICY", "never, on-failure[:RETRIES] or always (never)"},
	{0, "label", "KEY=VALUE", "label"},
	{'d', "detach", NULL, "return once the machine runs"},
	{0, "rm", NULL, "delete the machine when it has ended"},
	{'q', "quiet", NULL, "with -d: print the id only"},
	{0},
};

struct run {
	struct client *client;
	const char *id; /* of the machine */
	const char *name;
	int signals;
};

/* Deletes it, running or not; there is nobody to tell when that fails too. */
static void delete_machine(const struct run *run)
{
	cleanup_free char *path = client_path("machines", run->id, "?force=1");
	struct failure ignored = {0};

	client_ignore_signals(run->client);
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

	client_stream(run->client, path, STDERR_FILENO, NULL, NULL, &ignored);
}

/* The first Ctrl-C asks the workload to end, the second does not ask. */
static void on_signal(void *ctx, int signo)
{
	struct run *run = ctx;
	cleanup_free char *path = client_path("machines", run->id, run->signals ? "/kill" : "/stop");

	(void)signo;
	if (run->signals++ == 0)
		fprintf(stderr, "hull: stopping %s; once more to kill it\n", run->name);
	client_post_beside(run->client, path);
}

/* Blocks signals first, so that one which comes while the API answers meets a machine whose id is known. */
static int create(struct client *client, const json_t *spec, json_t **ret, struct failure *fail)
{
	int r = client_catch_signals(client, fail);

	client_ignore_signals(client);
	/* A reader that went away is an error like others: there is a machine to see to. */
	signal(SIGPIPE, SIG_IGN);
	return r < 0 ? r : client_call(client, "POST", "/v1/machines", spec, ret, fail);
}

/* Shows the output until the machine has ended. Its exit status, or -errno with `fail` set. */
static int follow(struct run *run, bool remove, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", run->id, "/logs?follow=1");
	json_t *machine = NULL;
	int r = client_stream(run->client, path, STDOUT_FILENO, on_signal, run, fail);

	client_ignore_signals(run->client);
	if (r == 0)
		r = machine_wait(run->client, run->id, "stopped,failed", &machine, fail);
	if (r < 0 && !remove)
		failure_hint(fail, "the machine may still run: hull ps, hull logs -f %s", run->name);
	if (r < 0)
		return r;
	r = machine_exit_status(machine, fail);
	json_decref(machine);
	return r;
}

static void print_detached(const struct args *args, const json_t *machine)
{
	const json_t *port;
	size_t i;

	if (args_flag(args, "quiet")) {
		printf("%s\n", json_text(machine, "id"));
		return;
	}
	printf("%s\n", json_text(machine, "name"));
	json_array_foreach (json_object_get(machine, "ports"), i, port)
		printf("  http://%s:%lld -> port %lld\n", json_text(port, "address"),
			(long long)json_number(port, "host"), (long long)json_number(port, "guest"));
}

static int start(struct run *run, const struct args *args, struct failure *fail)
{
	json_t *machine = NULL;
	int r = client_catch_signals(run->client, fail);

	if (r == 0)
		r = machine_start(run->client, run->id, &machine, fail);
	if (r < 0) {
		client_ignore_signals(run->client);
		if (r != -EINTR)
			show_console(run);
		if (strncmp(fail->hint, "hull logs", 9) == 0)
			fail->hint[0] = '\0'; /* there will be no machine to ask */
		delete_machine(run);
		return r == -EINTR ? EXIT_INTERRUPTED : r;
	}
	if (args_flag(args, "detach"))
		print_detached(args, machine);
	json_decref(machine);
	return 0;
}

int machine_run_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	json_t *spec = NULL, *machine = NULL;
	struct run run = {0};
	int r;

	if (args_flag(args, "rm") && args_flag(args, "detach"))
		return failure_usage(fail, "--rm", "not together with --detach: nobody would wait for the end");
	r = spec_from_args(args, &spec, fail);
	if (r < 0)
		return r;
	client = client_new(args, fail);
	r = client ? create(client, spec, &machine, fail) : -fail->error.errnum;
	json_decref(spec);
	if (r < 0) {
		if (strcmp(fail->code, "not_found") == 0)
			failure_hint(fail, "`hull images` lists what there is, `hull image build` makes one");
		return r;
	}
	run = (struct run){.client = client, .id = json_text(machine, "id"), .name = json_text(machine, "name")};
	r = start(&run, args, fail);
	if (r == 0 && !args_flag(args, "detach")) {
		r = follow(&run, args_flag(args, "rm"), fail);
		if (args_flag(args, "rm"))
			delete_machine(&run);
	}
	json_decref(machine);
	return r;
}
