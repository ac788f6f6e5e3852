/* How a machine that runs is saved, and what is done in one that was restored before its programs go on. Called by machine.c,
 * machine_suspend.c and supervisor.c, which starts and ends processes; saved.h has the files.
 *
 *	suspend_begin ─▶ hook ─▶ freeze ─▶ pause ─▶ save ─▶ the monitor ends ─▶ machine_is_suspended()
 *	                    └───────┴───────┴───────┴─▶ what is saved is removed ─▶ run ─▶ thaw ─▶ machine_runs_on()
 *	suspend_finish_resume ─▶ clock ─▶ reseed ─▶ hook ─▶ thaw ─▶ machine_is_up(), or the monitor is killed
 *
 * Once the phase `save` is committed, its programs stand still: a hulld that finds a machine `suspending` has it paused, and saved, unless that has been
 * done; where that phase was not reached, or nobody knows, it is let go, and all begins anew. Each step may be repeated. A monitor that is asked to save and says nothing that makes sense is killed: whether it has
 * saved is seen from the files. Loop thread, as all here. */
#ifndef HULL_API_SUSPEND_H
#define HULL_API_SUSPEND_H

#include "api/machine.h"

/* What it may take at most, as the machine is, and those are that are being saved beside it: they share a disk. */
int64_t suspend_timeout_s(const struct machine *m);
/* What is left of that since it began, or this hulld took it up: more than its deadline said, where others have begun since. 0: nothing, or it is
 * saved. */
int64_t suspend_left_ms(const struct machine *m);
/* Its monitor runs. Ends in one of the above, later, or as the monitor does. */
void suspend_begin(struct machine *m);
/* The same, of one that an earlier hulld has begun to save. */
void suspend_take_up(struct machine *m);
/* Its agent has answered. */
void suspend_finish_resume(struct machine *m);
/* Nothing is asked of it any more. */
void suspend_forget(struct machine *m);
/* It is paused, or about to be: nobody in it hears anything. */
bool suspend_is_paused(const struct machine *m);
/* What failed last, a line; NULL: nothing. Valid until suspend_forget(). */
const char *suspend_failure(const struct machine *m);

#endif
