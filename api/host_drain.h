/* Whether this host runs machines, and how all of them are ended.
 *
 * Theory of operation. The host serves; or it is being drained: no machine starts, and those that run are asked to end, each once no
 * other that runs depends on it; or it is drained: none runs. That is a row of the database, and a new hulld goes on where the last was.
 * What is ended so is marked as to start again (`restart_at` in its row), and held back until the host serves again; but a run that was
 * attached to its client is not: that is over.
 *
 *	drain:   serving → draining → drained (when the last has ended)
 *	undrain: draining, drained → serving; what was held back starts
 *
 * The host's own end (going_down.c) ends machines in the same way, and holds back those whose policy starts them always. Some are
 * ended a round of the loop: each is a commit. */
#ifndef HULL_API_HOST_DRAIN_H
#define HULL_API_HOST_DRAIN_H

#include "api/hulld.h"

struct host_drain;
struct machine;

/* NULL with `err` set. Loop thread, as all here. */
struct host_drain *host_drain_new(struct hulld *hulld, struct error *err);
void host_drain_free(struct host_drain *drain); /* NULL is fine */

/* Each machine is to end within the time that its stop has, and by `timeout_s` in any case. While the host is drained, or by a longer time
 * than is left, nothing changes. 0 after the commit, or -ECANCELED with `problem` set. */
int host_drain_begin(struct hulld *hulld, int64_t timeout_s, struct problem *problem);
int host_drain_undo(struct hulld *hulld, struct problem *problem);

/* For going_down.c: all that run end; `fn` is called on a later round of the loop, once. */
void host_drain_for_good(struct hulld *hulld, unsigned timeout_s, void (*fn)(void *ctx), void *ctx);

/* Does it start machines? 0, or -ECANCELED with `problem` set. */
int host_check_starts(const struct hulld *hulld, struct problem *problem);
/* The same, but all is well with one that goes down and is not drained: what is under way goes on when it is there again. */
int host_check_stays(const struct hulld *hulld, struct problem *problem);
bool host_starts(const struct hulld *hulld);
/* A machine has ended. */
void host_drain_look(struct hulld *hulld);
/* A new hulld has found all machines: what was under way goes on. */
void host_drain_take_up(struct hulld *hulld);

const struct host_record *host_drain_record(const struct hulld *hulld);

#endif
