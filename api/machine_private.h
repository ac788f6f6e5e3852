/* What machine.c, machine_cancel.c, machine_create.c, machine_load.c and machine_suspend.c share. Nobody else's. Loop thread. */
#ifndef HULL_API_MACHINE_PRIVATE_H
#define HULL_API_MACHINE_PRIVATE_H

#include "api/machine.h"

/* machine.c. One in memory, found from now on, that does nothing by itself. Takes what is in `record` and `spec`. Aborts without
 * memory. */
struct machine *machine_new(struct hulld *hulld, struct machine_record *record, struct machine_spec *spec);
/* Frees what is in memory; what runs goes on. It is in no index any more. */
void machine_free(struct machine *m);
/* Writes the record and its operations, and tells who waits. -ECANCELED: `problem` is set, and all is as in `before`, whose owned strings are the
 * same. */
int machine_commit_or_undo(struct machine *m, const struct machine_record *before, struct problem *problem);
/* `message` becomes printable ASCII. */
void machine_set_cause(struct machine *m, const char *code, const char *message);
/* Nothing is asked of it any more. */
void machine_leave_alone(struct machine *m);
/* 0, or -ECANCELED with `problem` set. */
int machine_refuse_deleting(const struct machine *m, struct problem *problem);
/* How long is waited after the first of a row of failures, and so on. */
int64_t machine_backoff_ms(int64_t failures);
/* May it be started, or resumed, as host and project are? 0, or -ECANCELED with `problem` set. */
int machine_check_begin(struct machine *m, struct problem *problem);
/* It is stopped, as its own `stop` says. `by`: who undoes its start; NULL: nobody, it is put to sleep. 0, or -ECANCELED with `problem` set. */
int machine_end_early(struct machine *m, const char *by, struct problem *problem);
/* machine_suspend.c. One that is suspended is resumed, by hulld, or for who has asked while it was not yet. */
void machine_resume_again(struct machine *m);
int machine_suspend_idle(struct machine *m, struct problem *problem);
/* It starts again when its row says, if it does. */
void machine_arm_restart(struct machine *m);

/* machine_create.c. Removes a folder and all below it; what cannot be is logged. */
void machine_remove_folder(const char *path);

#endif
