/* The time as rows have it, and as clients see it. See hulld.h. */
#include "api/hulld.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int64_t read_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t now_ms(void)
{
	return read_ms(CLOCK_REALTIME);
}

int64_t uptime_ms(void)
{
	return read_ms(CLOCK_BOOTTIME);
}

bool clock_is_settled(void)
{
	return uptime_ms() >= CLOCK_SETTLED_MS;
}

char *format_time(int64_t ms)
{
	time_t seconds = ms / 1000;
	char day[32], *text;
	struct tm utc;

	if (!ms)
		return NULL;
	gmtime_r(&seconds, &utc);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &utc);
	if (asprintf(&text, "%s.%03dZ", day, (int)(ms % 1000)) < 0)
		abort();
	return text;
}

int64_t parse_time(const char *text)
{
	struct tm utc = {0};
	int ms = 0;

	if (!text || sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ", &utc.tm_year, &utc.tm_mon, &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &ms) != 7)
		return 0;
	utc.tm_year -= 1900;
	utc.tm_mon--;
	return (int64_t)timegm(&utc) * 1000 + ms;
}
