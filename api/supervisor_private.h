/* What supervisor.c and supervisor_adopt.c share. Nobody else's. Loop thread. */
#ifndef HULL_API_SUPERVISOR_PRIVATE_H
#define HULL_API_SUPERVISOR_PRIVATE_H

#include "api/supervisor.h"

/* Ends everything but the monitor, which has ended or was never there. */
void supervisor_end_run(struct machine *m);
/* The same, and nothing is left that it could go on from; machine.c is told. */
void supervisor_finish(struct machine *m, const struct machine_end *end);
/* A start that broke before there was a monitor: one that is suspended stays so. */
void supervisor_fail_start(struct machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* False: out of memory. */
bool supervisor_make_timers(struct machine *m);
void supervisor_ping(struct machine *m);
/* Without this, the agent is found by asking. */
void supervisor_listen_for_agent(struct machine *m);
/* Its network is lost, or was. */
void supervisor_lose_passt(struct machine *m);

/* Of m->monitor and m->passt, by process.h. */
void supervisor_on_monitor_end(void *ctx, int status);
void supervisor_on_passt_end(void *ctx, int status);

#endif
