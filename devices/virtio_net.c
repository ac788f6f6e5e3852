/* virtio-net: the rings between a driver and a back-end that moves frames.
 *
 * Theory of operation. All work is done on the loop thread under the device's lock; a vCPU thread only kicks.
 * Receiving, frames go straight into the driver's buffers, with a spare buffer of ours behind them: a frame
 * that turns out longer than what the driver has provided ends there, is kept whole as `pending`, and is
 * delivered when there are buffers (or dropped when no number of them would do). Without any buffer the
 * back-end is not watched: it is the host's queue that fills then. Sending, a frame the back-end cannot take
 * goes back into the ring and the back-end is watched for room. Doorbells are off while a ring is being
 * drained, and there is one interrupt for each batch. A back-end that fails takes the link down (5.1.4.2):
 * frames to it are dropped, as by a cut cable. */
#include "devices/virtio_net.h"

#include "common/checked.h"
#include "common/log.h"
#include "devices/loop_kick.h"
#include "devices/net_backend.h"
#include "devices/virtq_batch.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define QUEUE_SIZE         256
#define BIT(n)             (1ull << (n))
#define NET_STATUS_LINK_UP 1
/* Frames in one go, each way, before others on the loop get their turn. */
#define RX_BUDGET 64
#define TX_BUDGET 128
/* RFC 791: what every link must carry. */
#define MTU_MIN 68
/* What to expect of a frame while none has been larger: with merged buffers, how many to pop. */
#define RX_SMALL (NET_HEADER_BYTES + 2048)

static_assert(sizeof(struct net_header) == NET_HEADER_BYTES, "virtio 1.2, 5.1.6");

enum { NET_QUEUE_RX, NET_QUEUE_TX, NET_QUEUES };

/* Configuration space, 5.1.4, as far as our features reach. */
struct net_config_space {
	uint8_t mac[6];
	uint16_t status, max_virtqueue_pairs, mtu;
} __attribute__((packed));

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
	struct loop_source *limit_timer; /* the first of their delays is over */
	uint64_t limit_delay_ns;         /* of this round; UINT64_MAX: none */
	bool rx_used, tx_used; /* pushed to since the last interrupt */
	struct net_metrics metrics;

	size_t rx_expected; /* bytes of buffers to have at hand */
	size_t pending;     /* bytes of a frame in `spare` that waits for buffers; 0: none */
	uint8_t spare[NET_PACKET_MAX];
	struct virtq_batch batch;
	struct virtq_chain chain;
};

static struct virtio_net *from_dev(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_net, dev);
}

static bool is_running(const struct virtio_net *n)
{
	return n->dev.active && !(n->dev.status & VIRTIO_STATUS_NEEDS_RESET) && !n->quiet;
}

static void link_lost(struct virtio_net *n, int errnum)
{
	log_warn("%s: the network back-end is gone (%s): link down", n->id,
	        errnum == EPROTO ? "impossible frame length" : strerror(errnum));
	loop_remove(n->source);
	n->source = NULL;
	n->backend->ops->free(n->backend);
	n->backend = NULL;
	n->tx_blocked = false;
	loop_kick(&n->kick); /* frames that wait in the transmit ring are dropped now */
	virtio_dev_config_changed(&n->dev);
}

/* Whether a limit forbids the next frame; then the device is called again when it does not. */
static bool is_limited(struct virtio_net *n, struct rate_limiter *limiter, uint64_t *throttled)
{
	uint64_t delay_ns;

	if (!rate_limiter_is_on(limiter))
		return false;
	delay_ns = rate_limiter_delay_ns(limiter, monotonic_ns());
	if (!delay_ns)
		return false;
	metric_inc(throttled);
	if (delay_ns < n->limit_delay_ns)
		n->limit_delay_ns = delay_ns;
	return true;
}

static void charge(struct rate_limiter *limiter, size_t frame_bytes)
{
	if (rate_limiter_is_on(limiter))
		rate_limiter_charge(limiter, frame_bytes, monotonic_ns());
}

/* From the back-end to the driver. */

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

