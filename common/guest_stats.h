/* What a machine says of its own load: the answer to the order `stats` (common/order.h), and a part of the API's MachineStats.
 * Counters are since the machine's boot. -1 is a number that its kernel does not have; JSON leaves it out. */
#ifndef HULL_COMMON_GUEST_STATS_H
#define HULL_COMMON_GUEST_STATS_H

#include "common/json.h"

#define GUEST_STATS_LIST_MAX 16	 /* file systems, disks and interfaces; further ones are left out */
#define GUEST_STATS_NAME_MAX 128 /* bytes, printable ASCII */

/* Linux, Documentation/accounting/psi.rst: the time in which some tasks, or all, waited. */
struct guest_pressure {
	int64_t some_us, full_us;			  /* so far */
	int64_t some_avg10_hundredths, full_avg10_hundredths; /* of a percent, over the last 10 s */
};

struct guest_group {
	int64_t cpu_us;
	int64_t memory_bytes, memory_peak_bytes, oom_kills;
	int64_t tasks, tasks_max;
};

struct guest_filesystem {
	char *path;
	int64_t size_bytes, free_bytes; /* free: to those who are not root */
};

struct guest_disk {
	char *name;
	int64_t reads, read_bytes, writes, written_bytes;
};

struct guest_interface {
	char *name;
	int64_t received_bytes, received_packets, sent_bytes, sent_packets;
};

struct guest_stats {
	int64_t uptime_ms;
	int64_t load_1m_hundredths, load_5m_hundredths, load_15m_hundredths;
	int64_t memory_total_bytes, memory_available_bytes, swap_total_bytes, swap_free_bytes;
	struct guest_pressure *cpu_pressure, *memory_pressure, *io_pressure; /* NULL: its kernel counts none */
	struct guest_group *workload, *executed;			      /* NULL: none, or nothing ran there yet */
	struct json_array filesystems, disks, interfaces;
};
extern const struct json_table guest_stats_table;

#endif
