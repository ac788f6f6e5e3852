/* Metrics: what was counted since the last time, one JSON object a line, under Firecracker's names.
 *
 * What counts is told here once, and from then on read when a line is written: devices (devices/metrics.h), vCPUs, the
 * log. A group that nobody counts for is reported as zeroes, as Firecracker does. Loop thread only. */
#ifndef HULL_VMM_METRICS_H
#define HULL_VMM_METRICS_H

#include "common/cleanup.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct metrics;
struct virtio_dev;

/* One field of what counts, and how it is reported. */
enum metric_kind {
	METRIC_COUNT,	/* uint64_t: what was added since the last line */
	METRIC_VALUE,	/* uint64_t: as it stands */
	METRIC_LATENCY, /* struct metric_latency: the sum since the last line; least and most as they stand */
};

struct metric_field {
	const char *name;
	enum metric_kind kind;
	size_t offset; /* in the struct that counts */
};

/* Who counts; vmm/metrics_tables.c says in which struct, and what becomes of it. */
enum metrics_source {
	METRICS_BLOCK,	    /* struct blk_metrics */
	METRICS_NET,	    /* struct net_metrics */
	METRICS_VSOCK,	    /* struct vsock_metrics */
	METRICS_ENTROPY,    /* struct rng_metrics */
	METRICS_BALLOON,    /* struct balloon_metrics */
	METRICS_VHOST_USER_BLOCK, /* struct vhost_metrics */
	METRICS_VHOST_USER_NET,
	METRICS_VHOST_USER_FS,
	METRICS_VHOST_NET,
	METRICS_PMEM,	    /* struct pmem_metrics */
	METRICS_HOTPLUG,    /* struct mem_metrics */
	METRICS_INTERRUPTS, /* struct virtio_metrics, of each virtio device */
	METRICS_UART,	    /* struct uart16550_metrics */
	METRICS_I8042,	    /* struct i8042_metrics */
	METRICS_VCPU,	    /* struct vcpu_metrics, of each vCPU */
	METRICS_API_GET,    /* parts of struct api_metrics */
	METRICS_API_PUT,
	METRICS_API_PATCH,
	METRICS_API_LATENCIES,
	METRICS_API_SERVER,
	METRICS_MMDS,	    /* struct mmds_metrics */
	METRICS_LOG,	    /* struct log_metrics */
	METRICS_LOGGER,	    /* our own */
	METRICS_SOURCES
};

struct metric_table {
	const char *group;
	const struct metric_field *fields;
	size_t n_fields, size; /* of the struct, bytes */
	bool is_device;	       /* the group also has what the virtio core counts of it */
};

extern const struct metric_table metric_tables[METRICS_SOURCES];
extern const struct metric_table metric_virtio_table; /* what the core counts of each device */

/* Our own, for the table. */
struct logger_metrics {
	uint64_t missed_metrics_count; /* the reader had not taken the line before */
	uint64_t metrics_fails;
};

/* Writes nowhere until it is opened. Never NULL (allocation failure aborts). */
struct metrics *metrics_new(struct loop *loop);
/* Writes a last line. NULL is fine. */
void metrics_free(struct metrics *metrics);
DEFINE_CLEANUP(struct metrics *, metrics_free)

/* From now on lines are appended to the file or FIFO at `path`, every 60 s and when asked for. A FIFO needs no reader:
 * nothing here ever waits for one. `id`: a field of each line; NULL: none. `properties`: the same, an object; NULL or
 * empty: none. 0, or -errno with `err` set (no field): the file cannot be opened, or there is one already. */
int metrics_open(
	struct metrics *metrics, const char *path, const char *id, const json_t *properties, struct error *err);

/* `counted` is the struct that the table of `source` speaks of; borrowed until its `owner` is removed. With `id` it is also
 * reported by itself, as "GROUP_ID". */
void metrics_add(struct metrics *metrics, enum metrics_source source, const char *id, const void *owner,
	const void *counted);
/* The same for a virtio device, which is the owner: `counted`, and what the core counts. */
void metrics_add_device(struct metrics *metrics, enum metrics_source source, const char *id,
	const struct virtio_dev *dev, const void *counted);
/* All of the owner's counts will be gone: as they are now, they are in the next line, if there is where to write one. An owner of
 * none is fine, and so is `metrics` NULL. */
void metrics_remove(struct metrics *metrics, const void *owner);

/* Writes a line now. 0, also when there is nowhere to write it; -EAGAIN when the reader has not taken the line before (what
 * was counted is in the next one then) or another -errno, with `err` set. */
int metrics_flush(struct metrics *metrics, struct error *err);

#endif
