/* The host over HTTP, for its administrator: what it has, what of that its machines have, and whether it runs any. */
#ifndef HULL_API_HOST_H
#define HULL_API_HOST_H

#include "api/machine.h"

extern const struct json_table host_table, drain_request_table;

/* May it run beside all that do? 0, or -ECANCELED with `problem` set, which says nothing of what others have. */
int host_check_memory(const struct machine *m, struct problem *problem);

/* Routes; their context is a struct hulld. */
void host_http_get(struct request *req, void *ctx);
void host_http_drain(struct request *req, void *ctx);
void host_http_undrain(struct request *req, void *ctx);

#endif
