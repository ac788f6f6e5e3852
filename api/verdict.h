/* Why a run has ended. For supervisor.c and folders.c. Loop thread. */
#ifndef HULL_API_VERDICT_H
#define HULL_API_VERDICT_H

#include "api/machine.h"

/* Of a monitor that has ended, `status` as in process_fn: what hulld has ended it for, what it has said, or how it died. */
struct machine_end verdict_of(const struct machine *m, int status);

/* What the monitor has left on its status descriptor. False, with `ret` as it was: nothing. */
bool verdict_read_status(const struct machine *m, struct machine_end *ret);

/* The last line of that log of its run which says anything, or "". */
void verdict_last_line(const struct machine *m, const char *log, char *ret, size_t size);

#endif
