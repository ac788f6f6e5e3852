/* What each command does: called by the table in main.c. Each returns an exit status, or -errno with `fail` set. */
#ifndef HULL_CLI_COMMANDS_H
#define HULL_CLI_COMMANDS_H

#include "cli/args.h"

/* Ended by a NULL name; those of a noun stand together. */
extern const struct command hull_commands[];

extern const struct option_def apply_options[], diff_options[], context_create_options[], context_remove_options[], list_options[], inspect_options[], made_options[], verb_options[], machines_options[], logs_options[], stop_options[], wait_options[], remove_options[],
	run_options[], secret_set_options[], project_create_options[], project_set_options[], token_create_options[], update_options[], exec_options[], cp_options[], top_options[], events_options[], audit_options[], host_drain_options[], volume_create_options[], webhook_create_options[], operation_list_options[], image_build_options[];

/* machine.c */
int machine_list_run(const struct args *args, struct failure *fail);
int machine_logs_run(const struct args *args, struct failure *fail);
int machine_start_run(const struct args *args, struct failure *fail);
int machine_stop_run(const struct args *args, struct failure *fail);
int machine_restart_run(const struct args *args, struct failure *fail);
int machine_kill_run(const struct args *args, struct failure *fail);
int machine_suspend_run(const struct args *args, struct failure *fail);
int machine_resume_run(const struct args *args, struct failure *fail);
int machine_freeze_run(const struct args *args, struct failure *fail);
int machine_thaw_run(const struct args *args, struct failure *fail);
int machine_remove_run(const struct args *args, struct failure *fail);
int machine_wait_run(const struct args *args, struct failure *fail);
int machine_inspect_run(const struct args *args, struct failure *fail);

/* top.c */
int machine_top_run(const struct args *args, struct failure *fail);

/* events.c */
int events_run(const struct args *args, struct failure *fail);

/* host.c */
int host_inspect_run(const struct args *args, struct failure *fail);
int host_drain_run(const struct args *args, struct failure *fail);
int host_undrain_run(const struct args *args, struct failure *fail);

/* audit.c */
int audit_run(const struct args *args, struct failure *fail);

/* run.c */
int machine_run_run(const struct args *args, struct failure *fail);

/* update.c */
int machine_update_run(const struct args *args, struct failure *fail);

/* exec.c */
int machine_exec_run(const struct args *args, struct failure *fail);

/* cp.c */
int machine_cp_run(const struct args *args, struct failure *fail);

/* image.c */
int image_list_run(const struct args *args, struct failure *fail);
int image_remove_run(const struct args *args, struct failure *fail);
int image_inspect_run(const struct args *args, struct failure *fail);

/* project.c */
int project_create_run(const struct args *args, struct failure *fail);
int project_list_run(const struct args *args, struct failure *fail);
int project_inspect_run(const struct args *args, struct failure *fail);
int project_set_run(const struct args *args, struct failure *fail);
int project_remove_run(const struct args *args, struct failure *fail);
int token_create_run(const struct args *args, struct failure *fail);
int token_list_run(const struct args *args, struct failure *fail);
int token_remove_run(const struct args *args, struct failure *fail);

/* certificate.c */
extern const struct option_def certificate_set_options[];
int ca_run(const struct args *args, struct failure *fail);
int certificate_set_run(const struct args *args, struct failure *fail);
int certificate_list_run(const struct args *args, struct failure *fail);
int certificate_remove_run(const struct args *args, struct failure *fail);

/* network.c */
extern const struct option_def network_create_options[];
int network_create_run(const struct args *args, struct failure *fail);
int network_list_run(const struct args *args, struct failure *fail);
int network_inspect_run(const struct args *args, struct failure *fail);
int network_remove_run(const struct args *args, struct failure *fail);

/* secret.c */
int secret_set_run(const struct args *args, struct failure *fail);
int secret_list_run(const struct args *args, struct failure *fail);
int secret_remove_run(const struct args *args, struct failure *fail);

/* volume.c */
int volume_create_run(const struct args *args, struct failure *fail);
int volume_list_run(const struct args *args, struct failure *fail);
int volume_inspect_run(const struct args *args, struct failure *fail);
int volume_resize_run(const struct args *args, struct failure *fail);
int volume_remove_run(const struct args *args, struct failure *fail);

/* webhook.c */
int webhook_create_run(const struct args *args, struct failure *fail);
int webhook_list_run(const struct args *args, struct failure *fail);
int webhook_inspect_run(const struct args *args, struct failure *fail);
int webhook_enable_run(const struct args *args, struct failure *fail);
int webhook_disable_run(const struct args *args, struct failure *fail);
int webhook_ping_run(const struct args *args, struct failure *fail);
int webhook_remove_run(const struct args *args, struct failure *fail);

/* operation.c */
int operation_list_run(const struct args *args, struct failure *fail);
int operation_inspect_run(const struct args *args, struct failure *fail);
int operation_wait_run(const struct args *args, struct failure *fail);
int operation_cancel_run(const struct args *args, struct failure *fail);

/* image_build.c */
int image_build_run(const struct args *args, struct failure *fail);

/* apply.c */
int apply_run(const struct args *args, struct failure *fail);
int diff_run(const struct args *args, struct failure *fail);

/* context_commands.c */
int context_create_run(const struct args *args, struct failure *fail);
int context_list_run(const struct args *args, struct failure *fail);
int context_use_run(const struct args *args, struct failure *fail);
int context_inspect_run(const struct args *args, struct failure *fail);
int context_remove_run(const struct args *args, struct failure *fail);
int context_show_run(const struct args *args, struct failure *fail);
int context_set_run(const struct args *args, struct failure *fail);

/* completion.c */
int completion_run(const struct args *args, struct failure *fail);

#endif
