/* From the driver to the back-end. A frame the back-end cannot take goes back into the ring, and the back-end is watched for
 * room. */
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

/* n->chain: 0 sent or dropped, -EAGAIN not now, -EINVAL the driver broke the rules. */
static int send_one(struct virtio_net *n)
{
	struct net_header header;
	struct iovec iov[1 + VIRTQ_IOV_MAX];
	int r = read_header(n, &header), pieces;

	if (r <= 0)
		metric_inc(&n->metrics.tx_malformed_frames);
	if (r < 0)
		return r;
	if (r == 0)
		return 0;
	if (!n->backend) {
		metric_inc(&n->metrics.tx_fails);
		return 0;
	}
	iov[0] = (struct iovec){&header, sizeof(header)};
	pieces = virtq_chain_slice(&n->chain, sizeof(header), n->chain.out_bytes - sizeof(header), iov + 1);
	r = n->backend->ops->send(n->backend, iov, 1 + pieces);
	if (r < 0 && r != -EAGAIN) {
		metric_inc(&n->metrics.tap_write_fails);
		net_link_lost(n, -r);
		return 0;
	}
	if (r == 0) {
		metric_inc(&n->metrics.tx_count);
		metric_inc(&n->metrics.tx_packets_count);
		metric_add(&n->metrics.tx_bytes_count, n->chain.out_bytes - sizeof(header));
	}
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
		if (virtq_has_work(tx) && net_is_limited(n, &n->tx_limiter, &n->metrics.tx_rate_limiter_throttled))
			return; /* the doorbell stays silent until then */
		r = virtq_pop_or_arm(tx, &n->chain);
		if (r == 0)
			return;
		if (r > 0)
			r = send_one(n);
		if (r == 0)
			net_charge(&n->tx_limiter, n->chain.out_bytes - NET_HEADER_BYTES);
		if (r == -EAGAIN) {
			virtq_unpop(tx, 1);
			n->tx_blocked = true;
			return;
		}
		if (r < 0 || virtq_push(tx, n->chain.head, 0) < 0) {
			virtio_dev_broken(&n->dev, "malformed frame in the transmit queue");
			return;
		}
		n->tx_used = true;
	}
}
