/* The virtio-net device from inside, shared by its three parts:
 *
 *	virtio_net.c	the device's life, its link, and when it works
 *	virtio_net_rx.c	from the back-end to the driver
 *	virtio_net_tx.c	from the driver to the back-end
 *
 * Every function here: loop thread, with the device's lock. */
#ifndef HULL_DEVICES_VIRTIO_NET_DEVICE_H
#define HULL_DEVICES_VIRTIO_NET_DEVICE_H

#include "devices/loop_kick.h"
#include "devices/net_backend.h"
#include "devices/net_interceptor.h"
#include "devices/virtio_net.h"
#include "devices/virtq_batch.h"

#define NET_BIT(n) (1ull << (n))

/* What to expect of a frame while none has been larger: with merged buffers, how many to pop. */
#define NET_RX_SMALL (NET_HEADER_BYTES + 2048)

_Static_assert(sizeof(struct net_header) == NET_HEADER_BYTES, "virtio 1.2, 5.1.6");

enum { NET_QUEUE_RX, NET_QUEUE_TX, NET_QUEUES };

struct virtio_net {
	struct virtio_dev dev;
	char *id; /* owned */
	struct loop_kick kick;
	struct net_backend *backend; /* NULL: the link is down, for good */
	struct loop_source *source;  /* of backend->fd; NULL with it */
	uint64_t offloads; /* what the back-end could pass through when it was there: offers do not change */
	uint8_t mac[6];
	uint16_t mtu;
	bool quiet;            /* between quiesce() and resume() */
	bool rx_starved;       /* there is no buffer for the next frame: until the driver rings */
	bool tx_blocked;       /* the back-end is full: until it is writable */
	bool rx_limited;       /* what the host has is left there: until the limiter's delay is over */
	struct rate_limiter rx_limiter, tx_limiter;
	struct net_interceptor *interceptor; /* owned; may be NULL */
	struct loop_source *timer;	     /* a limiter's delay is over, or the interceptor's */
	uint64_t limit_delay_ns;	     /* the limiters', of this round; UINT64_MAX: none */
	bool rx_used, tx_used; /* pushed to since the last interrupt */
	struct net_metrics metrics;

	size_t rx_expected; /* bytes of buffers to have at hand */
	bool rx_large;	    /* this round had a frame for which that was too little: the next will, streams being what they are */
	size_t pending;     /* bytes of a frame in `spare` that waits for buffers; 0: none */
	uint8_t spare[NET_PACKET_MAX];
	size_t sent_head; /* bytes of the frame in hand that were copied to `sent`, for the interceptor to see */
	uint8_t sent[NET_FRAME_MAX];
	struct virtq_batch batch;
	struct virtq_chain chain;
};

/* Moves what can be moved, one queue each; `rx_used` and `tx_used` say whether the driver is to be told. */
void net_pump_rx(struct virtio_net *n);
void net_pump_tx(struct virtio_net *n);

/* The back-end is gone, for the reason `errnum`. */
void net_link_lost(struct virtio_net *n, int errnum);

/* Whether a limit forbids the next frame; then it is counted in `throttled`, and the device is called again when it does
 * not. */
bool net_is_limited(struct virtio_net *n, struct rate_limiter *limiter, uint64_t *throttled);

static inline void net_charge(struct rate_limiter *limiter, size_t frame_bytes)
{
	if (rate_limiter_is_on(limiter))
		rate_limiter_charge(limiter, frame_bytes, monotonic_ns());
}

#endif
