/* virtio-rng (virtio 1.2, section 5.4): entropy from getrandom(). */
#ifndef HULL_DEVICES_VIRTIO_RNG_H
#define HULL_DEVICES_VIRTIO_RNG_H

#include "common/loop.h"
#include "devices/metrics.h"
#include "devices/rate_limiter.h"
#include "devices/virtio.h"

struct rng_metrics {
	uint64_t entropy_event_fails; /* malformed requests */
	uint64_t entropy_event_count; /* doorbells */
	uint64_t entropy_bytes;
	uint64_t host_rng_fails;
	uint64_t entropy_rate_limiter_throttled; /* requests had to wait for a limit */
};

/* `limiter` is borrowed for the call, NULL for none; `loop` and `mem` for the device's life. NULL with `err` set. */
struct virtio_dev *virtio_rng_new(const struct rate_limiter_config *limiter, struct loop *loop, const struct gmem *mem,
	struct error *err);

const struct rng_metrics *virtio_rng_metrics(const struct virtio_dev *dev);

#endif