/* One frame: 1 when one was moved or dropped, 0 when there is none or no buffer, -EFAULT/-EINVAL for a broken
 * driver. */
static int receive_one(struct virtio_net *n)
{
	ssize_t got;
	int r;

	r = get_buffers(n, n->pending ? n->pending : n->rx_expected);
	if (r < 0)
		return r;
	if (n->batch.n == n->batch.taken) {
		metric_inc(&n->metrics.no_rx_avail_buffer);
		n->rx_starved = true;
		return 0;
	}
	if (!n->pending) {
		n->rx_limited = is_limited(n, &n->rx_limiter, &n->metrics.rx_rate_limiter_throttled);
		if (n->rx_limited)
			return 0;
		got = receive(n);
		if (got == -EAGAIN)
			return 0;
		if (got < 0) {
			metric_inc(&n->metrics.tap_read_fails);
			link_lost(n, (int)-got);
			return 0;
		}
		if ((size_t)got > RX_SMALL)
			n->rx_expected = NET_PACKET_MAX;
		if ((size_t)got <= NET_HEADER_BYTES)
			return 1;
		charge(&n->rx_limiter, (size_t)got - NET_HEADER_BYTES);
		if ((size_t)got <= n->batch.bytes)
			return complete_frame(n, (size_t)got) < 0 ? -EFAULT : 1;
		keep_pending(n, (size_t)got);
		r = get_buffers(n, n->pending);
		if (r < 0)
			return r;
	}
	if (n->pending <= n->batch.bytes) {
		size_t len = n->pending;

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

static void pump_rx(struct virtio_net *n)
{
	struct virtq *rx = &n->dev.queues[NET_QUEUE_RX];
	int budget = RX_BUDGET, r = 1;

	if (!rx->ready || n->rx_starved)
		return;
	n->rx_expected = merges(n) ? n->rx_expected : 1;
	virtq_disable_doorbell(rx);
	virtq_batch_begin(&n->batch, rx, 0);
	while (r > 0 && budget-- && n->backend) {
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
	if (r > 0 && n->backend)
		loop_kick(&n->kick); /* the budget is used up; the back-end may hold frames that no event
		                        tells of */
	else
		n->rx_expected = RX_SMALL;
}

/* From the driver to the back-end. */

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
		needed |= BIT(NET_F_CSUM);
	ret->flags &= NET_HEADER_NEEDS_CSUM;
	switch (ret->gso_type) {
	case NET_GSO_NONE:
		break;
	case NET_GSO_TCPV4:
		needed |= BIT(NET_F_HOST_TSO4);
		break;
	case NET_GSO_TCPV6:
		needed |= BIT(NET_F_HOST_TSO6);
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
		link_lost(n, -r);
		return 0;
	}
	if (r == 0) {
		metric_inc(&n->metrics.tx_count);
		metric_inc(&n->metrics.tx_packets_count);
		metric_add(&n->metrics.tx_bytes_count, n->chain.out_bytes - sizeof(header));
	}
	return r;
}

static void pump_tx(struct virtio_net *n)
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
		if (virtq_has_work(tx) && is_limited(n, &n->tx_limiter, &n->metrics.tx_rate_limiter_throttled))
			return; /* the doorbell stays silent until then */
		r = virtq_pop_or_arm(tx, &n->chain);
		if (r == 0)
			return;
		if (r > 0)
			r = send_one(n);
		if (r == 0)
			charge(&n->tx_limiter, n->chain.out_bytes - NET_HEADER_BYTES);
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

/* Both. */

/* Sets what the back-end is watched for. */
static void watch(struct virtio_net *n)
{
	uint32_t events = 0;
	int r;

	if (n->backend && is_running(n)) {
		r = n->backend->ops->flush(n->backend);
		if (r < 0 && r != -EAGAIN)
			link_lost(n, -r);
		else if (r == -EAGAIN || n->tx_blocked)
			events |= EPOLLOUT;
		if (!n->rx_starved && !n->rx_limited && n->dev.queues[NET_QUEUE_RX].ready)
			events |= EPOLLIN;
	}
	if (n->source)
		loop_set_events(n->source, events);
}

static void service(struct virtio_net *n)
{
	n->limit_delay_ns = UINT64_MAX;
	n->rx_limited = false;
	if (is_running(n) && n->backend)
		pump_rx(n);
	if (is_running(n))
		pump_tx(n);
	watch(n);
	if (n->limit_delay_ns != UINT64_MAX)
		loop_timer_arm(n->limit_timer, n->limit_delay_ns);
	if (n->rx_used)
		virtio_dev_notify(&n->dev, NET_QUEUE_RX);
	if (n->tx_used)
		virtio_dev_notify(&n->dev, NET_QUEUE_TX);
	n->rx_used = n->tx_used = false;
}

static void on_kick(void *ctx)
{
	struct virtio_net *n = ctx;

	virtio_dev_enter(&n->dev);
	service(n);
	virtio_dev_leave(&n->dev);
}

static void on_backend(void *ctx, uint32_t epoll_events)
{
	struct virtio_net *n = ctx;

	virtio_dev_enter(&n->dev);
	if (epoll_events & EPOLLIN)
		metric_inc(&n->metrics.rx_tap_event_count);
	if (epoll_events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		n->tx_blocked = false;
	service(n);
	virtio_dev_leave(&n->dev);
}

/* The device as the core sees it. */

static uint64_t net_features(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);
	uint64_t features = BIT(NET_F_MAC) | BIT(NET_F_STATUS) | BIT(NET_F_MRG_RXBUF);

	if (n->mtu)
		features |= BIT(NET_F_MTU);
	return features | n->offloads;
}

static void net_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	struct virtio_net *n = from_dev(dev);
	struct net_config_space space = {
	        .status = htole16(n->backend ? NET_STATUS_LINK_UP : 0),
	        .max_virtqueue_pairs = htole16(1),
	        .mtu = htole16(n->mtu),
	};

	memcpy(space.mac, n->mac, sizeof(space.mac));
	memcpy(ret, (const char *)&space + offset, len);
}

static int net_activate(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	n->rx_starved = n->tx_blocked = false;
	n->rx_expected = RX_SMALL;
	loop_kick(&n->kick);
	return n->backend ? n->backend->ops->set_features(n->backend, dev->driver_features) : 0;
}

static void net_reset(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	n->pending = 0; /* a frame half-sent to the back-end goes on: its stream must stay whole */
	n->quiet = false;
	n->rx_used = n->tx_used = false;
	loop_kick(&n->kick);
}

static void net_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_net *n = from_dev(dev);

	metric_inc(q == NET_QUEUE_RX ? &n->metrics.rx_queue_event_count : &n->metrics.tx_queue_event_count);
	if (q == NET_QUEUE_RX)
		n->rx_starved = false;
	if (loop_kick_is_loop_thread(&n->kick))
		service(n);
	else
		loop_kick(&n->kick);
}

