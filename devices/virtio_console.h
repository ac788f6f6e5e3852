/* virtio-console (virtio 1.2, section 5.3): one port, bytes both ways. */
#ifndef HULL_DEVICES_VIRTIO_CONSOLE_H
#define HULL_DEVICES_VIRTIO_CONSOLE_H

#include "common/loop.h"
#include "devices/virtio.h"

/* Both are called with the device's lock held and must not call back at once. */
struct virtio_console_ops {
	/* What the guest prints. False: it has been taken, but no more shall come until virtio_console_room(). Loop thread. */
	bool (*transmit)(void *ctx, const void *data, size_t len);
	/* The guest has room for input, if there is any. Any thread. */
	void (*receive_ready)(void *ctx);
};

/* `ops`, `ctx`, `loop` and `mem` are borrowed for the device's life. NULL with `err` set. */
struct virtio_dev *virtio_console_new(const struct virtio_console_ops *ops, void *ctx, struct loop *loop,
	const struct gmem *mem, struct error *err);

/* Input for the guest: bytes taken, from the front. After less than `len`, `receive_ready` tells when to try again. Loop
 * thread; takes the lock itself. */
size_t virtio_console_receive(struct virtio_dev *dev, const void *data, size_t len);
/* There is room for what the guest prints. The same. */
void virtio_console_room(struct virtio_dev *dev);

#endif
