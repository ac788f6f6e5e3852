/* One request to the API of a machine's monitor, on `monitor.sock` of its run folder (docs/interfaces.md). Called by suspend.c. */
#ifndef HULL_API_MONITOR_CALL_H
#define HULL_API_MONITOR_CALL_H

#include "common/error.h"
#include "common/loop.h"

#include <jansson.h>
#include <stdbool.h>

struct monitor_call;

/* `err`: NULL where it has done what was asked. Otherwise `refused` says that it has answered, and not done it; where nobody has answered, or
 * what makes no sense, nothing is known. Printable ASCII. The call is over and freed. */
typedef void (*monitor_fn)(void *ctx, bool refused, const struct error *err);

/* Takes `body`. `fn` is always called later, unless it is cancelled, and however long the monitor takes: who calls has a deadline.
 * Allocation failure aborts. Loop thread, as the other. */
struct monitor_call *monitor_call(struct loop *loop, const char *socket_path, const char *method, const char *path, json_t *body,
	monitor_fn fn, void *ctx);
void monitor_call_cancel(struct monitor_call *call); /* NULL is fine; what it is doing it does */

#endif
