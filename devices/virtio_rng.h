/* virtio-rng (virtio 1.2, section 5.4): entropy from getrandom(). */
#ifndef HULL_DEVICES_VIRTIO_RNG_H
#define HULL_DEVICES_VIRTIO_RNG_H

#include "common/loop.h"
#include "devices/virtio.h"

struct rng_metrics {
	uint64_t entropy_event_fails; /* malformed requests */
	uint64_t entropy_event_count; /* doorbells */
	uint64_t entropy_bytes;
	uint64_t host_rng_fails;
};

/* NULL with `err` set. */
struct virtio_dev *virtio_rng_new(struct loop *loop, const struct gmem *mem, struct error *err);

const struct rng_metrics *virtio_rng_metrics(const struct virtio_dev *dev);

#endif
