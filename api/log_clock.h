/* The time by which logs grow old: time that has passed, whatever the wall clock is set to.
 *
 * It begins as the wall clock's, and counts on with the host's uptime, sleep included (CLOCK_BOOTTIME). How long a host was off nobody but
 * the wall clock knows, and that is often wrong until somebody has been asked for it: it is looked at once it is believed, the host being up for CLOCK_SETTLED_MS, and
 * until then no time is known. So a clock that is set ahead takes nothing away, and one that is set back keeps nothing. */
#ifndef HULL_API_LOG_CLOCK_H
#define HULL_API_LOG_CLOCK_H

#include "api/hulld.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Milliseconds. */
struct log_clock {
	int64_t id;	       /* whoever begins one gives it another: what was timed by one that is lost says nothing here */
	int64_t now;	       /* 0: it has not begun */
	int64_t uptime, wall;  /* as they were then, */
	char boot[BOOT_ID_BYTES]; /* and the boot that `uptime` is of */
};

/* To the present. False: what time it is will be known CLOCK_SETTLED_MS after the boot. */
bool log_clock_advance(struct log_clock *clock, int64_t uptime, int64_t wall, const char *boot);

/* As it is stored; a new object. What is not of that form is a clock that has not begun. */
json_t *log_clock_dump(const struct log_clock *clock);
void log_clock_read(struct log_clock *ret, const json_t *stored);

#endif
