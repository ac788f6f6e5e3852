/* What the transports (virtio 1.2, sections 4.1 PCI and 4.2 MMIO) share: the doorbells, and the meaning of registers that
 * differ in nothing but their place. Only a transport includes this.
 *
 * A doorbell is an eventfd that KVM writes without an exit. The loop watches it edge-triggered, so it need not be read: each
 * write is one event. A notification that does come as an exit is passed on to the same eventfd, so that devices are rung on
 * the loop thread only. */
#ifndef HULL_DEVICES_VIRTIO_TRANSPORT_H
#define HULL_DEVICES_VIRTIO_TRANSPORT_H

#include "common/loop.h"
#include "devices/virtio.h"

struct virtio_doorbell {
	struct virtio_dev *dev; /* borrowed */
	uint16_t queue;
	int fd; /* owned; -1 when absent */
	struct loop_source *source;
};

struct virtio_doorbells {
	struct virtio_doorbell items[VIRTIO_QUEUES_MAX];
};

/* One for each of the device's queues, watched. Loop thread, or before it runs. 0 or -errno; to be freed either way. */
int virtio_doorbells_init(struct virtio_doorbells *doorbells, struct virtio_dev *dev, struct loop *loop);
/* Nobody listens any more; the descriptors stay. Loop thread. Also of a zeroed one. */
void virtio_doorbells_silence(struct virtio_doorbells *doorbells);
void virtio_doorbells_done(struct virtio_doorbells *doorbells);
/* The loop listens to queue `q` or, what a device asks for that hands the descriptor to somebody else, does not. Loop thread. */
void virtio_doorbells_listen(struct virtio_doorbells *doorbells, uint16_t q, bool listen);
/* The driver's notification came as an exit. Any thread; a queue that is none is ignored. */
void virtio_doorbells_ring(const struct virtio_doorbells *doorbells, uint32_t q);

/* Makes an eventfd readable, or counts one more. Any thread. */
void virtio_signal_fd(int fd);

/* All that follows: with the device's lock held. */

/* The 32-bit half `sel` of a feature set; further halves are empty. */
uint32_t virtio_feature_word(uint64_t features, uint32_t sel);
/* The driver's choice of half driver_features_sel; without effect once FEATURES_OK is set (3.1.1). */
void virtio_set_driver_feature_word(struct virtio_dev *dev, uint32_t value);
/* The queue that queue_sel points to, or NULL. */
struct virtq *virtio_selected_queue(struct virtio_dev *dev);
/* The driver enables a queue, or takes one away, which breaks a running device: RING_RESET (2.6.1) is not offered. */
void virtio_set_queue_ready(struct virtio_dev *dev, struct virtq *vq, bool ready);
/* Sizes beyond the maximum become 0, which is refused when the queue is enabled. */
void virtio_set_queue_size(struct virtq *vq, uint32_t size);
void virtio_set_half(gpa_t *address, bool high, uint32_t value);

#endif
