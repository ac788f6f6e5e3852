/* What the kernel says of a monitor's process (Linux, Documentation/filesystems/proc.rst). */
#include "api/host_stats.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int64_t ticks_us(unsigned long long ticks)
{
	return (int64_t)(ticks * (1000000ull / (unsigned long long)sysconf(_SC_CLK_TCK)));
}

/* Behind the program's name, which may hold anything: state, ten more, user and system time, four more, threads. */
void host_stats_parse_stat(const char *text, struct host_stats *ret)
{
	const char *rest = strrchr(text, ')');
	unsigned long long user, kernel;
	long long threads;

	if (!rest || sscanf(rest + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu %*s %*s %*s %*s %lld", &user, &kernel,
			     &threads) != 3)
		return;
	ret->cpu_us = ticks_us(user + kernel);
	ret->threads = threads;
}

/* The number behind `key` at the beginning of a line; -1. */
static int64_t find_number(const char *text, const char *key)
{
	long long value;

	while (text && strncmp(text, key, strlen(key)) != 0) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text && sscanf(text + strlen(key), " %lld", &value) == 1 && value >= 0 ? value : -1;
}

void host_stats_parse_rollup(const char *text, struct host_stats *ret)
{
	int64_t rss_kib = find_number(text, "Rss:"), pss_kib = find_number(text, "Pss:");

	ret->rss_bytes = rss_kib < 0 ? -1 : rss_kib << 10;
	ret->pss_bytes = pss_kib < 0 ? -1 : pss_kib << 10;
}

void host_stats_parse_io(const char *text, struct host_stats *ret)
{
	ret->read_bytes = find_number(text, "read_bytes:");
	ret->written_bytes = find_number(text, "write_bytes:");
}
