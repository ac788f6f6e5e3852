/* Which events a client asks for, and may see. */
#ifndef HULL_API_EVENT_FILTER_H
#define HULL_API_EVENT_FILTER_H

#include "api/store.h"

#include <stdbool.h>
#include <stdint.h>

struct request;

struct event_filter {
	uint64_t types; /* bits, by index in event_types */
	char machine[NAME_MAX_BYTES + 1]; /* id or name; "": any */
};

/* From a request's query and what its client may see. */
void event_filter_read(const struct request *req, struct event_filter *ret);
/* `type`: event_type_by_name(). */
bool event_filter_fits(const struct event_filter *filter, int type, const char *subject, const char *name);

#endif
