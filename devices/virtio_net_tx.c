/* From the driver to the back-end, or to an interceptor before it. A frame the back-end cannot take goes back into the ring,
 * and the back-end is watched for room. */
#include "devices/virtio_net_device.h"

#include "common/accounting.h"

#include <errno.h>

/* Frames in one go, before others on the loop get their turn. */
#define TX_BUDGET 128

/* Reads the header of p->chain, once, and checks that it asks for nothing that was not negotiated: 1; 0 when
 * the frame is to be dropped; -EINVAL when there is no header. */
static int read_header(struct net_pair *p, struct net_header *ret)
{
	uint64_t needed = 0;

	if (virtq_chain_read(&p->chain, 0, ret, sizeof(*ret)) < sizeof(*ret))
		return -EINVAL;
	if (p->chain.out_bytes > NET_PACKET_MAX)
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
	return (p->n->dev.driver_features & needed) == needed;
}

/* Whether the interceptor takes p->chain. The frame is judged by a copy of its beginning, and by this copy it is sent on,
 * too: what the driver writes there meanwhile brings no frame past the interceptor. */
static bool divert(struct net_pair *p, const struct net_header *header)
{
	struct net_interceptor *interceptor = p->n->interceptor;
	size_t len;

	p->sent_head = 0;
	if (!interceptor)
		return false;
	len = p->sent_head = virtq_chain_read(&p->chain, sizeof(*header), p->sent, NET_INTERCEPTOR_HEAD_BYTES);
	if (!interceptor->ops->wants(interceptor, p->sent, len))
		return false;
	len += virtq_chain_read(&p->chain, sizeof(*header) + len, p->sent + len, sizeof(p->sent) - len);
	interceptor->ops->take(interceptor, p->sent, len, header->flags & NET_HEADER_NEEDS_CSUM, monotonic_ns());
	return true;
}

/* p->chain to the back-end, its first bytes from p->sent. As send_one(). */
static int send_to_backend(struct net_pair *p, struct net_header *header)
{
	size_t sent = sizeof(*header) + p->sent_head;
	struct iovec iov[2 + VIRTQ_IOV_MAX];
	int r, pieces = 1;

	if (!p->backend || !p->attached) {
		metric_inc(&p->n->metrics.tx_fails);
		return 0;
	}
	iov[0] = (struct iovec){header, sizeof(*header)};
	if (p->sent_head)
		iov[pieces++] = (struct iovec){p->sent, p->sent_head};
	pieces += virtq_chain_slice(&p->chain, sent, p->chain.out_bytes - sent, iov + pieces);
	r = p->backend->ops->send(p->backend, iov, pieces);
	if (r < 0 && r != -EAGAIN) {
		metric_inc(&p->n->metrics.tap_write_fails);
		net_link_lost(p, -r);
		return 0;
	}
	if (r == 0) {
		metric_inc(&p->n->metrics.tx_count);
		metric_inc(&p->n->metrics.tx_packets_count);
		metric_add(&p->n->metrics.tx_bytes_count, p->chain.out_bytes - sizeof(*header));
		metric_inc(&accounting->net_sent_packets);
		metric_add(&accounting->net_sent_bytes, p->chain.out_bytes - sizeof(*header));
	}
	return r;
}

/* p->chain: 0 sent, taken or dropped; -EAGAIN not now, as the back-end is full; -EBUSY not now, by the limits; -EINVAL the
 * driver broke the rules. */
static int send_one(struct net_pair *p)
{
	struct net_header header;
	int r = read_header(p, &header);

	if (r <= 0)
		metric_inc(&p->n->metrics.tx_malformed_frames);
	if (r < 0)
		return r;
	if (r > 0 && divert(p, &header))
		return 0; /* never was on the way to the back-end, whose limits do not count it */
	if (net_is_limited(p, &p->n->tx_limiter, &p->n->metrics.tx_rate_limiter_throttled))
		return -EBUSY;
	r = r > 0 ? send_to_backend(p, &header) : 0;
	if (r == 0)
		net_charge(p, &p->n->tx_limiter, p->chain.out_bytes - sizeof(header));
	return r;
}

void net_pump_tx(struct net_pair *p)
{
	struct virtq *tx = p->tx;
	int budget = TX_BUDGET, r;

	if (!tx->ready || p->tx_blocked)
		return;
	virtq_disable_doorbell(tx);
	for (;;) {
		if (!budget--) {
			loop_kick(&p->kick);
			return;
		}
		r = virtq_pop_or_arm(tx, &p->chain);
		if (r == 0)
			return;
		if (r > 0)
			r = send_one(p);
		if (r == -EAGAIN || r == -EBUSY) {
			virtq_unpop(tx, 1); /* the doorbell stays silent until then */
			p->tx_blocked = r == -EAGAIN;
			return;
		}
		if (r < 0 || virtq_push(tx, p->chain.head, 0) < 0) {
			queue_group_broken(&p->group, "malformed frame in the transmit queue");
			return;
		}
		p->tx_used = true;
	}
}
