/* The wall clocks of machines that run, which follow the host's when that is set, or has slept. */
#ifndef HULL_API_CLOCK_H
#define HULL_API_CLOCK_H

#include "common/error.h"

struct hulld;
struct machine;
struct clock_watch;

/* Steps the clock of every machine that runs whenever the host's was set. NULL with `err` set. Loop thread. */
struct clock_watch *clock_watch_new(struct hulld *hulld, struct error *err);
void clock_watch_free(struct clock_watch *watch); /* NULL is fine */

/* Has a machine that runs set its clock by the host's. What it answers says, too, whether it is frozen. */
void clock_step(struct machine *m);
/* It runs no more. */
void clock_forget(struct machine *m);

#endif
