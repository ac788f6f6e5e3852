/* virtio-net: the device's life, its link, and its pairs of queues as a whole.
 *
 * Theory of operation. A pair works by itself: devices/virtio_net_pair.c. With one, all is done on the loop thread under the
 * device's lock. With several, the loop thread keeps the control queue, and says what has become of the link. */
#include "devices/virtio_net_device.h"

#include "common/checked.h"
#include "common/log.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
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

void net_link_down(struct virtio_net *n, int errnum)
{
	log_warn("%s: the network back-end is gone (%s): link down", n->id,
	        errnum == EPROTO ? "impossible frame length" : strerror(errnum));
	n->link_up = false;
	virtio_dev_config_changed(&n->dev);
}

static bool has_threads(const struct virtio_net *n)
{
	return n->n_pairs > 1;
}

/* A pair may have lost its back-end; as they have one interface, the others will. */
static void look_at_links(struct virtio_net *n)
{
	for (uint16_t i = 0; i < n->n_pairs; i++) {
		struct net_pair *p = &n->pairs[i];
		int errnum;

		queue_group_hold(&p->group);
		errnum = p->lost_errnum;
		p->lost_errnum = 0;
		queue_group_let_go(&p->group);
		if (errnum && n->link_up)
			net_link_down(n, errnum);
	}
}

/* The loop hears what is not heard by a thread: which queue is which, is the driver's choice. */
static void listen_to_control(struct virtio_net *n)
{
	for (uint16_t q = 0; q < n->dev.ops->n_queues; q++)
		n->dev.transport->listen(
			n->dev.transport_ctx, q, net_has_control(n) && q == net_control_queue(n));
}

static void on_control_kick(void *ctx)
{
	struct virtio_net *n = ctx;

	virtio_dev_enter(&n->dev);
	look_at_links(n);
	if (n->dev.active)
		listen_to_control(n);
	if (virtio_dev_running(&n->dev) && net_has_control(n) && n->dev.queues[net_control_queue(n)].ready)
		net_control_work(n);
	virtio_dev_leave(&n->dev);
}

/* The device as the core sees it. */

static uint64_t net_features(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);
	uint64_t features = NET_BIT(NET_F_MAC) | NET_BIT(NET_F_STATUS) | NET_BIT(NET_F_MRG_RXBUF);

	if (n->mtu)
		features |= NET_BIT(NET_F_MTU);
	if (has_threads(n))
		features |= NET_BIT(NET_F_CTRL_VQ) | NET_BIT(NET_F_MQ);
	return features | n->offloads;
}

static void net_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	struct virtio_net *n = from_dev(dev);
	struct net_config_space space = {
	        .status = htole16(n->link_up ? NET_STATUS_LINK_UP : 0),
	        .max_virtqueue_pairs = htole16(n->n_pairs),
	        .mtu = htole16(n->mtu),
	};

	memcpy(space.mac, n->mac, sizeof(space.mac));
	memcpy(ret, (const char *)&space + offset, len);
}

/* All that the driver knows of have threads that listen, whether it uses them or not. */
static void start(struct virtio_net *n)
{
	uint16_t known = virtio_dev_negotiated(&n->dev, NET_F_MQ) ? n->n_pairs : 1;

	for (uint16_t i = 0; i < known; i++)
		net_pair_start(&n->pairs[i]);
	if (has_threads(n))
		loop_kick(&n->control_kick);
}

/* They are the interface's, whichever queue of it they are told. 0 or -errno. */
static int set_offloads(struct virtio_net *n)
{
	struct net_pair *p = &n->pairs[0];
	int r = 0;

	queue_group_hold(&p->group);
	if (p->backend)
		r = p->backend->ops->set_features(p->backend, n->dev.driver_features);
	queue_group_let_go(&p->group);
	return r;
}

static int net_activate(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);
	int r = set_offloads(n);

	if (r == 0)
		start(n);
	return r;
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

	for (uint16_t i = 0; i < n->n_pairs; i++)
		net_pair_rest(&n->pairs[i], true);
	net_control_use(n, 1); /* 5.1.6.5.5: what a driver begins with */
	forget_peers(n);
}

