/* virtio-net: the rings between a driver and a back-end that moves frames.
 *
 * Theory of operation. All work is done on the loop thread under the device's lock; a vCPU thread only kicks.
 * Doorbells are off while a ring is being drained, and there is one interrupt for each batch. A back-end that fails takes
 * the link down (5.1.4.2): frames to it are dropped, as by a cut cable. */
#include "devices/virtio_net_device.h"

#include "common/checked.h"
#include "common/log.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define QUEUE_SIZE         256
#define NET_STATUS_LINK_UP 1
/* RFC 791: what every link must carry. */
#define MTU_MIN 68

/* Configuration space, 5.1.4, as far as our features reach. */
struct net_config_space {
	uint8_t mac[6];
	uint16_t status, max_virtqueue_pairs, mtu;
} __attribute__((packed));

static struct virtio_net *from_dev(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_net, dev);
}

static bool is_running(const struct virtio_net *n)
{
	return n->dev.active && !(n->dev.status & VIRTIO_STATUS_NEEDS_RESET) && !n->quiet;
}

void net_link_lost(struct virtio_net *n, int errnum)
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

bool net_is_limited(struct virtio_net *n, struct rate_limiter *limiter, uint64_t *throttled)
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

/* Sets what the back-end is watched for. */
static void watch(struct virtio_net *n)
{
	uint32_t events = 0;
	int r;

	if (n->backend && is_running(n)) {
		r = n->backend->ops->flush(n->backend);
		if (r < 0 && r != -EAGAIN)
			net_link_lost(n, -r);
		else if (r == -EAGAIN || n->tx_blocked)
			events |= EPOLLOUT;
		if (!n->rx_starved && !n->rx_limited && n->dev.queues[NET_QUEUE_RX].ready)
			events |= EPOLLIN;
	}
	if (n->source)
		loop_set_events(n->source, events);
}

/* In how many ns the interceptor has a frame that has somewhere to go; without room, the driver's doorbell calls. */
static uint64_t answer_delay_ns(const struct virtio_net *n)
{
	if (!n->interceptor || !is_running(n) || !n->dev.queues[NET_QUEUE_RX].ready || n->rx_starved || n->rx_limited)
		return UINT64_MAX;
	return n->interceptor->ops->delay_ns(n->interceptor, monotonic_ns());
}

/* Calls the device again when a limit, or the interceptor's patience, is over. */
static void arm_timer(struct virtio_net *n)
{
	uint64_t delay_ns = answer_delay_ns(n);

	/* 0: more than fits in one go; a kick is under way. */
	if (delay_ns == 0 || delay_ns > n->limit_delay_ns)
		delay_ns = n->limit_delay_ns;
	if (delay_ns != UINT64_MAX)
		loop_timer_arm(n->timer, delay_ns);
}

/* Works on the queues of which something was heard: a look at the back-end for nothing is a system call. The limits share a
 * timer, so with them it is both. */
static void service(struct virtio_net *n, bool rx, bool tx)
{
	bool limited = rate_limiter_is_on(&n->rx_limiter) || rate_limiter_is_on(&n->tx_limiter);

	n->limit_delay_ns = UINT64_MAX;
	n->rx_limited = false;
	if ((rx || limited) && is_running(n) && (n->backend || n->interceptor))
		net_pump_rx(n);
	if ((tx || limited) && is_running(n))
		net_pump_tx(n);
	if (answer_delay_ns(n) == 0)
		net_pump_rx(n); /* answers to what was just sent */
	watch(n);
	arm_timer(n);
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
	service(n, true, true);
	virtio_dev_leave(&n->dev);
}

static void on_backend(void *ctx, uint32_t epoll_events)
{
	struct virtio_net *n = ctx;
	bool readable = epoll_events & (EPOLLIN | EPOLLERR | EPOLLHUP);
	bool writable = epoll_events & (EPOLLOUT | EPOLLERR | EPOLLHUP);

	virtio_dev_enter(&n->dev);
	if (epoll_events & EPOLLIN)
		metric_inc(&n->metrics.rx_tap_event_count);
	if (writable)
		n->tx_blocked = false;
	service(n, readable, writable);
	virtio_dev_leave(&n->dev);
}

/* The device as the core sees it. */

static uint64_t net_features(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);
	uint64_t features = NET_BIT(NET_F_MAC) | NET_BIT(NET_F_STATUS) | NET_BIT(NET_F_MRG_RXBUF);

	if (n->mtu)
		features |= NET_BIT(NET_F_MTU);
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
	n->rx_expected = NET_RX_SMALL;
	loop_kick(&n->kick);
	return n->backend ? n->backend->ops->set_features(n->backend, dev->driver_features) : 0;
}

/* The driver of before is no more. */
static void forget_peers(struct virtio_net *n)
{
	if (n->interceptor)
		n->interceptor->ops->reset(n->interceptor);
}

static void net_reset(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	n->pending = 0; /* a frame half-sent to the back-end goes on: its stream must stay whole */
	n->quiet = false;
	n->rx_used = n->tx_used = false;
	forget_peers(n);
	loop_kick(&n->kick);
}

static void net_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_net *n = from_dev(dev);

	metric_inc(q == NET_QUEUE_RX ? &n->metrics.rx_queue_event_count : &n->metrics.tx_queue_event_count);
	if (q == NET_QUEUE_RX)
		n->rx_starved = false;
	if (loop_kick_is_loop_thread(&n->kick))
		service(n, q == NET_QUEUE_RX, q == NET_QUEUE_TX);
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

/* A frame on its way in or out is not saved, nor an interceptor's conversation: networks lose frames, and hosts restart. */
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
	n->rx_expected = NET_RX_SMALL;
	forget_peers(n);
	result = n->backend ? n->backend->ops->set_features(n->backend, dev->driver_features) : 0;
	return result < 0 ? error_set_errno(err, -result, "cannot give %s the offloads it had", n->id) : 0;
}

static void interceptor_free(struct net_interceptor *interceptor)
{
	if (interceptor)
		interceptor->ops->free(interceptor);
}

static void net_free(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	loop_remove(n->source);
	loop_remove(n->timer);
	if (n->backend)
		n->backend->ops->free(n->backend);
	interceptor_free(n->interceptor);
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

	n = calloc(1, sizeof(*n));
	if (!n)
		error_set_errno(err, ENOMEM, "cannot make a network device");
	if (!n || check_config(config, err) < 0) {
		interceptor_free(config->interceptor);
		free(n);
		return NULL;
	}
	virtio_dev_init(&n->dev, &net_ops, mem);
	n->interceptor = config->interceptor;
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
	n->timer = loop_add_timer(loop, on_kick, n);
	if (n->id && n->timer && loop_kick_init(&n->kick, loop, on_kick, n) == 0)
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
