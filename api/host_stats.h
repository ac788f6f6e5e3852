/* What the kernel says of a monitor's process. */
#ifndef HULL_API_HOST_STATS_H
#define HULL_API_HOST_STATS_H

#include <stdint.h>

/* Of the monitor's process, guest RAM included; -1 is a number that the host does not tell. */
struct host_stats {
	int64_t cpu_us, threads;
	int64_t rss_bytes, pss_bytes; /* pss: of pages that several processes map, its share */
	int64_t read_bytes, written_bytes; /* from and to the host's storage */
};

/* What the kernel's files of a process have: each fills what it finds. */
void host_stats_parse_stat(const char *text, struct host_stats *ret);
void host_stats_parse_rollup(const char *text, struct host_stats *ret); /* smaps_rollup */
void host_stats_parse_io(const char *text, struct host_stats *ret);

/* By its `stat`, when it was started, in clock ticks since the host's start: with the pid, that is one process. 0: it says no such
 * thing, or the process has ended. */
uint64_t host_stats_start_time(const char *text);

#endif
