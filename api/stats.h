/* GET /v1/machines/{m}/stats: what a machine uses, seen from the host and from inside. */
#ifndef HULL_API_STATS_H
#define HULL_API_STATS_H

#include "api/host_stats.h"
#include "api/http.h"
#include "common/guest_stats.h"

struct machine_stats {
	char *id, *name;
	int state; /* enum machine_state */
	int64_t at_unix_ms;
	int64_t cpus, memory_limit_bytes;
	struct host_stats host;
	struct guest_stats *guest; /* NULL: `guest_reason` says why */
	char *guest_reason;
};
extern const struct json_table machine_stats_table;

void stats_http_get(struct request *req, void *ctx); /* ctx: a struct hulld */

#endif