static void net_quiesce(struct virtio_dev *dev)
{
	from_dev(dev)->quiet = true; /* no buffer is held over from one entry to the next */
}

static void net_resume(struct virtio_dev *dev)
{
	from_dev(dev)->quiet = false;
	loop_kick(&from_dev(dev)->kick);
}

/* A frame on its way in or out is not saved: networks lose frames. */
static void net_save(struct virtio_dev *dev, struct state_writer *w)
{
	struct virtio_net *n = from_dev(dev);

	state_put_bytes(w, n->mac, sizeof(n->mac));
	state_put_u16(w, n->mtu);
}

static int net_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_net *n = from_dev(dev);
	const uint8_t *mac;
	uint32_t mac_len = state_get_bytes(r, &mac);
	uint16_t mtu = state_get_u16(r);
	int result;

	if (r->failed || mac_len != sizeof(n->mac) || (mac[0] & 1))
		return error_set(err, EINVAL, "saved virtio-net has an impossible MAC address");
	if ((mtu && mtu < MTU_MIN) || (!mtu && virtio_dev_negotiated(dev, NET_F_MTU)))
		return error_set(err, EINVAL, "saved virtio-net has an impossible MTU");
	memcpy(n->mac, mac, sizeof(n->mac)); /* the guest keeps what it knows */
	n->mtu = mtu;
	n->rx_expected = RX_SMALL;
	result = n->backend ? n->backend->ops->set_features(n->backend, dev->driver_features) : 0;
	return result < 0 ? error_set_errno(err, -result, "cannot give %s the offloads it had", n->id) : 0;
}

