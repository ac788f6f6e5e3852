/* GET /metrics: what Prometheus reads (its text format, version 0.0.4), for the host's administrator. */
#ifndef HULL_API_METRICS_H
#define HULL_API_METRICS_H

#include "api/http.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct hulld;
struct metrics;

/* Aborts without memory. Loop thread, as all here. */
struct metrics *metrics_new(struct hulld *hulld);
/* After all requests have ended. Waits for what is being written. NULL is fine. */
void metrics_free(struct metrics *metrics);

void metrics_http_get(struct request *req, void *ctx); /* ctx: the hulld */

#endif
