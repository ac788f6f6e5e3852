/* From an interceptor, and from the back-end, to the driver. Frames go straight into the driver's buffers, with a spare buffer of ours behind them: a
 * frame that turns out longer than what the driver has provided ends there, is kept whole as `pending`, and is delivered
 * when there are buffers (or dropped when no number of them would do). Without any buffer the back-end is not watched: it
 * is the host's queue that fills then. */
#include "devices/virtio_net_device.h"

#include "common/accounting.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* Frames in one go, before others on the loop get their turn. */
#define RX_BUDGET 64

static bool merges(const struct net_pair *p)
{
	return virtio_dev_negotiated(&p->n->dev, NET_F_MRG_RXBUF);
}

/* Gets receive buffers for `bytes` at hand, or for as many as there are. 0, -errno when the driver broke the
 * rules. */
static int get_buffers(struct net_pair *p, size_t bytes)
{
	struct virtq *rx = p->rx;
	uint16_t chains = merges(p) ? VIRTQ_BATCH_CHAINS_MAX : 1;
	int r = virtq_batch_fill(&p->batch, chains, bytes);

	/* The batch may be full of chains that are taken: then begin another. */
	if (r == 0 && p->batch.taken && p->batch.bytes < bytes && p->batch.n - p->batch.taken < chains &&
	        virtq_has_work(rx)) {
		virtq_batch_return(&p->batch);
		virtq_batch_begin(&p->batch, rx, 0);
		r = virtq_batch_fill(&p->batch, chains, bytes);
	}
	if (r == 0 && p->batch.n > p->batch.taken && p->batch.chains[p->batch.taken].bytes < NET_HEADER_BYTES)
		return -EINVAL; /* 5.1.6.3.1: each buffer holds the header at least */
	return r;
}

/* Whether the driver can ever have more for one frame at hand than now. */
static bool can_get_more(struct net_pair *p)
{
	struct virtq *rx = p->rx;

	return merges(p) && !virtq_has_work(rx) && p->batch.n - p->batch.taken < rx->size;
}

/* The first `len` bytes of the batch are a frame: gives it to the driver. 0 or -EFAULT. */
static int complete_frame(struct net_pair *p, size_t len)
{
	uint16_t first = p->batch.taken, n_buffers = 0, le;
	size_t left;

	for (left = len; left; n_buffers++)
		left -= left < p->batch.chains[first + n_buffers].bytes
		                ? left
		                : p->batch.chains[first + n_buffers].bytes;
	/* num_buffers is ours to set, 1 also without merging (5.1.6.4.1); the tap knows nothing of it. */
	le = htole16(n_buffers);
	virtq_batch_write_head(&p->batch, first, offsetof(struct net_header, num_buffers), &le, sizeof(le));
	if (!virtio_dev_negotiated(&p->n->dev, NET_F_GUEST_CSUM))
		virtq_batch_write_head(&p->batch, first, offsetof(struct net_header, flags), "", 1);
	for (left = len; left;) {
		uint32_t room = p->batch.chains[p->batch.taken].bytes;
		uint32_t part = left < room ? (uint32_t)left : room;

		left -= part;
		if (virtq_batch_take(&p->batch, part, left > 0) < 0)
			return -EFAULT;
	}
	p->rx_used = true;
	metric_inc(&p->n->metrics.rx_count);
	metric_inc(&p->n->metrics.rx_packets_count);
	metric_add(&p->n->metrics.rx_bytes_count, len - NET_HEADER_BYTES);
	metric_inc(&accounting->net_received_packets);
	metric_add(&accounting->net_received_bytes, len - NET_HEADER_BYTES);
	return 0;
}

/* Copies what is pending into the batch, which has room for it. */
static void copy_pending(struct net_pair *p)
{
	uint16_t pieces;
	struct iovec *iov = virtq_batch_iov(&p->batch, &pieces);

	for (size_t at = 0; at < p->pending; iov++) {
		size_t part = p->pending - at < iov->iov_len ? p->pending - at : iov->iov_len;

		memcpy(iov->iov_base, p->spare + at, part);
		at += part;
	}
}

/* The frame's beginning lies in the batch, its end in the spare buffer behind: makes it whole there. */
static void keep_pending(struct net_pair *p, size_t len)
{
	uint16_t pieces;
	struct iovec *iov = virtq_batch_iov(&p->batch, &pieces);
	size_t at = 0;

	for (uint16_t i = 0; i < pieces; at += iov[i++].iov_len)
		memcpy(p->spare + at, iov[i].iov_base, iov[i].iov_len);
	p->pending = len;
}

