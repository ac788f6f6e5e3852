/* Which machine is started after which: MachineSpec's `depends_on`.
 *
 * Theory of operation. A machine that depends on others is `starting`, without a monitor, until they all are there; then its start goes
 * on. One that can not be there any more, or the deadline, ends it. Names are the project's own, and are looked up when it matters:
 * what nobody may do is take a name away that others depend on, but by force. After a restart of hulld the wait begins anew, once all
 * machines have been taken up.
 *
 * All that waits is a list. A change of a machine is looked at beside the names in it; whoever that may let go on, or end, is seen to
 * on a later round of the loop, one a round: thousands may wait for one, and each start writes files. */
#ifndef HULL_API_START_ORDER_H
#define HULL_API_START_ORDER_H

#include "api/hulld.h"

struct machine;
struct start_order;
struct start_wait;

/* NULL with `err` set. Loop thread, as all here. */
struct start_order *start_order_new(struct hulld *hulld, struct error *err);
void start_order_free(struct start_order *order); /* once there are no machines; NULL is fine */

/* May a machine depend on what `spec` says, and have that name? `changed`: the one that is to become it; NULL: a new one. What it
 * depended on before may be gone. 0, or -ECANCELED with `problem` set. */
int start_order_check(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem);
/* One that depends on `m`, or NULL. */
const struct machine *start_order_dependent(const struct machine *m);

/* Does one that runs depend on `m`, so that it has to run, too? */
bool start_order_needs(const struct machine *m);

/* One that runs, or is to, needs what it depends on: those of these that sleep are woken. */
void start_order_wake(struct machine *m);

/* From supervisor_start(): ends in supervisor_begin() or supervisor_give_up(), at once or later. */
void start_order_begin(struct machine *m);
/* It does not wait any more; harmless when it does not. */
void start_order_forget(struct machine *m);
/* What it depends on has been changed. */
void start_order_renew(struct machine *m);

/* `m` is in another state, healthy or not, or has another name. */
void start_order_tell(const struct machine *m);
/* There is no machine of that name any more. */
void start_order_tell_removed(struct hulld *hulld, const char *project, const char *name);

/* The names of the machines that `m` waits for; how many. */
size_t start_order_waits_for(const struct machine *m, char *ret[DEPENDS_ON_MAX]);

#endif
