/* How much of something is kept, and for how long: "MIB" or "MIB,DAYS", as an option says. */
#ifndef HULL_API_KEEP_H
#define HULL_API_KEEP_H

#include "common/error.h"

#include <stdint.h>

#define KEEP_MIB_MAX  1048576
#define KEEP_DAYS_MAX 3650

struct keep {
	uint64_t bytes;
	int64_t days;
};

/* `ret` has what `text` does not say. 0, or -EINVAL with `err` set, naming the option. */
int keep_parse(const char *option, const char *text, struct keep *ret, struct error *err);

#endif
