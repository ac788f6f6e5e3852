/* virtio-pmem (virtio 1.2, section 5.19): a file that the guest has as memory. The device only tells the driver where, and
 * brings what was written to stable storage when asked; the memory is its owner's. */
#ifndef HULL_DEVICES_VIRTIO_PMEM_H
#define HULL_DEVICES_VIRTIO_PMEM_H

#include "common/loop.h"
#include "devices/rate_limiter.h"
#include "devices/virtio.h"

struct virtio_pmem_setup {
	const char *path; /* for messages; copied */
	int fd;		  /* the file's; borrowed for the device's life */
	uint64_t file_bytes;
	gpa_t start; /* where the guest finds it */
	uint64_t size_bytes;
	const struct rate_limiter_config *limiter; /* borrowed for the call; NULL: none */
	/* The device's last deed: nothing of it needs the file or the memory any more. Not when virtio_pmem_new() fails. May be
	 * NULL. */
	void (*gone)(void *ctx);
	void *ctx;
};

struct pmem_metrics {
	uint64_t queue_event_count;		/* doorbells */
	uint64_t event_fails;			/* malformed requests, and flushes that failed */
	uint64_t rate_limiter_throttled_events; /* requests had to wait for a limit */
	uint64_t rate_limiter_event_count;	/* and went on */
};

/* `loop` and `mem` are borrowed. NULL with `err` set. */
struct virtio_dev *virtio_pmem_new(
	const struct virtio_pmem_setup *setup, struct loop *loop, const struct gmem *mem, struct error *err);

const struct pmem_metrics *virtio_pmem_metrics(const struct virtio_dev *dev);

/* As rate_limiter_update(). Loop thread; takes the device's lock. */
void virtio_pmem_set_limiter(struct virtio_dev *dev, const struct rate_limiter_config *limiter);

#endif
