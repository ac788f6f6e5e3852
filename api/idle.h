/* Machines that nobody uses (MachineSpec's `idle`): they are put to sleep, and woken when somebody comes.
 *
 * Theory of operation. Two know who uses a machine: hulld, what is executed in it and copied, and hull-ingress, who is connected to its
 * ports. A machine that runs is looked at when it could have been idle for long enough:
 *
 *	running ──▶ hull-ingress is asked, and holds whoever comes from then on, if nobody has come for so long ──▶ stopping ──▶ stopped, asleep
 *	                                                                                       └─▶ suspending ──▶ suspended, asleep
 *	asleep ──▶ somebody comes: hull-ingress says so ──▶ starting, resuming ──▶ running: the gate is open
 *	              └─▶ the start fails ──▶ failed, asleep: the gate is closed for a second, then for twice as long each time
 *
 * record.asleep is true from the one's `stopping` to the other's `running`, over restarts of hulld and of the host; what ran when the host
 * went is asleep, too. A stop that somebody asks for ends it: then nobody wakes the machine but by a start. Not idle is what is frozen, has
 * an operation under way, or is what another machine that runs depends on. */
#ifndef HULL_API_IDLE_H
#define HULL_API_IDLE_H

#include "api/hulld.h"

struct machine;

/* It runs, and nobody has used it yet; or its `idle` is another. Loop thread, as all here. Allocation failure aborts. */
void idle_begin(struct machine *m);
/* It does not run, or is started. */
void idle_end(struct machine *m);
void idle_free(struct machine *m);

/* Something is executed in it, or copied, until the latter is called as often; by then it may be gone. */
void idle_use(struct machine *m);
void idle_unuse(struct hulld *hulld, const char *machine_id);

/* From ingress_client.c: for how long nobody has used its ports; `held`: who comes is held from now on, as it was long enough. */
void idle_answered(struct machine *m, int64_t idle_ms, bool held);
/* Somebody waits at one of its ports. */
void idle_wanted(struct machine *m);
/* Wakes what sleeps; harmless for what does not, or has just failed to. */
void idle_wake(struct machine *m);

/* It could not be suspended, and `reason` says why: that is tried again later than otherwise, each time by more. */
void idle_fail(struct machine *m, const char *reason);
/* It was suspended: what failed before does not count any more. */
void idle_forgive(struct machine *m);

/* It could not be woken: nobody wakes it for so long. */
void idle_back_off(struct machine *m, int64_t wait_ms);
bool idle_backs_off(const struct machine *m);
/* Does it sleep, until somebody comes? */
bool idle_sleeps(const struct machine *m);

#endif
