/* What is under way on machines, as commands show it. */
#ifndef HULL_CLI_OPERATION_H
#define HULL_CLI_OPERATION_H

#include "cli/client.h"

/* On a terminal, says how far it is, until it has ended, or a machine that is started runs. `machine`: an answer that names it, or names
 * none. What comes of it is not told, nor why it could not be seen. 0, or -EINTR with `fail` set: somebody wants to leave. */
int operation_show(struct client *client, const json_t *machine, struct failure *fail);
/* Who leaves is told that it goes on, and how to undo it. Returns -EINTR, with `fail` set anew. */
int operation_goes_on(const json_t *machine, const char *verb, struct failure *fail);
/* Waits until what `machine`, an answer, has under way has ended. What has not succeeded is a failure: the machine was not `done`
 * ("suspended"), and why. */
int operation_finish(struct client *client, const json_t *machine, const char *done, struct failure *fail);

#endif
