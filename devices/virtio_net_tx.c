/* From the driver to the back-end, or to an interceptor before it. A frame the back-end cannot take goes back into the ring,
 * and the back-end is watched for room. */
#include "devices/virtio_net_device.h"

#include <errno.h>

/* Frames in one go, before others on the loop get their turn. */
#define TX_BUDGET 128

/* Reads the header of n->chain, once, and checks that it asks for nothing that was not negotiated: 1; 0 when
 * the frame is to be dropped; -EINVAL when there is no header. */
static int read_header(struct virtio_net *n, struct net_header *ret)
{
	uint64_t needed = 0;

	if (virtq_chain_read(&n->chain, 0, ret, sizeof(*ret)) < sizeof(*ret))
		return -EINVAL;
	if (n->chain.out_bytes > NET_PACKET_MAX)
		return 0;
	ret->num_buffers = 0;
	if (ret->flags & NET_HEADER_NEEDS_CSUM)
		needed |= NET_BIT(NET_F_CSUM);
	ret->flags &= NET_HEADER_NEEDS_CSUM;
	switch (ret->gso_type) {
	case NET_GSO_NONE:
		break;
	case NET_GSO_TCPV4:
		needed |= NET_BIT(NET_F_HOST_TSO4);
		break;
	case NET_GSO_TCPV6:
		needed |= NET_BIT(NET_F_HOST_TSO6);
		break;
	default: /* UDP fragmentation and ECN are not offered */
		return 0;
	}
	return (n->dev.driver_features & needed) == needed;
}

/* Whether the interceptor takes n->chain. The frame is judged by a copy of its beginning, and by this copy it is sent on,
 * too: what the driver writes there meanwhile brings no frame past the interceptor. */
static bool divert(struct virtio_net *n, const struct net_header *header)
{
	struct net_interceptor *interceptor = n->interceptor;
	size_t len;

	n->sent_head = 0;
	if (!interceptor)
		return false;
	len = n->sent_head = virtq_chain_read(&n->chain, sizeof(*header), n->sent, NET_INTERCEPTOR_HEAD_BYTES);
	if (!interceptor->ops->wants(interceptor, n->sent, len))
		return false;
	len += virtq_chain_read(&n->chain, sizeof(*header) + len, n->sent + len, sizeof(n->sent) - len);
	interceptor->ops->take(interceptor, n->sent, len, header->flags & NET_HEADER_NEEDS_CSUM, monotonic_ns());
	return true;
}

/* n->chain to the back-end, its first bytes from n->sent. As send_one(). */
static int send_to_backend(struct virtio_net *n, struct net_header *header)
{
	size_t sent = sizeof(*header) + n->sent_head;
	struct iovec iov[2 + VIRTQ_IOV_MAX];
	int r, pieces = 1;

	if (!n->backend) {
		metric_inc(&n->metrics.tx_fails);
		return 0;
	}
	iov[0] = (struct iovec){header, sizeof(*header)};
	if (n->sent_head)
		iov[pieces++] = (struct iovec){n->sent, n->sent_head};
	pieces += virtq_chain_slice(&n->chain, sent, n->chain.out_bytes - sent, iov + pieces);
	r = n->backend->ops->send(n->backend, iov, pieces);
	if (r < 0 && r != -EAGAIN) {
		metric_inc(&n->metrics.tap_write_fails);
		net_link_lost(n, -r);
		return 0;
	}
	if (r == 0) {
		metric_inc(&n->metrics.tx_count);
		metric_inc(&n->metrics.tx_packets_count);
		metric_add(&n->metrics.tx_bytes_count, n->chain.out_bytes - sizeof(*header));
	}
	return r;
}

/* n->chain: 0 sent, taken or dropped; -EAGAIN not now, as the back-end is full; -EBUSY not now, by the limits; -EINVAL the
 * driver broke the rules. */
static int send_one(struct virtio_net *n)
{
	struct net_header header;
	int r = read_header(n, &header);

	if (r <= 0)
		metric_inc(&n->metrics.tx_malformed_frames);
	if (r < 0)
		return r;
	if (r > 0 && divert(n, &header))
		return 0; /* never was on the way to the back-end, whose limits do not count it */
	if (net_is_limited(n, &n->tx_limiter, &n->metrics.tx_rate_limiter_throttled))
		return -EBUSY;
	r = r > 0 ? send_to_backend(n, &header) : 0;
	if (r == 0)
		net_charge(&n->tx_limiter, n->chain.out_bytes - sizeof(header));
	return r;
}

void net_pump_tx(struct virtio_net *n)
{
	struct virtq *tx = &n->dev.queues[NET_QUEUE_TX];
	int budget = TX_BUDGET, r;

	if (!tx->ready || n->tx_blocked)
		return;
	virtq_disable_doorbell(tx);
	for (;;) {
		if (!budget--) {
			loop_kick(&n->kick);
			return;
		}
		r = virtq_pop_or_arm(tx, &n->chain);
		if (r == 0)
			return;
		if (r > 0)
			r = send_one(n);
		if (r == -EAGAIN || r == -EBUSY) {
			virtq_unpop(tx, 1); /* the doorbell stays silent until then */
			n->tx_blocked = r == -EAGAIN;
			return;
		}
		if (r < 0 || virtq_push(tx, n->chain.head, 0) < 0) {
			virtio_dev_broken(&n->dev, "malformed frame in the transmit queue");
			return;
		}
		n->tx_used = true;
	}
}
