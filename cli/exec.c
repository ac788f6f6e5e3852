/* hull exec: a program in a machine that runs, as if it ran here. */
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/spec.h"

#include <errno.h>
#include <unistd.h>

const struct option_def exec_options[] = {
	{'i', "interactive", NULL, "give it this command's input"},
	{'t', "tty", NULL, "give it a terminal like this one"},
	{'e', "env", "KEY[=VALUE]", "environment variable; without a value, this one's own"},
	{0, "env-file", "FILE", "environment variables, one KEY=VALUE a line"},
	{'u', "user", "USER[:GROUP]", "who runs the command (the workload's)"},
	{'w', "workdir", "FOLDER", "where the command runs (the workload's)"},
	{0},
};

int machine_exec_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	cleanup(upgrade_close_p) struct upgrade *upgrade = NULL;
	cleanup_free char *path = client_path("machines", args->operands[0], "/exec");
	bool input = args_flag(args, "interactive"), terminal = args_flag(args, "tty");
	json_t *spec = NULL;
	int r;

	if (!args->n_rest) {
		failure_usage(fail, "COMMAND", "is missing");
		return failure_hint(fail, "for example `hull exec %s ps`", args->operands[0]);
	}
	if (terminal && !isatty(STDIN_FILENO))
		return failure_usage(fail, "--tty", "this command's input is no terminal");
	r = exec_spec_from_args(args, &spec, fail);
	if (r < 0)
		return r;
	if (terminal)
		session_describe_terminal(spec);
	client = client_new(args, fail);
	if (client)
		upgrade = upgrade_open(client, path, "hull-exec", spec, fail);
	json_decref(spec);
	/* What is typed at a terminal is for the program that has one. */
	return upgrade ? session_run(upgrade, input || terminal, terminal, fail) : -fail->error.errnum;
}
