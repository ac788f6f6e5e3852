/* Whether a machine that runs does what it is for: its spec's health check, again and again. */
#ifndef HULL_API_HEALTH_H
#define HULL_API_HEALTH_H

#include "api/spec.h"

struct machine;
struct health;

/* How long it may take, from the start of the workload, until it is known whether it is healthy, and somewhat more: it may be frozen meanwhile. */
int64_t health_patience_ms(const struct health_spec *spec);

/* Its workload has begun, `ago_ms` ago: its grace is counted from then. Loop thread, as everything here. */
void health_begin_grace(struct machine *m, int64_t ago_ms);
/* Begins anew, as `starting`, with what is left of the grace; nothing for a machine without a check. Allocation failure aborts. */
void health_start(struct machine *m);
/* It runs no more. */
void health_stop(struct machine *m);

/* enum health_state; HEALTH_UNKNOWN for one that is not checked, too. */
int health_state(const struct machine *m);

/* As the API shows it, with what is borrowed from both; since_ms 0: nothing is known. */
void health_view(const struct machine *m, struct health_view *ret, int64_t *ret_since_ms);

#endif