/* Reads one frame into the buffers at hand, the spare one behind them. As net_backend_ops.receive. */
static ssize_t receive(struct net_pair *p)
{
	uint16_t pieces;
	struct iovec *iov = virtq_batch_iov(&p->batch, &pieces);
	size_t room = p->batch.bytes;

	if (room < sizeof(p->spare))
		iov[pieces++] = (struct iovec){p->spare + room, sizeof(p->spare) - room};
	return p->backend->ops->receive(p->backend, iov, pieces);
}

/* Has a frame of the interceptor's wait in `spare`, if there is one. */
static bool ask_interceptor(struct net_pair *p)
{
	struct net_interceptor *interceptor = p->n->interceptor;
	size_t len = interceptor ? interceptor->ops->next(interceptor, p->spare + NET_HEADER_BYTES, monotonic_ns()) : 0;

	if (!len)
		return false;
	memset(p->spare, 0, NET_HEADER_BYTES);
	p->pending = NET_HEADER_BYTES + len;
	net_charge(p, &p->n->rx_limiter, len);
	return true;
}

/* Gets a frame, the interceptor's before the back-end's: 1 when it was delivered, was noise or is `pending` now; 0 when there
 * is none; -EFAULT for a broken driver. */
static int get_frame(struct net_pair *p)
{
	ssize_t got;

	if (ask_interceptor(p))
		return 1;
	if (!p->backend)
		return 0;
	got = receive(p);
	if (got == -EAGAIN)
		return 0;
	if (got < 0) {
		metric_inc(&p->n->metrics.tap_read_fails);
		net_link_lost(p, (int)-got);
		return 0;
	}
	if ((size_t)got > NET_RX_SMALL) {
		p->rx_expected = NET_PACKET_MAX;
		p->rx_large = true;
	}
	if ((size_t)got <= NET_HEADER_BYTES)
		return 1;
	net_charge(p, &p->n->rx_limiter, (size_t)got - NET_HEADER_BYTES);
	if ((size_t)got <= p->batch.bytes)
		return complete_frame(p, (size_t)got) < 0 ? -EFAULT : 1;
	keep_pending(p, (size_t)got);
	return 1;
}

/* Delivers what is pending, as receive_one(). */
static int deliver_pending(struct net_pair *p)
{
	size_t len = p->pending;
	int r = get_buffers(p, len);

	if (r < 0)
		return r;
	if (len <= p->batch.bytes) {
		copy_pending(p);
		p->pending = 0;
		return complete_frame(p, len) < 0 ? -EFAULT : 1;
	}
	if (can_get_more(p)) {
		metric_inc(&p->n->metrics.no_rx_avail_buffer);
		p->rx_starved = true;
		return 0;
	}
	metric_inc(&p->n->metrics.rx_fails);
	p->pending = 0; /* larger than all the driver can hold: dropped */
	return 1;
}

/* One frame: 1 when one was moved or dropped, 0 when there is none or no buffer, -EFAULT/-EINVAL for a broken
 * driver. */
static int receive_one(struct net_pair *p)
{
	int r = get_buffers(p, p->pending ? p->pending : p->rx_expected);

	if (r < 0)
		return r;
	if (p->batch.n == p->batch.taken) {
		metric_inc(&p->n->metrics.no_rx_avail_buffer);
		p->rx_starved = true;
		return 0;
	}
	if (!p->pending) {
		p->rx_limited = net_is_limited(p, &p->n->rx_limiter, &p->n->metrics.rx_rate_limiter_throttled);
		if (p->rx_limited)
			return 0;
		r = get_frame(p);
	}
	return p->pending ? deliver_pending(p) : r;
}

void net_pump_rx(struct net_pair *p)
{
	struct virtq *rx = p->rx;
	int budget = RX_BUDGET, r = 1;

	if (!rx->ready || !p->attached || p->rx_starved)
		return;
	p->rx_large = false;
	p->rx_expected = merges(p) ? p->rx_expected : 1;
	virtq_disable_doorbell(rx);
	virtq_batch_begin(&p->batch, rx, 0);
	while (r > 0 && budget--) {
		r = receive_one(p);
		if (r == 0 && p->rx_starved) {
			/* The driver is to ring; unless it has added some meanwhile. */
			virtq_enable_doorbell(rx);
			if (!virtq_has_work(rx))
				break;
			virtq_disable_doorbell(rx);
			p->rx_starved = false;
			r = 1;
		}
	}
	if (r < 0) {
		queue_group_broken(&p->group, "malformed buffer in the receive queue");
		return;
	}
	virtq_batch_return(&p->batch);
	if (r > 0)
		loop_kick(&p->kick); /* the budget is used up; there may be frames that no event tells of */
	else if (!p->rx_large)
		p->rx_expected = NET_RX_SMALL;
}
