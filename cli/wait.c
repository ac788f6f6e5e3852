/* hull machine wait. */
#include "cli/machine.h"

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/request.h"
#include "common/cleanup.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const struct option_def wait_options[] = {
	OUTPUT_OPTION,
	{0, "healthy", NULL, "until it runs and its health check, if it has one, has succeeded"},
	{0},
};

/* Nothing is about to bring it to what is waited for, but somebody else may: the wait goes on. (One that has ended is not waited for, with a
 * restart due or without.) */
static void tell_who_waits_in_vain(struct client *client, const char *machine, bool healthy)
{
	cleanup_free char *path = client_path("machines", machine, "");
	const char *until = healthy ? "is healthy" : "has ended", *name;
	struct failure fail = {0};
	json_t *now = NULL;

	if (client_call(client, "GET", path, NULL, &now, &fail) < 0)
		return; /* the wait says why */
	name = json_text(now, "name");
	if (strcmp(json_text(now, "state"), "suspended") == 0) {
		error_set_field(&fail.error, EAGAIN, name, "waits until it %s, but it is suspended", until);
		failure_hint(&fail, "`hull resume %s` lets it go on", name);
	} else if (strcmp(json_text(now, "state"), "created") == 0) {
		error_set_field(&fail.error, EAGAIN, name, "waits until it %s, but it was never started", until);
		failure_hint(&fail, "`hull start %s` starts it", name);
	} else if (healthy && json_is_true(json_object_get(now, "frozen")) &&
		   strcmp(json_text(json_object_get(now, "health"), "state"), "starting") == 0) {
		error_set_field(&fail.error, EAGAIN, name, "waits until it %s, but it is frozen", until);
		failure_hint(&fail, "`hull thaw %s` lets it run on", name);
	}
	if (fail.error.errnum)
		failure_print(&fail);
	json_decref(now);
}

int machine_wait_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	json_t *machine = NULL;
	int r;

	if (!client)
		return -fail->error.errnum;
	if (isatty(STDERR_FILENO))
		tell_who_waits_in_vain(client, args->operands[0], args_flag(args, "healthy"));
	if (args_flag(args, "healthy"))
		r = machine_wait_healthy(client, args->operands[0], &machine, fail);
	else
		r = machine_wait(client, args->operands[0], "stopped,failed", &machine, fail);
	if (r == 0 && format != OUTPUT_TABLE) {
		print_value(machine, format);
	} else if (r == 0 && !args_flag(args, "healthy")) {
		r = machine_exit_status(machine, fail);
		if (r >= 0)
			printf("%d\n", r);
	}
	json_decref(machine);
	return r < 0 ? r : 0;
}
