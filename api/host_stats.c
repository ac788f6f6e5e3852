/* What the kernel says of a monitor's process (Linux, Documentation/filesystems/proc.rst). */
#include "api/host_stats.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int64_t ticks_us(unsigned long long ticks)
{
	return (int64_t)(ticks * (1000000ull / (unsigned long long)sysconf(_SC_CLK_TCK)));
}

/* What follows the program's name, which may hold anything: from field 3 on. NULL: nothing does. */
static const char *behind_name(const char *text)
{
	const char *rest = strrchr(text, ')');

	return rest ? rest + 1 : NULL;
}

/* Fields 14, 15, 20 and 24: user and system time, threads, pages of memory. */
void host_stats_parse_stat(const char *text, struct host_stats *ret)
{
	const char *rest = behind_name(text);
	unsigned long long user, kernel;
	long long threads, pages;

	if (!rest || sscanf(rest, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu %*s %*s %*s %*s %lld %*s %*s %*s %lld", &user,
			     &kernel, &threads, &pages) != 4)
		return;
	ret->cpu_us = ticks_us(user + kernel);
	ret->threads = threads;
	ret->rss_bytes = pages * sysconf(_SC_PAGESIZE);
}

uint64_t host_stats_start_time(const char *text)
{
	const char *rest = behind_name(text);
	unsigned long long start;
	char state;

	if (!rest || sscanf(rest, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state, &start) != 2)
		return 0;
	return state == 'Z' ? 0 : start;
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

	if (rss_kib >= 0)
		ret->rss_bytes = rss_kib << 10; /* exact, where `stat` has what the processors have summed up lately */
	if (pss_kib >= 0)
		ret->pss_bytes = pss_kib << 10;
}

void host_stats_parse_io(const char *text, struct host_stats *ret)
{
	ret->read_bytes = find_number(text, "read_bytes:");
	ret->written_bytes = find_number(text, "write_bytes:");
}
