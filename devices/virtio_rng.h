/* virtio-rng (virtio 1.2, section 5.4): entropy from getrandom(). */
#ifndef HULL_DEVICES_VIRTIO_RNG_H
#define HULL_DEVICES_VIRTIO_RNG_H

#include "common/loop.h"
#include "devices/virtio.h"

/* NULL with `err` set. */
struct virtio_dev *virtio_rng_new(struct loop *loop, const struct gmem *mem, struct error *err);

#endif
