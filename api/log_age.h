/* Machines' logs end: what is older than their age, and more than their size, is taken away, of machines that run and of those that do not.
 *
 * Theory of operation. The monitor, which writes, keeps the size (bounded_file.h). Age is kept here: every ROUND_NS, and when hulld has
 * started, each machine's logs are looked at, a few machines at a time with a pause between, so that 10,000 take less than a minute of a
 * thread that has others to serve. What is known of their age (log_pieces.h) is in the machine's folder, logs.json; what time it is
 * (log_clock.h), in the state folder's log-clock.json. Neither is synced: where a crash of the host takes one, logs are kept for
 * longer.
 *
 * Loop thread only. */
#ifndef HULL_API_LOG_AGE_H
#define HULL_API_LOG_AGE_H

#include "api/hulld.h"
#include "api/keep.h"

struct log_age;
struct machine;

/* Before requests are served; machines may be loaded later. NULL with `err` set. */
struct log_age *log_age_new(struct hulld *hulld, struct error *err);
void log_age_free(struct log_age *age); /* NULL is fine */

/* How much of the machine's logs is kept: what it says, and no more than the host lets it. */
struct keep log_age_limits(const struct machine *m);

/* Of its present log `file` (a name in its state folder), open as `fd`: where what is kept begins. */
uint64_t log_age_gone(const struct machine *m, const char *file, int fd);

/* Looks at the machine's logs now: it may be that less is to be kept. */
void log_age_look(struct machine *m);
/* It is about to be freed. */
void log_age_forget(struct log_age *age, const struct machine *m);

#endif
