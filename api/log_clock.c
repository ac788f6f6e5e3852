#include "api/log_clock.h"

#include <stdio.h>
#include <string.h>

#define TIME_MAX_MS (INT64_MAX / 4) /* no sum of such leaves what a number holds */

bool log_clock_advance(struct log_clock *clock, int64_t uptime, int64_t wall, const char *boot)
{
	bool same_boot = strcmp(clock->boot, boot) == 0 && uptime >= clock->uptime;
	int64_t passed = same_boot ? uptime - clock->uptime : wall - clock->wall;

	if (!clock->now)
		passed = wall > 0 ? wall : 1;
	else if (!same_boot && uptime < CLOCK_SETTLED_MS)
		return false;
	else if (!same_boot && passed < uptime)
		passed = uptime; /* that at least */
	clock->now += passed;
	clock->uptime = uptime;
	clock->wall = wall;
	snprintf(clock->boot, sizeof(clock->boot), "%s", boot);
	return true;
}

json_t *log_clock_dump(const struct log_clock *clock)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:s}", "id", (json_int_t)clock->id, "now_ms", (json_int_t)clock->now, "uptime_ms",
		(json_int_t)clock->uptime, "wall_ms", (json_int_t)clock->wall, "boot_id", clock->boot);
}

void log_clock_read(struct log_clock *ret, const json_t *stored)
{
	json_int_t id = 0, now, uptime, wall;
	const char *boot;

	*ret = (struct log_clock){0};
	if (json_unpack((json_t *)stored, "{s?:I, s:I, s:I, s:I, s:s}", "id", &id, "now_ms", &now, "uptime_ms", &uptime, "wall_ms", &wall,
		    "boot_id", &boot) < 0 ||
		now <= 0 || now > TIME_MAX_MS || uptime < 0 || uptime > TIME_MAX_MS || wall < -TIME_MAX_MS || wall > TIME_MAX_MS)
		return;
	*ret = (struct log_clock){.id = id, .now = now, .uptime = uptime, .wall = wall};
	snprintf(ret->boot, sizeof(ret->boot), "%s", boot);
}
