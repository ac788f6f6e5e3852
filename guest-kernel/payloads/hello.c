/* The smallest payload: it says how long it took to get there. On a host that counts instructions a cycle is a nanosecond. */
#include "guest-kernel/payloads/payload.h"

void run(void)
{
	uint64_t up = tsc() - tsc_at_entry;

	say("hello after %lu cycles", up);
}
