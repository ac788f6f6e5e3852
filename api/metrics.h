/* GET /metrics: what Prometheus reads (its text format, version 0.0.4), for the host's administrator. */
#ifndef HULL_API_METRICS_H
#define HULL_API_METRICS_H

#include "api/http.h"

void metrics_http_get(struct request *req, void *ctx); /* ctx: the hulld */

#endif
