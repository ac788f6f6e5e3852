/* The virtio-net device from inside, shared by its parts:
 *
 *	virtio_net.c		the device's life, and its link
 *	virtio_net_control.c	the control queue, and how many pairs the driver uses
 *	virtio_net_pair.c	a pair of queues, and when it works
 *	virtio_net_rx.c		from the back-end to the driver
 *	virtio_net_tx.c		from the driver to the back-end
 *
 * With one pair all is done on the loop thread with the device's lock. With several, each is a group of its own
 * (devices/queue_group.h) with a queue of the tap's; the control queue is the loop thread's. Every function here that has a
 * pair: on the pair's thread, with its lock, where it does not say otherwise. */
#ifndef HULL_DEVICES_VIRTIO_NET_DEVICE_H
#define HULL_DEVICES_VIRTIO_NET_DEVICE_H

#include "devices/loop_kick.h"
#include "devices/net_backend.h"
#include "devices/net_interceptor.h"
#include "devices/queue_group.h"
#include "devices/virtio_net.h"
#include "devices/virtq_batch.h"

#define NET_BIT(n) (1ull << (n))

/* What to expect of a frame while none has been larger: with merged buffers, how many to pop. */
#define NET_RX_SMALL (NET_HEADER_BYTES + 2048)

_Static_assert(sizeof(struct net_header) == NET_HEADER_BYTES, "virtio 1.2, 5.1.6");

/* 5.1.2: receive and transmit queue of the first pair, of the second …, then the control queue. */
enum { NET_QUEUE_RX, NET_QUEUE_TX, NET_QUEUES };

struct virtio_net;

struct net_pair {
	struct virtio_net *n;
	struct queue_group group;
	struct virtq *rx, *tx;	     /* the device's */
	struct loop_kick kick;	     /* in the group's loop */
	struct net_backend *backend; /* NULL: the link is down, for good */
	struct loop_source *source;  /* of backend->fd; NULL with it */
	bool attached;		     /* the driver uses the pair: frames come from the back-end, and go there */
	int lost_errnum;	     /* with a thread: why the back-end is gone, until the loop thread knows */
	bool rx_starved;       /* there is no buffer for the next frame: until the driver rings */
	bool tx_blocked;       /* the back-end is full: until it is writable */
	bool rx_limited;       /* what the host has is left there: until the limiter's delay is over */
	struct loop_source *timer;	     /* a limiter's delay is over, or the interceptor's */
	uint64_t limit_delay_ns;	     /* the limiters', of this round; UINT64_MAX: none */
	bool rx_used, tx_used; /* pushed to since the last interrupt */

	size_t rx_expected; /* bytes of buffers to have at hand */
	bool rx_large;	    /* this round had a frame for which that was too little: the next will, streams being what they are */
	size_t pending;     /* bytes of a frame in `spare` that waits for buffers; 0: none */
	uint8_t spare[NET_PACKET_MAX];
	size_t sent_head; /* bytes of the frame in hand that were copied to `sent`, for the interceptor to see */
	uint8_t sent[NET_FRAME_MAX];
	struct virtq_batch batch;
	struct virtq_chain chain;
};

struct virtio_net {
	struct virtio_dev dev;
	struct virtio_ops ops; /* of its own: how many queues it has is not the kind's to say */
	char *id; /* owned */
	struct loop *loop; /* borrowed */
	bool link_up;
	uint64_t offloads; /* what the back-end could pass through when it was there: offers do not change */
	uint8_t mac[6];
	uint16_t mtu;
	struct net_interceptor *interceptor; /* owned; may be NULL, and is beside several pairs */
	uint16_t n_pairs;
	struct net_pair *pairs;

	/* With several pairs. */
	uint16_t pairs_used; /* as the driver has said; 1 until then */
	struct loop_kick control_kick; /* to the loop thread: a link may be lost, or the control queue have work */
	struct virtq_chain command;

	pthread_mutex_t limiter_lock; /* for those who have a pair's lock, and only where a limit is on; a leaf */
	struct rate_limiter rx_limiter, tx_limiter;
	struct net_metrics metrics;
};

/* ---- pairs ---- */

/* One with a thread of its own, if `thread_name` is given, and `backend`, which is taken over, also on failure. 0 or -errno; to be
 * ended by net_pair_done() either way. Loop thread, without locks. */
int net_pair_init(struct net_pair *p, struct virtio_net *n, uint16_t index, const char *thread_name, struct net_backend *backend);
void net_pair_done(struct net_pair *p);

/* With the device's lock held, the group's not, on any thread. The device has become active, or goes on; */
void net_pair_start(struct net_pair *p);
/* is to leave the rings alone, `for_good`: its driver is no more; */
void net_pair_rest(struct net_pair *p, bool for_good);
/* the driver uses the pair, or does not. 0, or -errno when the back-end cannot be used so; that it can be left alone is certain. */
int net_pair_attach(struct net_pair *p, bool attach);

/* The driver has rung; as queue_group_fn. */
void net_pair_work(void *ctx, uint16_t q, bool rang);

/* Moves what can be moved, one queue each; `rx_used` and `tx_used` say whether the driver is to be told. */
void net_pump_rx(struct net_pair *p);
void net_pump_tx(struct net_pair *p);

/* The back-end is gone, for the reason `errnum`. */
void net_link_lost(struct net_pair *p, int errnum);

/* Whether a limit forbids the next frame; then it is counted in `throttled`, and the pair is called again when it does
 * not. */
bool net_is_limited(struct net_pair *p, struct rate_limiter *limiter, uint64_t *throttled);
void net_charge(struct net_pair *p, struct rate_limiter *limiter, size_t frame_bytes);

/* ---- the device; loop thread, with its lock held ---- */

/* Says that the link is down. */
void net_link_down(struct virtio_net *n, int errnum);

/* ---- the control queue, 5.1.6.5; with the device's lock held ---- */

static inline bool net_has_control(const struct virtio_net *n)
{
	return virtio_dev_negotiated(&n->dev, NET_F_CTRL_VQ);
}

/* 5.1.2: behind the pairs, of which there is one unless the driver knows of more. */
static inline uint16_t net_control_queue(const struct virtio_net *n)
{
	return NET_QUEUES * (virtio_dev_negotiated(&n->dev, NET_F_MQ) ? n->n_pairs : 1);
}

/* Answers all commands there are. Loop thread. */
void net_control_work(struct virtio_net *n);
/* The first `pairs` pairs are used, the others are not. 0; or -errno, which 1 never is, and all is as before. Any thread. */
int net_control_use(struct virtio_net *n, uint16_t pairs);

#endif
