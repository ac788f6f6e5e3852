/* What a suspended machine was: the files that its monitor saves, in `suspended/` of its state folder. Called by suspend.c, supervisor.c and
 * launch.c.
 *
 * Theory of operation. While a machine is `suspending`, the state file is there only once all is saved and on the disk, and from then on the
 * guest does not run any more: the folder is empty, and that on the disk, when it begins, and is emptied again, and that on the disk,
 * before a guest whose save came to nothing runs on. So whoever finds a machine `suspending`, with both files and without its monitor,
 * after whatever crash, knows that it is suspended. */
#ifndef HULL_API_SAVED_H
#define HULL_API_SAVED_H

#include "api/machine.h"

/* An empty folder. 0 or -errno with `err` set. */
int saved_prepare(struct machine *m, struct error *err);
/* Both files are there. */
bool saved_is_whole(const struct machine *m);
/* Nothing is left, and that is on the disk; a monitor that has mapped the memory keeps it. 0 or -errno with `err` set. */
int saved_drop(struct machine *m, struct error *err);
/* The same, where it is of no use any more: a failure is logged. */
void saved_forget(struct machine *m);
void saved_end(struct hulld *hulld); /* at hulld's end: waits for what is being removed */

/* The bodies of hull-vmm's PUT /snapshot/create and /snapshot/load, new objects. */
json_t *saved_create_request(const struct machine *m);
json_t *saved_load_request(const struct machine *m);

#endif
