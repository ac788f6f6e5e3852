/* From an interceptor, and from the back-end, to the driver. Frames go straight into the driver's buffers, with a spare buffer of ours behind them: a
 * frame that turns out longer than what the driver has provided ends there, is kept whole as `pending`, and is delivered
 * when there are buffers (or dropped when no number of them would do). Without any buffer the back-end is not watched: it
 * is the host's queue that fills then. */
#include "devices/virtio_net_device.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* Frames in one go, before others on the loop get their turn. */
#define RX_BUDGET 64

static bool merges(const struct virtio_net *n)
{
	return virtio_dev_negotiated(&n->dev, NET_F_MRG_RXBUF);
}

/* Gets receive buffers for `bytes` at hand, or for as many as there are. 0, -errno when the driver broke the
 * rules. */
static int get_buffers(struct virtio_net *n, size_t bytes)
{
	struct virtq *rx = &n->dev.queues[NET_QUEUE_RX];
	uint16_t chains = merges(n) ? VIRTQ_BATCH_CHAINS_MAX : 1;
	int r = virtq_batch_fill(&n->batch, chains, bytes);

	/* The batch may be full of chains that are taken: then begin another. */
	if (r == 0 && n->batch.taken && n->batch.bytes < bytes && n->batch.n - n->batch.taken < chains &&
	        virtq_has_work(rx)) {
		virtq_batch_return(&n->batch);
		virtq_batch_begin(&n->batch, rx, 0);
		r = virtq_batch_fill(&n->batch, chains, bytes);
	}
	if (r == 0 && n->batch.n > n->batch.taken && n->batch.chains[n->batch.taken].bytes < NET_HEADER_BYTES)
		return -EINVAL; /* 5.1.6.3.1: each buffer holds the header at least */
	return r;
}

/* Whether the driver can ever have more for one frame at hand than now. */
static bool can_get_more(struct virtio_net *n)
{
	struct virtq *rx = &n->dev.queues[NET_QUEUE_RX];

	return merges(n) && !virtq_has_work(rx) && n->batch.n - n->batch.taken < rx->size;
}

/* The first `len` bytes of the batch are a frame: gives it to the driver. 0 or -EFAULT. */
static int complete_frame(struct virtio_net *n, size_t len)
{
	uint16_t first = n->batch.taken, n_buffers = 0, le;
	size_t left;

	for (left = len; left; n_buffers++)
		left -= left < n->batch.chains[first + n_buffers].bytes
		                ? left
		                : n->batch.chains[first + n_buffers].bytes;
	/* num_buffers is ours to set, 1 also without merging (5.1.6.4.1); the tap knows nothing of it. */
	le = htole16(n_buffers);
	virtq_batch_write_head(&n->batch, first, offsetof(struct net_header, num_buffers), &le, sizeof(le));
	if (!virtio_dev_negotiated(&n->dev, NET_F_GUEST_CSUM))
		virtq_batch_write_head(&n->batch, first, offsetof(struct net_header, flags), "", 1);
	for (left = len; left;) {
		uint32_t room = n->batch.chains[n->batch.taken].bytes;
		uint32_t part = left < room ? (uint32_t)left : room;

		left -= part;
		if (virtq_batch_take(&n->batch, part, left > 0) < 0)
			return -EFAULT;
	}
	n->rx_used = true;
	metric_inc(&n->metrics.rx_count);
	metric_inc(&n->metrics.rx_packets_count);
	metric_add(&n->metrics.rx_bytes_count, len - NET_HEADER_BYTES);
	return 0;
}

/* Copies what is pending into the batch, which has room for it. */
static void copy_pending(struct virtio_net *n)
{
	uint16_t pieces;
	struct iovec *iov = virtq_batch_iov(&n->batch, &pieces);

	for (size_t at = 0; at < n->pending; iov++) {
		size_t part = n->pending - at < iov->iov_len ? n->pending - at : iov->iov_len;

		memcpy(iov->iov_base, n->spare + at, part);
		at += part;
	}
}

/* The frame's beginning lies in the batch, its end in the spare buffer behind: makes it whole there. */
static void keep_pending(struct virtio_net *n, size_t len)
{
	uint16_t pieces;
	struct iovec *iov = virtq_batch_iov(&n->batch, &pieces);
	size_t at = 0;

	for (uint16_t i = 0; i < pieces; at += iov[i++].iov_len)
		memcpy(n->spare + at, iov[i].iov_base, iov[i].iov_len);
	n->pending = len;
}

