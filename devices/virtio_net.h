/* virtio-net (virtio 1.2, section 5.1), one queue pair, over a back-end that moves Ethernet frames. */
#ifndef HULL_DEVICES_VIRTIO_NET_H
#define HULL_DEVICES_VIRTIO_NET_H

#include "common/loop.h"
#include "devices/virtio.h"

enum net_backend_kind {
	NET_BACKEND_TAP,    /* a tap descriptor with IFF_VNET_HDR: offloads pass through */
	NET_BACKEND_STREAM, /* passt's (QEMU's) stream socket: each frame behind its length, 32 bits big-endian */
};

struct virtio_net_config {
	const char *id; /* for messages; copied */
	enum net_backend_kind kind;
	int fd; /* taken over, also on failure */
	uint8_t mac[6];
	uint16_t mtu; /* 0: not offered */
};

/* Attaches to the tap interface `name` (created when absent and permitted). Descriptor, or -errno with `err` set. */
int virtio_net_open_tap(const char *name, struct error *err);
/* NULL with `err` set. */
struct virtio_dev *virtio_net_new(
	const struct virtio_net_config *config, struct loop *loop, const struct gmem *mem, struct error *err);

#endif
