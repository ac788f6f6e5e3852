/* virtio-blk (virtio 1.2, section 5.2) over a raw file or block device, by io_uring.
 *
 * Read-only is honoured twice: VIRTIO_BLK_F_RO, and writes answered with IOERR whatever the driver negotiated.
 * FLUSH is fdatasync, DISCARD punches holes, WRITE_ZEROES zeroes; all asynchronous. */
#ifndef HULL_DEVICES_VIRTIO_BLK_H
#define HULL_DEVICES_VIRTIO_BLK_H

#include "common/loop.h"
#include "devices/rate_limiter.h"
#include "devices/virtio.h"

#define BLK_QUEUES_MAX 8

enum blk_engine { BLK_ENGINE_ASYNC /* io_uring */, BLK_ENGINE_SYNC };
enum blk_cache { BLK_CACHE_WRITEBACK /* FLUSH offered and real */, BLK_CACHE_UNSAFE /* no FLUSH offered */ };

struct virtio_blk_config {
	const char *id; /* the serial the driver reads by GET_ID, first 20 bytes; copied */
	const char *path; /* for messages; copied */
	int fd; /* of a regular file or a block device, opened O_RDWR or O_RDONLY; taken over, also on failure */
	bool read_only;
	enum blk_cache cache;
	const struct rate_limiter_config *limiter; /* borrowed for the call; NULL: none */
	uint16_t n_queues; /* up to BLK_QUEUES_MAX; 0 is 1. With more, each has a thread, and a transport with kick_fd and call_fd is needed */
	enum blk_engine engine; /* ASYNC falls back to SYNC, with a log line, where io_uring is forbidden */
};

struct blk_metrics {
	uint64_t queue_event_count, no_avail_buffer; /* doorbells; those with nothing behind them */
	uint64_t invalid_reqs_count;		     /* answered without asking the disk */
	uint64_t execute_fails;			     /* the disk failed */
	uint64_t io_engine_throttled_events;	     /* the kernel had no room for a request */
	uint64_t rate_limiter_throttled_events;	     /* requests had to wait for a limit */
	uint64_t flush_count, read_count, write_count, read_bytes, write_bytes;
	struct metric_latency read_agg, write_agg; /* from the ring to the answer */
};

/* Opens `path` as `read_only` says, with the refusals a user needs: missing, a folder, a socket, empty, in use for
 * writing by another machine (an OFD lock). Descriptor, or -errno with `err` set (field "path_on_host"). */
int virtio_blk_open(const char *path, bool read_only, struct error *err);
/* NULL with `err` set. `loop` and `mem` are borrowed. */
struct virtio_dev *virtio_blk_new(
	const struct virtio_blk_config *config, struct loop *loop, const struct gmem *mem, struct error *err);

const struct blk_metrics *virtio_blk_metrics(const struct virtio_dev *dev);

/* Loop thread, both; they take the device's lock, and those of its queues. */

/* As rate_limiter_update(). */
void virtio_blk_set_limiter(struct virtio_dev *dev, const struct rate_limiter_config *limiter);
/* Puts the file at `path` in the disk's place, and tells the driver its size. What was begun ends on the old one; when the new
 * one cannot be had, the old one goes on. 0, or -errno with `err` set (field "path_on_host"). */
int virtio_blk_set_file(struct virtio_dev *dev, const char *path, struct error *err);

#endif