static void net_free(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	loop_remove(n->source);
	loop_remove(n->limit_timer);
	if (n->backend)
		n->backend->ops->free(n->backend);
	loop_kick_done(&n->kick);
	free(n->id);
	free(n);
}

static const struct virtio_ops net_ops = {
        .name = "virtio-net",
        .device_id = 1,
        .n_queues = NET_QUEUES,
        .queue_size = QUEUE_SIZE,
        .features = net_features,
        .config_size = sizeof(struct net_config_space),
        .config_read = net_config_read,
        .activate = net_activate,
        .reset = net_reset,
        .doorbell = net_doorbell,
        .quiesce = net_quiesce,
        .resume = net_resume,
        .save = net_save,
        .load = net_load,
        .free = net_free,
};

const struct net_metrics *virtio_net_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_net, dev)->metrics;
}

static int check_config(const struct virtio_net_config *config, struct error *err)
{
	static const uint8_t zero[6];

	if (config->mac[0] & 1)
		return error_set_field(err, EINVAL, "guest_mac", "is a multicast address");
	if (memcmp(config->mac, zero, sizeof(zero)) == 0)
		return error_set_field(err, EINVAL, "guest_mac", "must not be all zeroes");
	if (config->mtu && config->mtu < MTU_MIN)
		return error_set_field(err, EINVAL, "mtu", "must be at least %d", MTU_MIN);
	return 0;
}

struct virtio_dev *virtio_net_new(
        const struct virtio_net_config *config, struct loop *loop, const struct gmem *mem, struct error *err)
{
	cleanup_close int fd = config->fd;
	struct virtio_net *n;

	if (check_config(config, err) < 0)
		return NULL;
	n = calloc(1, sizeof(*n));
	if (!n) {
		error_set_errno(err, ENOMEM, "cannot make a network device");
		return NULL;
	}
	virtio_dev_init(&n->dev, &net_ops, mem);
	n->kick.fd = -1;
	memcpy(n->mac, config->mac, sizeof(n->mac));
	n->mtu = config->mtu;
	n->id = strdup(config->id);
	n->backend = config->kind == NET_BACKEND_TAP ? net_tap_new(steal_fd(&fd), err)
	                                             : net_stream_new(steal_fd(&fd), err);
	if (!n->backend)
		goto fail;
	n->offloads = n->backend->ops->features;
	rate_limiter_init(&n->rx_limiter, config->rx_limiter, monotonic_ns());
	rate_limiter_init(&n->tx_limiter, config->tx_limiter, monotonic_ns());
	n->limit_timer = loop_add_timer(loop, on_kick, n);
	if (n->id && n->limit_timer && loop_kick_init(&n->kick, loop, on_kick, n) == 0)
		n->source = loop_add_fd(loop, n->backend->fd, EPOLLIN, on_backend, n);
	if (!n->source) {
		error_set_errno(
		        err, n->id ? errno : ENOMEM, "cannot watch the network back-end of %s", config->id);
		goto fail;
	}
	loop_set_events(n->source, 0);
	return &n->dev;
fail:
	virtio_dev_free(&n->dev);
	return NULL;
}

void virtio_net_set_limiters(
        struct virtio_dev *dev, const struct rate_limiter_config *rx, const struct rate_limiter_config *tx)
{
	struct virtio_net *n = from_dev(dev);
	uint64_t now = monotonic_ns();

	virtio_dev_enter(dev);
	if (rx)
		rate_limiter_update(&n->rx_limiter, rx, now);
	if (tx)
		rate_limiter_update(&n->tx_limiter, tx, now);
	virtio_dev_leave(dev);
	loop_kick(&n->kick); /* what waited for the old limits looks again */
}
