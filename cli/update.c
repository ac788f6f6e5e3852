/* hull update: changes what a machine is to be. */
#include "cli/commands.h"
#include "cli/machine.h"
#include "cli/request.h"
#include "cli/spec.h"

#include <string.h>

const struct option_def update_options[] = {
	{0, "restart-now", NULL, "start the machine again, if it runs without what was changed or has ended"},
	{0, "image", "IMAGE", "what the image of that name is now"},
	{0, "name", "NAME", "another name"},
	{0, "cpus", "N", "processors"},
	{'m', "memory", "MIB", "memory in MiB, or as 512m, 2g"},
	{0, "disk", "MIB", "disk, as long as it was never started"},
	{'p', "publish", "[ADDRESS:]HOST:GUEST[/udp]", "publish this port, too; HOST-, HOST/udp-: not any more"},
	{0, "hostname", "NAME:GUEST", "serve this host name, too; NAME-: not any more"},
	{'v', "volume", "VOLUME:PATH[:ro]", "mount this volume or folder, too, or elsewhere; VOLUME-: not any more"},
	{'e', "env", "KEY[=VALUE]", "environment variable; KEY-: take it away"},
	{0, "env-file", "FILE", "environment variables, one KEY=VALUE a line"},
	{'u', "user", "USER[:GROUP]", "who runs the command; \"\": as the image has it"},
	{'w', "workdir", "FOLDER", "where the command runs; \"\": as the image has it"},
	{0, "network", "NETWORK", "one that `hull network create` has made, or default (a way out only), or none"},
	{0, "restart", "POLICY", "never, on-failure[:RETRIES] or always"},
	{0, "stop-signal", "SIGNAL", "what asks the command to end, as SIGINT; image: what the image says"},
	{0, "stop-timeout", "S", "seconds a stop takes at most"},
	{0, "idle", "AFTER[:suspend]", "stop, or suspend, it when nobody has used it for so long, as 90s, 15m or 12h, until somebody connects"},
	{0, "no-idle", NULL, "it runs, whether somebody uses it or not"},
	{0, "log-days", "DAYS", "days that what it says is kept; 0: as the host has it"},
	{0, "log-size", "MIB", "MiB of it that are kept"},
	{0, "depends-on", "NAME[:CONDITION]", "start it once that machine is there, too; NAME-: no matter"},
	{0, "health-http", "PORT[/PATH]", "healthy while a GET of that is answered with 200 to 399"},
	{0, "health-tcp", "PORT", "healthy while connections are accepted there"},
	{0, "health-cmd", "COMMAND", "healthy while that shell command ends with 0"},
	{0, "health-interval", "S", "seconds from one check to the next"},
	{0, "health-timeout", "S", "seconds one check may take"},
	{0, "health-retries", "N", "checks in a row that have to fail until it is unhealthy"},
	{0, "health-grace", "S", "seconds it may take to come up, in which none of them counts"},
	{0, "no-health", NULL, "its health is not looked at any more"},
	{0, "label", "KEY=VALUE", "label; KEY-: take it away"},
	OUTPUT_OPTION,
	QUIET_OPTION("print the id"),
	{0},
};

/* One try: reads the machine, and changes it if it is still so. */
static int change(struct client *client, const char *path, const struct args *args, json_t **ret, struct failure *fail)
{
	json_t *machine = NULL, *patch = NULL;
	cleanup_free char *etag = NULL;
	int r = client_get_tagged(client, path, &machine, &etag, fail);

	if (r == 0)
		r = patch_from_args(args, machine, &patch, fail);
	if (r == 0)
		r = client_patch(client, path, etag, patch, ret, fail);
	json_decref(patch);
	json_decref(machine);
	return r;
}

static void tell_pending(const json_t *machine)
{
	const json_t *pending = json_object_get(machine, "pending"), *field;
	size_t i;

	if (json_array_size(pending) == 0)
		return;
	fprintf(stderr, "hull: %s: ", json_text(machine, "name"));
	json_array_foreach (pending, i, field)
		fprintf(stderr, "%s%s", i ? ", " : "", json_string_value(field));
	fprintf(stderr, ": at its next start\n      `hull restart %s` starts it again%s\n", json_text(machine, "name"),
		strcmp(json_text(machine, "state"), "suspended") == 0 ? ", and loses what was suspended" : "");
}

/* One that has ended has what was changed once it is started, and was perhaps changed because of that. */
static bool lacks_a_start(const json_t *machine)
{
	const char *state = json_text(machine, "state");

	return json_array_size(json_object_get(machine, "pending")) || strcmp(state, "stopped") == 0 || strcmp(state, "failed") == 0;
}

int machine_update_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	cleanup_free char *path = client_path("machines", args->operands[0], "");
	json_t *machine = NULL, *again = NULL;
	unsigned tries = 0;
	int r;

	if (!client)
		return -fail->error.errnum;
	do
		r = change(client, path, args, &machine, fail);
	while (r < 0 && client_tries_again(&tries, fail));
	if (r < 0)
		return r;
	if (args_flag(args, "restart-now") && lacks_a_start(machine))
		r = machine_restart(client, json_text(machine, "id"), &again, fail);
	else
		tell_pending(machine);
	if (r == 0)
		print_made(again ? again : machine, args_flag(args, "quiet") ? "id" : "name", format);
	json_decref(again);
	json_decref(machine);
	return r;
}
