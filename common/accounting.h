/* What a machine has used of network and storage, for who pays for it: counts in a file that another process reads at any time.
 *
 * A file of one page has a `struct accounting` in the host's byte order. The monitor maps it, and its devices add to it; nothing wakes, waits or
 * locks for it, and each count is whole by itself. Counted is what the guest has asked of devices of the monitor's own: not what goes
 * through the host's kernel (vhost-net) or another process (vhost-user). The file outlives the monitor, and the next one begins anew. */
#ifndef HULL_COMMON_ACCOUNTING_H
#define HULL_COMMON_ACCOUNTING_H

#include "common/error.h"

#include <stdint.h>

#define ACCOUNTING_VERSION 1
#define ACCOUNTING_BYTES   4096

struct accounting {
	uint64_t version; /* ACCOUNTING_VERSION; 0: it has not begun */
	uint64_t net_received_bytes, net_received_packets; /* by the guest, without the host's header */
	uint64_t net_sent_bytes, net_sent_packets;
	uint64_t disk_read_bytes, disk_reads;
	uint64_t disk_written_bytes, disk_writes, disk_flushes;
};

/* Where this process counts; never NULL: in memory of its own until accounting_open(). Add with devices/metrics.h, from any thread. */
extern struct accounting *accounting;

/* Makes the file (mode 0600), or empties it, and counts there from now on. Once, before there are devices. 0 or -errno with `err` set. */
int accounting_open(const char *path, struct error *err);

/* What the file has now. 0, or -errno: -ENODATA when there is nothing yet. Any process, any thread. */
int accounting_read(const char *path, struct accounting *ret);

#endif
