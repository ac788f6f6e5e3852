/* The API's events as they happen, also over restarts of hulld. */
#ifndef HULL_CLI_FOLLOW_H
#define HULL_CLI_FOLLOW_H

#include "cli/client.h"

/* Calls `on_event` for each, in order, none left out and none twice, until that returns a negative number, which is returned. `query`:
 * "type=…&since_s=…", escaped, or "". A connection that is lost, or silent for longer than hulld ever is, is made anew. -errno with
 * `fail` set when the API refuses, or cannot be reached for a minute. */
int follow_events(struct client *client, const char *query, int (*on_event)(void *ctx, const json_t *event), void *ctx, struct failure *fail);

#endif
