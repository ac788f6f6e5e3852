/* What moves virtio-net's frames on the host: a tap, one queue of it, or a stream socket. Called with the lock held of the pair of
 * queues whose it is, on its thread.
 *
 * A frame is, on both sides of this table, what lies in the guest's buffers: a virtio_net_hdr of
 * NET_HEADER_BYTES (virtio 1.2, section 5.1.6), then an Ethernet frame of at most NET_FRAME_MAX bytes. */
#ifndef HULL_DEVICES_NET_BACKEND_H
#define HULL_DEVICES_NET_BACKEND_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NET_HEADER_BYTES 12
/* The largest IP packet behind an Ethernet header with one VLAN tag: what segmentation offload comes to. */
#define NET_FRAME_MAX  (65535 + 18)
#define NET_PACKET_MAX (NET_HEADER_BYTES + NET_FRAME_MAX)

/* Feature bits, 5.1.3, of those we know. (<linux/virtio_net.h> has a struct virtio_net_config of its own.) */
enum net_feature {
	NET_F_CSUM = 0,       /* the driver may leave checksums to us */
	NET_F_GUEST_CSUM = 1, /* and we to it */
	NET_F_MTU = 3,
	NET_F_MAC = 5,
	NET_F_GUEST_TSO4 = 7, /* the driver takes TCP segments larger than the MTU */
	NET_F_GUEST_TSO6 = 8,
	NET_F_HOST_TSO4 = 11, /* and may send them */
	NET_F_HOST_TSO6 = 12,
	NET_F_MRG_RXBUF = 15, /* a received frame may span several buffers */
	NET_F_STATUS = 16,
	NET_F_CTRL_VQ = 17,
	NET_F_MQ = 22, /* several pairs of queues */
};

/* struct virtio_net_hdr of a VERSION_1 driver, little-endian. */
struct net_header {
	uint8_t flags;    /* NET_HEADER_* */
	uint8_t gso_type; /* NET_GSO_* */
	uint16_t hdr_len, gso_size, csum_start, csum_offset;
	uint16_t num_buffers;
};

#define NET_HEADER_NEEDS_CSUM 1

enum { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_TCPV6 = 4 };

struct net_backend;

struct net_backend_ops {
	/* The offloads it passes through, as bits of enum net_feature. */
	uint64_t features;
	/* The driver has chosen among them. 0 or -errno. Any thread, as the next. */
	int (*set_features)(struct net_backend *backend, uint64_t driver_features);
	/* For one of several queues: frames come by it, and may go by it, or not. At first they do. 0 or -errno. */
	int (*attach)(struct net_backend *backend, bool attach);
	/* The next frame into `iov`, which has room for NET_PACKET_MAX bytes: its length with the header
	 * (num_buffers is left to the caller), 0 when what came was noise, -EAGAIN when there is none,
	 * another -errno when the link is lost. */
	ssize_t (*receive)(struct net_backend *backend, const struct iovec *iov, int n);
	/* Sends one frame; iov[0] is the header. 0 also when the frame was dropped, as networks do; -EAGAIN:
	 * not now, nothing was taken, call again when the descriptor is writable; another -errno when the
	 * link is lost. */
	int (*send)(struct net_backend *backend, const struct iovec *iov, int n);
	/* Goes on with a frame that was sent by half. 0, -EAGAIN (the descriptor is to be watched), or the
	 * link is lost. */
	int (*flush)(struct net_backend *backend);
	/* Closes the descriptor. */
	void (*free)(struct net_backend *backend);
};

struct net_backend {
	const struct net_backend_ops *ops;
	int fd; /* owned, non-blocking */
};

/* A path that names a descriptor which this process was started with; and a duplicate of that, or -errno with `err` set. */
#define NET_GIVEN_FOLDER "/dev/fd/"
bool net_is_given(const char *path);
int net_open_given(const char *path, struct error *err);

/* Each takes `fd` over, also on failure. NULL with `err` set. */
struct net_backend *net_tap_new(int fd, struct error *err);
struct net_backend *net_stream_new(int fd, struct error *err);

#endif
