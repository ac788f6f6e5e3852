/* hull: the command line over the control API. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>


static int version_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	enum output_format format;
	json_t *version = NULL;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r < 0)
		return r;
	client = client_new(args, fail);
	if (format == OUTPUT_TABLE)
		printf("hull %s\n", HULL_VERSION);
	fflush(stdout);
	if (!client)
		return -fail->error.errnum;
	r = client_call(client, "GET", "/v1/version", NULL, &version, fail);
	if (r == 0 && format == OUTPUT_TABLE)
		printf("hulld %s, API %s, at %s\n", json_text(version, "version"), json_text(version, "api"),
			client_url(client));
	if (r == 0 && format != OUTPUT_TABLE) {
		json_object_set_new(version, "hull", json_string(HULL_VERSION));
		json_object_set_new(version, "url", json_string(client_url(client)));
		print_value(version, format);
	}
	json_decref(version);
	return r;
}

const struct command hull_commands[] = {
	{"machine run", "run", "IMAGE [COMMAND...]", 1, 1, true, run_options,
		"Create and start a machine, show its output, exit with its status", EXIT_RUN_FAILED, machine_run_run},
	{"machine exec", "exec", "MACHINE COMMAND...", 1, 1, true, exec_options,
		"Run a program in a machine, with its input, output and exit status", EXIT_RUN_FAILED, machine_exec_run},
	{"machine cp", "cp", "SOURCE TARGET", 2, 2, false, cp_options,
		"Copy a file or folder to MACHINE:PATH, or from there", 0, machine_cp_run},
	{"machine list", "ps", "", 0, 0, false, machines_options, "List machines", 0, machine_list_run},
	{"machine top", "top", "[MACHINE...]", 0, -1, false, top_options, "Show what machines use, again and again", 0, machine_top_run},
	{"machine stats", "stats", "[MACHINE...]", 0, -1, false, top_options, "The same as top", 0, machine_top_run},
	{"machine logs", "logs", "MACHINE", 1, 1, false, logs_options, "Show what a machine printed", 0,
		machine_logs_run},
	{"machine start", "start", "MACHINE...", 1, -1, false, verb_options, "Start machines and wait until they run", 0,
		machine_start_run},
	{"machine stop", "stop", "MACHINE...", 1, -1, false, stop_options, "Ask machines to end, and wait until they have", 0,
		machine_stop_run},
	{"machine restart", "restart", "MACHINE...", 1, -1, false, stop_options, "Stop machines and start them again", 0,
		machine_restart_run},
	{"machine kill", "kill", "MACHINE...", 1, -1, false, verb_options, "End machines at once", 0, machine_kill_run},
	{"machine suspend", "suspend", "MACHINE...", 1, -1, false, verb_options, "Save machines with all that is in their memory, and end them", 0,
		machine_suspend_run},
	{"machine resume", "resume", "MACHINE...", 1, -1, false, verb_options, "Let suspended machines go on where they were", 0,
		machine_resume_run},
	{"machine freeze", "freeze", "MACHINE...", 1, -1, false, verb_options, "Make all programs in machines stand still", 0,
		machine_freeze_run},
	{"machine thaw", "thaw", "MACHINE...", 1, -1, false, verb_options, "Let frozen programs run on", 0, machine_thaw_run},
	{"machine rm", "rm", "MACHINE...", 1, -1, false, remove_options, "Delete machines and what they wrote", 0,
		machine_remove_run},
	{"machine update", "update", "MACHINE [COMMAND...]", 1, 1, true, update_options,
		"Change a machine: at once, or what it is at its next start", 0, machine_update_run},
	{"machine wait", "wait", "MACHINE", 1, 1, false, wait_options, "Wait for a machine's end and print its exit status", 0,
		machine_wait_run},
	{"machine inspect", "inspect", "MACHINE", 1, 1, false, inspect_options, "Show everything about a machine", 0,
		machine_inspect_run},
	{"apply", NULL, "-f FILE...", 0, 0, false, apply_options, "Make machines, volumes and networks be as files say they are", 0, apply_run},
	{"diff", NULL, "-f FILE...", 0, 0, false, diff_options, "Show what `apply` would change; the exit status is 1 when there is something", 2, diff_run},
	{"image build", NULL, "[NAME]", 0, 1, false, image_build_options,
		"Make an image of Debian packages and files, and upload it", 0, image_build_run},
	{"image list", "images", "", 0, 0, false, list_options, "List images", 0, image_list_run},
	{"image rm", "rmi", "IMAGE...", 1, -1, false, remove_options, "Delete images", 0, image_remove_run},
	{"image inspect", NULL, "IMAGE", 1, 1, false, inspect_options, "Show everything about an image", 0,
		image_inspect_run},
	{"volume create", NULL, "NAME", 1, 1, false, volume_create_options, "Make an empty volume, which lasts longer than machines", 0,
		volume_create_run},
	{"volume list", NULL, "", 0, 0, false, list_options, "List volumes, and which machines have them", 0, volume_list_run},
	{"volume inspect", NULL, "VOLUME", 1, 1, false, inspect_options, "Show everything about a volume", 0, volume_inspect_run},
	{"volume resize", NULL, "VOLUME SIZE", 2, 2, false, made_options, "Make a volume larger, in MiB, or as 2g", 0, volume_resize_run},
	{"volume rm", NULL, "VOLUME...", 1, -1, false, NULL, "Delete volumes and all that is on them", 0, volume_remove_run},
	{"events", NULL, "", 0, 0, false, events_options, "Show what has happened, and what happens", 0, events_run},
	{"audit", NULL, "", 0, 0, false, audit_options, "Show who has done what on the host, and how it was answered", 0, audit_run},
	{"host inspect", NULL, "", 0, 0, false, inspect_options, "Show what the host has, and whether it runs machines", 0, host_inspect_run},
	{"host drain", NULL, "", 0, 0, false, host_drain_options,
		"End all machines, each before what it depends on, and start none any more", 0, host_drain_run},
	{"host undrain", NULL, "", 0, 0, false, made_options, "Start machines again, those that were ended first", 0, host_undrain_run},
	{"operation list", NULL, "", 0, 0, false, operation_list_options, "List what is under way on machines, and how far it is", 0,
		operation_list_run},
	{"operation inspect", NULL, "OPERATION", 1, 1, false, inspect_options, "Show everything about an operation", 0, operation_inspect_run},
	{"operation wait", NULL, "OPERATION", 1, 1, false, made_options, "Wait for its end; a failure where it does not succeed", 0,
		operation_wait_run},
	{"operation cancel", NULL, "OPERATION...", 1, -1, false, NULL, "Undo a start, or a stop that the workload does not know of yet", 0,
		operation_cancel_run},
	{"network create", NULL, "NAME", 1, 1, false, network_create_options, "Create a network, on which machines reach each other by name", 0,
		network_create_run},
	{"network list", NULL, "", 0, 0, false, list_options, "List networks, and how many machines are on each", 0, network_list_run},
	{"network inspect", NULL, "NETWORK", 1, 1, false, inspect_options, "Show everything about a network", 0, network_inspect_run},
	{"network rm", NULL, "NETWORK...", 1, -1, false, NULL, "Delete networks that no machine is on", 0, network_remove_run},
	{"secret set", NULL, "NAME", 1, 1, false, secret_set_options, "Set a secret to what the input, or a file, has", 0, secret_set_run},
	{"secret list", NULL, "", 0, 0, false, list_options, "List secrets, by name", 0, secret_list_run},
	{"secret rm", NULL, "SECRET...", 1, -1, false, NULL, "Forget secrets", 0, secret_remove_run},
	{"project create", NULL, "NAME", 1, 1, false, project_create_options, "Create a project, with quotas", 0, project_create_run},
	{"project list", NULL, "", 0, 0, false, list_options, "List projects", 0, project_list_run},
	{"project inspect", NULL, "PROJECT", 1, 1, false, inspect_options, "Show everything about a project", 0, project_inspect_run},
	{"project set", NULL, "PROJECT", 1, 1, false, project_set_options, "Change a project's quotas", 0, project_set_run},
	{"project rm", NULL, "PROJECT...", 1, -1, false, NULL, "Delete projects that have no machines and no volumes", 0, project_remove_run},
	{"token create", NULL, "", 0, 0, false, token_create_options, "Make a token of the project, and show it this once", 0, token_create_run},
	{"token list", NULL, "", 0, 0, false, list_options, "List the project's tokens", 0, token_list_run},
	{"token rm", NULL, "ID...", 1, -1, false, NULL, "Revoke tokens", 0, token_remove_run},
	{"certificate set", NULL, "HOSTNAME", 1, 1, false, certificate_set_options, "Serve a certificate of your own for a host name", 0,
		certificate_set_run},
	{"certificate list", NULL, "", 0, 0, false, list_options, "List certificates that were given", 0, certificate_list_run},
	{"certificate rm", NULL, "HOSTNAME...", 1, -1, false, NULL, "Forget certificates; the host's own are served again", 0, certificate_remove_run},
	{"webhook create", NULL, "URL", 1, 1, false, webhook_create_options, "Have events sent there, and print the id and the secret, this once", 0,
		webhook_create_run},
	{"webhook list", NULL, "", 0, 0, false, list_options, "List webhooks, and how they are", 0, webhook_list_run},
	{"webhook inspect", NULL, "WEBHOOK", 1, 1, false, inspect_options, "Show everything about a webhook", 0, webhook_inspect_run},
	{"webhook enable", NULL, "WEBHOOK...", 1, -1, false, NULL, "Send what has happened since they were disabled, and what happens", 0,
		webhook_enable_run},
	{"webhook disable", NULL, "WEBHOOK...", 1, -1, false, NULL, "Send nothing; what happens waits", 0, webhook_disable_run},
	{"webhook ping", NULL, "WEBHOOK", 1, 1, false, made_options, "Send a test there, and tell what became of it", 0, webhook_ping_run},
	{"webhook rm", NULL, "WEBHOOK...", 1, -1, false, NULL, "Delete webhooks", 0, webhook_remove_run},
	{"context create", NULL, "NAME", 1, 1, false, context_create_options, "Remember where an API is, and what opens it, by a name", 0,
		context_create_run},
	{"context list", NULL, "", 0, 0, false, list_options, "List contexts, and which is in use", 0, context_list_run},
	{"context use", NULL, "CONTEXT", 1, 1, false, NULL, "Use a context from now on", 0, context_use_run},
	{"context inspect", NULL, "[CONTEXT]", 0, 1, false, inspect_options, "Show a context, or the one in use; never its token", 0,
		context_inspect_run},
	{"context rm", NULL, "CONTEXT...", 1, -1, false, context_remove_options, "Forget contexts", 0, context_remove_run},
	{"context show", NULL, "", 0, 0, false, made_options, "Show where the API is looked for, and who said so", 0,
		context_show_run},
	{"context set", NULL, "URL", 1, 1, false, NULL,
		"Set the context `default`, as a host does that is started here", 0, context_set_run},
	{"ca", NULL, "", 0, 0, false, NULL, "Print the certificate of the authority that signs what is served by host name", 0, ca_run},
	{"completion", NULL, "SHELL", 1, 1, true, NULL, "Print what makes bash, zsh or fish complete hull's command lines", 0, completion_run},
	{"version", NULL, "", 0, 0, false, made_options, "Show the versions of this program and of the API", 0, version_run},
	{0},
};

static int show_help(const struct args *args)
{
	if (args->version)
		printf("hull %s\n", HULL_VERSION);
	else if (args->command)
		help_command(stdout, args->command);
	else if (args->noun)
		help_noun(stdout, hull_commands, args->noun);
	else
		help_overview(stdout, hull_commands);
	return 0;
}

static int fail_with(const struct args *args, struct failure *fail)
{
	suggest(args, fail);
	failure_print(fail);
	if (fail->usage)
		return EXIT_USAGE;
	if (fail->error.errnum == EINTR)
		return EXIT_INTERRUPTED;
	return args->command && args->command->failure_status ? args->command->failure_status : 1;
}

int main(int argc, char **argv)
{
	struct failure fail = {0};
	struct args args;
	int status;

	if (argc == 1) {
		help_overview(stderr, hull_commands);
		return EXIT_USAGE;
	}
	status = args_parse(&args, hull_commands, argc, argv, &fail);
	if (status == 0)
		status = args.help || args.version ? show_help(&args) : args.command->run(&args, &fail);
	/* A full disk must not pass for success. */
	if (status >= 0 && fflush(stdout) != 0)
		status = error_set_errno(&fail.error, errno, "cannot write the output");
	if (status < 0)
		status = fail_with(&args, &fail);
	args_done(&args);
	return status;
}
