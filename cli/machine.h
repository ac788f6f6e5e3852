/* What several commands do with one machine. */
#ifndef HULL_CLI_MACHINE_H
#define HULL_CLI_MACHINE_H

#include "cli/client.h"

#include <signal.h>

#define MACHINE_KILLED_STATUS (128 + SIGKILL) /* of one that had no say in it */

/* Waits, as long as it takes, for one of `states` ("stopped,failed"). A new reference in `ret`, here and below; which may be NULL. */
int machine_wait(struct client *client, const char *machine, const char *states, json_t **ret, struct failure *fail);

/* Waits until it is healthy; one without a check is when it runs. One that is not, or has ended, is a failure. */
int machine_wait_healthy(struct client *client, const char *name, json_t **ret, struct failure *fail);

/* Starts it and waits until it runs, or has run and ended. `attached`: its command waits until it is executed. A machine that failed
 * is a failure that tells the cause. */
int machine_start(struct client *client, const char *machine, bool attached, json_t **ret, struct failure *fail);

/* Stops it and waits until it runs again. A new reference in `ret`. */
int machine_restart(struct client *client, const char *machine, json_t **ret, struct failure *fail);

/* The exit status for a machine that ended: the workload's, 137 when the machine was killed, 125 when it failed. */
int machine_exit_status(const json_t *machine, struct failure *fail);

/* Was its command killed for that? */
bool machine_ran_out_of_memory(const json_t *machine);

#endif
