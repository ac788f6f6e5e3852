/* Devices whose rings somebody else works (devices/vhost.h): the device before the driver is ours, its requests are not.
 *
 *	blk	virtio 1.2, section 5.2	   a vhost-user back-end, as qemu-storage-daemon
 *	fs	section 5.11		   a vhost-user back-end, as virtiofsd
 *	net	section 5.1		   a vhost-user back-end; or the kernel, on a tap
 *
 * A back-end that is lost leaves the device in NEEDS_RESET, for good; the machine goes on. */
#ifndef HULL_DEVICES_VIRTIO_VHOST_H
#define HULL_DEVICES_VIRTIO_VHOST_H

#include "common/loop.h"
#include "devices/vhost.h"
#include "devices/virtio.h"

#define VIRTIO_VHOST_TAG_MAX	   36 /* bytes, 5.11.4 */
#define VIRTIO_VHOST_FS_QUEUES_MAX 7 /* beside the one for high priority */

/* As Firecracker counts for its vhost-user devices, and one more. */
struct vhost_metrics {
	uint64_t init_time_us, activate_time_us, config_change_time_us; /* how long the last one took */
	uint64_t backend_fails;						/* 1: it is lost */
};

/* Each makes a device of `backend` (taken over, also on failure), which is the loop's to watch. `id` is for messages; copied.
 * `loop` and `mem` are borrowed. NULL with `err` set: no field, but for what is wrong with an argument. */

/* The disk's properties are the back-end's. `flush`: that it may cache writes and be told to write them down is offered. */
struct virtio_dev *virtio_vhost_blk_new(struct vhost *backend, const char *id, bool flush, struct loop *loop,
	const struct gmem *mem, struct error *err);
/* `tag` (1 to VIRTIO_VHOST_TAG_MAX bytes) is what the driver mounts it by; `n_queues` of requests, 1 to
 * VIRTIO_VHOST_FS_QUEUES_MAX. */
struct virtio_dev *virtio_vhost_fs_new(struct vhost *backend, const char *id, const char *tag, uint16_t n_queues,
	struct loop *loop, const struct gmem *mem, struct error *err);
/* `mtu` 0: not offered. */
struct virtio_dev *virtio_vhost_net_new(struct vhost *backend, const char *id, const uint8_t mac[6], uint16_t mtu,
	struct loop *loop, const struct gmem *mem, struct error *err);

const struct vhost_metrics *virtio_vhost_metrics(const struct virtio_dev *dev);

/* Asks the back-end for the configuration space, and tells the driver. Loop thread; takes the device's lock. 0, or -errno with
 * `err` set (no field). */
int virtio_vhost_reread_config(struct virtio_dev *dev, struct error *err);

#endif
