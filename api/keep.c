#include "api/keep.h"

#include <errno.h>
#include <stdlib.h>

int keep_parse(const char *option, const char *text, struct keep *ret, struct error *err)
{
	long mib, days = (long)ret->days;
	char *end;

	errno = 0;
	mib = strtol(text, &end, 10);
	if (*end == ',')
		days = strtol(end + 1, &end, 10);
	if (errno || *end || mib < 1 || mib > KEEP_MIB_MAX || days < 1 || days > KEEP_DAYS_MAX)
		return error_set_field(err, EINVAL, option, "must be MIB or MIB,DAYS, from 1 to %d MiB and 1 to %d days", KEEP_MIB_MAX,
			KEEP_DAYS_MAX);
	*ret = (struct keep){(uint64_t)mib << 20, days};
	return 0;
}
