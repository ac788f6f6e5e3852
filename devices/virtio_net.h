/* virtio-net (virtio 1.2, section 5.1), one queue pair or several, over a back-end that moves Ethernet frames. */
#ifndef HULL_DEVICES_VIRTIO_NET_H
#define HULL_DEVICES_VIRTIO_NET_H

#include "common/loop.h"
#include "devices/rate_limiter.h"
#include "devices/virtio.h"

struct net_interceptor;

#define NET_PAIRS_MAX 8

enum net_backend_kind {
	NET_BACKEND_TAP,    /* a tap descriptor with IFF_VNET_HDR: offloads pass through */
	NET_BACKEND_STREAM, /* passt's (QEMU's) stream socket: each frame behind its length, 32 bits big-endian */
};

struct virtio_net_config {
	const char *id; /* for messages; copied */
	enum net_backend_kind kind;
	/* How many pairs of queues, up to NET_PAIRS_MAX; 0 is 1. With more, which only a tap has, each has a thread and a descriptor of
	 * the tap's, and a transport with kick_fd and call_fd is needed. */
	uint16_t n_pairs;
	int fds[NET_PAIRS_MAX]; /* one a pair; taken over, also on failure */
	uint8_t mac[6];
	uint16_t mtu; /* 0: not offered */
	struct net_interceptor *interceptor; /* devices/net_interceptor.h; taken over, also on failure; NULL: none. For one pair only */
	const struct rate_limiter_config *rx_limiter, *tx_limiter; /* borrowed for the call; NULL: none. Of frames' bytes */
};

/* As Firecracker counts: rx is towards the guest. A frame is a packet; its bytes are Ethernet's. */
struct net_metrics {
	uint64_t rx_queue_event_count, tx_queue_event_count; /* doorbells */
	uint64_t rx_tap_event_count;
	uint64_t no_rx_avail_buffer; /* frames had to wait for the driver */
	uint64_t rx_count, rx_packets_count, rx_bytes_count;
	uint64_t rx_fails; /* larger than all buffers: dropped */
	uint64_t tx_count, tx_packets_count, tx_bytes_count;
	uint64_t tx_malformed_frames;
	uint64_t tx_fails; /* the link was down, or the pair not one that is used: dropped */
	uint64_t tap_read_fails, tap_write_fails;
	uint64_t rx_rate_limiter_throttled, tx_rate_limiter_throttled; /* a frame had to wait for a limit */
};

/* Attaches to the tap interface `name` (created when absent and permitted), to a further queue of it with `several`; or duplicates that
 * of one queue that this process was started with, whose name is /dev/fd/N. Descriptor, or -errno with `err` set. */
int virtio_net_open_tap(const char *name, bool several, struct error *err);
/* Connects to the Unix socket `path`, or duplicates a connected one that this process was started with, whose path is /dev/fd/N.
 * Non-blocking descriptor, or -errno with `err` set. */
int virtio_net_open_stream(const char *path, struct error *err);
/* NULL with `err` set. */
struct virtio_dev *virtio_net_new(
	const struct virtio_net_config *config, struct loop *loop, const struct gmem *mem, struct error *err);

const struct net_metrics *virtio_net_metrics(const struct virtio_dev *dev);

/* As rate_limiter_update(); NULL leaves one as it is. Loop thread; takes the device's lock. */
void virtio_net_set_limiters(
	struct virtio_dev *dev, const struct rate_limiter_config *rx, const struct rate_limiter_config *tx);

#endif