static void net_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_net *n = from_dev(dev);

	if (net_has_control(n) && q == net_control_queue(n))
		net_control_work(n);
	else if (!has_threads(n))
		net_pair_work(&n->pairs[0], q, true);
}

/* No buffer is held over from one entry to the next, so whoever was at one has let go of it with the lock. */
static bool net_holds(struct virtio_dev *dev, const void *host, uint64_t len)
{
	struct virtio_net *n = from_dev(dev);

	(void)host;
	(void)len;
	for (uint16_t i = 0; i < n->n_pairs; i++) {
		queue_group_hold(&n->pairs[i].group);
		queue_group_let_go(&n->pairs[i].group);
	}
	return false;
}

static void net_broken(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	for (uint16_t i = 0; i < n->n_pairs; i++)
		net_pair_rest(&n->pairs[i], false);
}

static void net_quiesce(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	for (uint16_t i = 0; i < n->n_pairs; i++) {
		net_pair_rest(&n->pairs[i], false);
		queue_group_tell(&n->pairs[i].group); /* what is saved is all there is to know */
	}
}

static void net_resume(struct virtio_dev *dev)
{
	start(from_dev(dev));
}

/* A frame on its way in or out is not saved, nor an interceptor's conversation: networks lose frames, and hosts restart. */
static void net_save(struct virtio_dev *dev, struct state_writer *w)
{
	struct virtio_net *n = from_dev(dev);

	state_put_bytes(w, n->mac, sizeof(n->mac));
	state_put_u16(w, n->mtu);
	state_put_u16(w, n->pairs_used);
}

static int net_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_net *n = from_dev(dev);
	const uint8_t *mac;
	uint32_t mac_len = state_get_bytes(r, &mac);
	uint16_t mtu = state_get_u16(r), pairs = state_get_u16(r);
	int result;

	if (r->failed || mac_len != sizeof(n->mac) || (mac[0] & 1))
		return error_set(err, EINVAL, "saved virtio-net has an impossible MAC address");
	if ((mtu && mtu < MTU_MIN) || (!mtu && virtio_dev_negotiated(dev, NET_F_MTU)))
		return error_set(err, EINVAL, "saved virtio-net has an impossible MTU");
	if (pairs < 1 || pairs > (virtio_dev_negotiated(dev, NET_F_MQ) ? n->n_pairs : 1))
		return error_set(err, EINVAL, "saved virtio-net uses an impossible number of queue pairs");
	memcpy(n->mac, mac, sizeof(n->mac)); /* the guest keeps what it knows */
	n->mtu = mtu;
	forget_peers(n);
	result = set_offloads(n);
	if (result == 0)
		result = net_control_use(n, pairs);
	return result < 0 ? error_set_errno(err, -result, "cannot give %s the offloads and queues it had", n->id) : 0;
}

static void interceptor_free(struct net_interceptor *interceptor)
{
	if (interceptor)
		interceptor->ops->free(interceptor);
}

static void net_free(struct virtio_dev *dev)
{
	struct virtio_net *n = from_dev(dev);

	for (uint16_t i = 0; i < n->n_pairs; i++)
		net_pair_done(&n->pairs[i]);
	loop_kick_done(&n->control_kick);
	interceptor_free(n->interceptor);
	pthread_mutex_destroy(&n->limiter_lock);
	free(n->pairs);
	free(n->id);
	free(n);
}

