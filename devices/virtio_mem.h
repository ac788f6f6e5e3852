/* virtio-mem (virtio 1.2, section 5.15): a region of guest-physical addresses in which memory is plugged and unplugged block by
 * block. The host says how much shall be plugged; which blocks, and when, the driver decides.
 *
 * The device keeps the books and holds the driver to the rules. Making memory, and taking it away, is its owner's. */
#ifndef HULL_DEVICES_VIRTIO_MEM_H
#define HULL_DEVICES_VIRTIO_MEM_H

#include "common/loop.h"
#include "devices/virtio.h"

struct virtio_mem_ops {
	/* The memory of whole blocks, none of which is there, is to be there: zeroes. 0, or -errno: nothing has changed, and the
	 * driver may try again. Both on the loop thread, with the device's lock held. */
	int (*plug)(void *ctx, uint64_t offset, uint64_t len);
	/* The memory of whole blocks, all of them there, is to be there no more, for the guest and for devices. 0; 1 when it is
	 * gone, but the host could not have it back; or -errno: nothing has changed, and the driver may try again. */
	int (*unplug)(void *ctx, uint64_t offset, uint64_t len);
};

struct virtio_mem_setup {
	gpa_t addr; /* a multiple of block_bytes, as is region_bytes; block_bytes is a power of two */
	uint64_t region_bytes, block_bytes;
	const struct virtio_mem_ops *ops; /* borrowed, as is ctx */
	void *ctx;
};

struct mem_metrics {
	uint64_t queue_event_count, queue_event_fails; /* doorbells; malformed requests */
	uint64_t plug_count, plug_bytes, plug_fails;
	uint64_t unplug_count, unplug_bytes, unplug_fails, unplug_discard_fails;
	uint64_t unplug_all_count, unplug_all_fails;
	uint64_t state_count, state_fails;
	struct metric_latency plug_agg, unplug_agg, unplug_all_agg, state_agg;
};

/* Nothing is plugged, and nothing requested. `loop` and `mem` are borrowed. NULL with `err` set. */
struct virtio_dev *virtio_mem_new(
	const struct virtio_mem_setup *setup, struct loop *loop, const struct gmem *mem, struct error *err);

const struct mem_metrics *virtio_mem_metrics(const struct virtio_dev *dev);

/* Which blocks are plugged, as a section of its own: all devices may have their rings there, so it is loaded before any of them.
 * Like virtio_dev_save() and virtio_dev_load(): 0, or -errno with `err` set, and nothing is plugged. */
void virtio_mem_save_blocks(struct virtio_dev *dev, struct state_writer *w);
int virtio_mem_load_blocks(struct virtio_dev *dev, struct state_reader *r, struct error *err);

/* Loop thread, both; they take the device's lock. */

/* How much shall be plugged from now on; the driver sets out to reach it. 0; -EINVAL when it is no whole number of blocks or
 * more than the region, -EAGAIN when no driver is there to hear of it, with `err` set (field "requested_size_mib"). */
int virtio_mem_request(struct virtio_dev *dev, uint64_t bytes, struct error *err);
void virtio_mem_sizes(struct virtio_dev *dev, uint64_t *ret_requested_bytes, uint64_t *ret_plugged_bytes);

#endif
