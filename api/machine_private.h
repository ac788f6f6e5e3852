/* What machine.c, machine_create.c and machine_load.c share. Nobody else's. Loop thread. */
#ifndef HULL_API_MACHINE_PRIVATE_H
#define HULL_API_MACHINE_PRIVATE_H

#include "api/machine.h"

/* machine.c. One in memory, found from now on, that does nothing by itself. Takes what is in `record` and `spec`. Aborts without
 * memory. */
struct machine *machine_new(struct hulld *hulld, struct machine_record *record, struct machine_spec *spec);
/* Frees what is in memory; what runs goes on. It is in no index any more. */
void machine_free(struct machine *m);
/* It starts again when its row says, if it does. */
void machine_arm_restart(struct machine *m);

/* machine_create.c. Removes a folder and all below it; what cannot be is logged. */
void machine_remove_folder(const char *path);

#endif