static const struct virtio_ops net_ops = {
        .name = "virtio-net",
        .device_id = 1,
        .queue_size = QUEUE_SIZE,
        .features = net_features,
        .config_size = sizeof(struct net_config_space),
        .config_read = net_config_read,
        .activate = net_activate,
        .reset = net_reset,
        .doorbell = net_doorbell,
        .holds = net_holds,
        .broken = net_broken,
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

/* NULL: out of memory. */
static struct virtio_net *allocate(const struct virtio_net_config *config, uint16_t n_pairs, struct loop *loop, const struct gmem *mem)
{
	struct virtio_net *n = calloc(1, sizeof(*n));
	struct net_pair *pairs = calloc(n_pairs, sizeof(*pairs)); /* buffers that nothing comes by cost nothing */
	char *id = strdup(config->id);

	if (!n || !pairs || !id) {
		free(id);
		free(pairs);
		free(n);
		return NULL;
	}
	n->ops = net_ops;
	n->ops.n_queues = n_pairs > 1 ? NET_QUEUES * n_pairs + 1 : NET_QUEUES;
	virtio_dev_init(&n->dev, &n->ops, mem);
	pthread_mutex_init(&n->limiter_lock, NULL);
	n->pairs = pairs;
	n->id = id;
	n->loop = loop;
	n->link_up = true;
	n->pairs_used = 1;
	n->control_kick.fd = -1;
	memcpy(n->mac, config->mac, sizeof(n->mac));
	n->mtu = config->mtu;
	rate_limiter_init(&n->rx_limiter, config->rx_limiter, monotonic_ns());
	rate_limiter_init(&n->tx_limiter, config->tx_limiter, monotonic_ns());
	return n;
}

/* Takes `fd` over, also on failure. */
static int make_pair(struct virtio_net *n, enum net_backend_kind kind, int fd, bool threaded, struct error *err)
{
	struct net_backend *backend = kind == NET_BACKEND_TAP ? net_tap_new(fd, err) : net_stream_new(fd, err);
	uint16_t index = n->n_pairs;
	char name[32];
	int r;

	if (!backend)
		return -EINVAL;
	n->offloads = backend->ops->features;
	snprintf(name, sizeof(name), "net %u %.20s", index, n->id);
	n->n_pairs++; /* in part, if it fails */
	r = net_pair_init(&n->pairs[index], n, index, threaded ? name : NULL, backend);
	return r < 0 ? error_set_errno(err, -r, "cannot watch the network back-end of %s", n->id) : 0;
}

static int make_pairs(struct virtio_net *n, const struct virtio_net_config *config, uint16_t n_pairs, struct error *err)
{
	bool threaded = n_pairs > 1;
	int r = 0;

	if (threaded) {
		r = loop_kick_init(&n->control_kick, n->loop, on_control_kick, n);
		if (r < 0)
			error_set_errno(err, -r, "cannot make a network device");
	}
	for (uint16_t i = 0; i < n_pairs; i++) {
		if (r == 0)
			r = make_pair(n, config->kind, config->fds[i], threaded, err);
		else
			close_fd(config->fds[i]);
	}
	if (r == 0)
		net_control_use(n, 1);
	return r;
}

struct virtio_dev *virtio_net_new(
        const struct virtio_net_config *config, struct loop *loop, const struct gmem *mem, struct error *err)
{
	uint16_t n_pairs = config->n_pairs ? config->n_pairs : 1;
	struct virtio_net *n = NULL;

	assert(n_pairs <= NET_PAIRS_MAX && (n_pairs == 1 || (config->kind == NET_BACKEND_TAP && !config->interceptor)));
	if (check_config(config, err) == 0) {
		n = allocate(config, n_pairs, loop, mem);
		if (!n)
			error_set_errno(err, ENOMEM, "cannot make a network device");
	}
	if (!n) {
		for (uint16_t i = 0; i < n_pairs; i++)
			close_fd(config->fds[i]);
		interceptor_free(config->interceptor);
		return NULL;
	}
	n->interceptor = config->interceptor;
	if (make_pairs(n, config, n_pairs, err) == 0)
		return &n->dev;
	virtio_dev_free(&n->dev);
	return NULL;
}

void virtio_net_set_limiters(
        struct virtio_dev *dev, const struct rate_limiter_config *rx, const struct rate_limiter_config *tx)
{
	struct virtio_net *n = from_dev(dev);
	uint64_t now = monotonic_ns();

	virtio_dev_enter(dev);
	for (uint16_t i = 0; i < n->n_pairs; i++)
		queue_group_hold(&n->pairs[i].group);
	if (rx)
		rate_limiter_update(&n->rx_limiter, rx, now);
	if (tx)
		rate_limiter_update(&n->tx_limiter, tx, now);
	for (uint16_t i = 0; i < n->n_pairs; i++)
		queue_group_let_go(&n->pairs[i].group);
	virtio_dev_leave(dev);
	for (uint16_t i = 0; i < n->n_pairs; i++)
		loop_kick(&n->pairs[i].kick); /* what waited for the old limits looks again */
}