/* Reads one frame into the buffers at hand, the spare one behind them. As net_backend_ops.receive. */
static ssize_t receive(struct virtio_net *n)
{
	uint16_t pieces;
	struct iovec *iov = virtq_batch_iov(&n->batch, &pieces);
	size_t room = n->batch.bytes;

	if (room < sizeof(n->spare))
		iov[pieces++] = (struct iovec){n->spare + room, sizeof(n->spare) - room};
	return n->backend->ops->receive(n->backend, iov, pieces);
}

/* Has a frame of the interceptor's wait in `spare`, if there is one. */
static bool ask_interceptor(struct virtio_net *n)
{
	struct net_interceptor *interceptor = n->interceptor;
	size_t len = interceptor ? interceptor->ops->next(interceptor, n->spare + NET_HEADER_BYTES, monotonic_ns()) : 0;

	if (!len)
		return false;
	memset(n->spare, 0, NET_HEADER_BYTES);
	n->pending = NET_HEADER_BYTES + len;
	net_charge(&n->rx_limiter, len);
	return true;
}

/* Gets a frame, the interceptor's before the back-end's: 1 when it was delivered, was noise or is `pending` now; 0 when there
 * is none; -EFAULT for a broken driver. */
static int get_frame(struct virtio_net *n)
{
	ssize_t got;

	if (ask_interceptor(n))
		return 1;
	if (!n->backend)
		return 0;
	got = receive(n);
	if (got == -EAGAIN)
		return 0;
	if (got < 0) {
		metric_inc(&n->metrics.tap_read_fails);
		net_link_lost(n, (int)-got);
		return 0;
	}
	if ((size_t)got > NET_RX_SMALL) {
		n->rx_expected = NET_PACKET_MAX;
		n->rx_large = true;
	}
	if ((size_t)got <= NET_HEADER_BYTES)
		return 1;
	net_charge(&n->rx_limiter, (size_t)got - NET_HEADER_BYTES);
	if ((size_t)got <= n->batch.bytes)
		return complete_frame(n, (size_t)got) < 0 ? -EFAULT : 1;
	keep_pending(n, (size_t)got);
	return 1;
}

/* Delivers what is pending, as receive_one(). */
static int deliver_pending(struct virtio_net *n)
{
	size_t len = n->pending;
	int r = get_buffers(n, len);

	if (r < 0)
		return r;
	if (len <= n->batch.bytes) {
		copy_pending(n);
		n->pending = 0;
		return complete_frame(n, len) < 0 ? -EFAULT : 1;
	}
	if (can_get_more(n)) {
		metric_inc(&n->metrics.no_rx_avail_buffer);
		n->rx_starved = true;
		return 0;
	}
	metric_inc(&n->metrics.rx_fails);
	n->pending = 0; /* larger than all the driver can hold: dropped */
	return 1;
}

/* One frame: 1 when one was moved or dropped, 0 when there is none or no buffer, -EFAULT/-EINVAL for a broken
 * driver. */
static int receive_one(struct virtio_net *n)
{
	int r = get_buffers(n, n->pending ? n->pending : n->rx_expected);

	if (r < 0)
		return r;
	if (n->batch.n == n->batch.taken) {
		metric_inc(&n->metrics.no_rx_avail_buffer);
		n->rx_starved = true;
		return 0;
	}
	if (!n->pending) {
		n->rx_limited = net_is_limited(n, &n->rx_limiter, &n->metrics.rx_rate_limiter_throttled);
		if (n->rx_limited)
			return 0;
		r = get_frame(n);
	}
	return n->pending ? deliver_pending(n) : r;
}

void net_pump_rx(struct virtio_net *n)
{
	struct virtq *rx = &n->dev.queues[NET_QUEUE_RX];
	int budget = RX_BUDGET, r = 1;

	if (!rx->ready || n->rx_starved)
		return;
	n->rx_large = false;
	n->rx_expected = merges(n) ? n->rx_expected : 1;
	virtq_disable_doorbell(rx);
	virtq_batch_begin(&n->batch, rx, 0);
	while (r > 0 && budget--) {
		r = receive_one(n);
		if (r == 0 && n->rx_starved) {
			/* The driver is to ring; unless it has added some meanwhile. */
			virtq_enable_doorbell(rx);
			if (!virtq_has_work(rx))
				break;
			virtq_disable_doorbell(rx);
			n->rx_starved = false;
			r = 1;
		}
	}
	if (r < 0) {
		virtio_dev_broken(&n->dev, "malformed buffer in the receive queue");
		return;
	}
	virtq_batch_return(&n->batch);
	if (r > 0)
		loop_kick(&n->kick); /* the budget is used up; there may be frames that no event tells of */
	else if (!n->rx_large)
		n->rx_expected = NET_RX_SMALL;
}
