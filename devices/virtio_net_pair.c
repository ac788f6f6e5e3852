/* virtio-net: a pair of queues, and when it works on them.
 *
 * Theory of operation. All work is done on the pair's thread (the loop's, where there is one pair) under its lock; others only
 * kick. Doorbells are off while a ring is being drained, and there is one interrupt for each batch. A back-end that fails takes
 * the link down (5.1.4.2): frames to it are dropped, as by a cut cable. So are frames that a driver sends by a pair that it has
 * said it does not use. */
#include "devices/virtio_net_device.h"

#include <errno.h>

void net_link_lost(struct net_pair *p, int errnum)
{
	loop_remove(p->source);
	p->source = NULL;
	p->backend->ops->free(p->backend);
	p->backend = NULL;
	p->tx_blocked = false;
	loop_kick(&p->kick); /* frames that wait in the transmit ring are dropped now */
	if (p->group.threaded) {
		p->lost_errnum = errnum;
		loop_kick(&p->n->control_kick);
	} else {
		net_link_down(p->n, errnum);
	}
}

/* Limits are the device's, for all its pairs: whoever asks and charges in between has it counted by one of them. */

bool net_is_limited(struct net_pair *p, struct rate_limiter *limiter, uint64_t *throttled)
{
	uint64_t delay_ns;

	if (!rate_limiter_is_on(limiter))
		return false;
	pthread_mutex_lock(&p->n->limiter_lock);
	delay_ns = rate_limiter_delay_ns(limiter, monotonic_ns());
	pthread_mutex_unlock(&p->n->limiter_lock);
	if (!delay_ns)
		return false;
	metric_inc(throttled);
	if (delay_ns < p->limit_delay_ns)
		p->limit_delay_ns = delay_ns;
	return true;
}

void net_charge(struct net_pair *p, struct rate_limiter *limiter, size_t frame_bytes)
{
	if (!rate_limiter_is_on(limiter))
		return;
	pthread_mutex_lock(&p->n->limiter_lock);
	rate_limiter_charge(limiter, frame_bytes, monotonic_ns());
	pthread_mutex_unlock(&p->n->limiter_lock);
}

static bool is_running(const struct net_pair *p)
{
	return queue_group_is_running(&p->group);
}

/* Sets what the back-end is watched for. */
static void watch(struct net_pair *p)
{
	uint32_t events = 0;
	int r;

	if (p->backend && p->attached && is_running(p)) {
		r = p->backend->ops->flush(p->backend);
		if (r < 0 && r != -EAGAIN)
			net_link_lost(p, -r);
		else if (r == -EAGAIN || p->tx_blocked)
			events |= EPOLLOUT;
		if (!p->rx_starved && !p->rx_limited && p->rx->ready)
			events |= EPOLLIN;
	}
	if (p->source)
		loop_set_events(p->source, events);
}

/* In how many ns the interceptor has a frame that has somewhere to go; without room, the driver's doorbell calls. */
static uint64_t answer_delay_ns(const struct net_pair *p)
{
	struct net_interceptor *interceptor = p->n->interceptor;

	if (!interceptor || !is_running(p) || !p->rx->ready || p->rx_starved || p->rx_limited)
		return UINT64_MAX;
	return interceptor->ops->delay_ns(interceptor, monotonic_ns());
}

/* Calls the pair again when a limit, or the interceptor's patience, is over. */
static void arm_timer(struct net_pair *p)
{
	uint64_t delay_ns = answer_delay_ns(p);

	/* 0: more than fits in one go; a kick is under way. */
	if (delay_ns == 0 || delay_ns > p->limit_delay_ns)
		delay_ns = p->limit_delay_ns;
	if (delay_ns != UINT64_MAX)
		loop_timer_arm(p->timer, delay_ns);
}

/* Works on the queues of which something was heard: a look at the back-end for nothing is a system call. The limits share a
 * timer, so with them it is both. */
static void service(struct net_pair *p, bool rx, bool tx)
{
	bool limited = rate_limiter_is_on(&p->n->rx_limiter) || rate_limiter_is_on(&p->n->tx_limiter);

	p->limit_delay_ns = UINT64_MAX;
	p->rx_limited = false;
	if ((rx || limited) && is_running(p) && (p->backend || p->n->interceptor))
		net_pump_rx(p);
	if ((tx || limited) && is_running(p))
		net_pump_tx(p);
	if (answer_delay_ns(p) == 0)
		net_pump_rx(p); /* answers to what was just sent */
	watch(p);
	arm_timer(p);
	if (p->rx_used)
		queue_group_notify(&p->group, p->group.bells[NET_QUEUE_RX].queue);
	if (p->tx_used)
		queue_group_notify(&p->group, p->group.bells[NET_QUEUE_TX].queue);
	p->rx_used = p->tx_used = false;
}

static void on_kick(void *ctx)
{
	struct net_pair *p = ctx;

	queue_group_enter(&p->group);
	service(p, true, true);
	queue_group_leave(&p->group);
}

static void on_backend(void *ctx, uint32_t epoll_events)
{
	struct net_pair *p = ctx;
	bool readable = epoll_events & (EPOLLIN | EPOLLERR | EPOLLHUP);
	bool writable = epoll_events & (EPOLLOUT | EPOLLERR | EPOLLHUP);

	queue_group_enter(&p->group);
	if (epoll_events & EPOLLIN)
		metric_inc(&p->n->metrics.rx_tap_event_count);
	if (writable)
		p->tx_blocked = false;
	service(p, readable, writable);
	queue_group_leave(&p->group);
}

void net_pair_work(void *ctx, uint16_t q, bool rang)
{
	struct net_pair *p = ctx;
	bool is_rx = q == p->group.bells[NET_QUEUE_RX].queue;

	if (rang)
		metric_inc(is_rx ? &p->n->metrics.rx_queue_event_count : &p->n->metrics.tx_queue_event_count);
	if (is_rx)
		p->rx_starved = false;
	if (p->group.threaded || loop_kick_is_loop_thread(&p->kick))
		service(p, is_rx, !is_rx);
	else
		loop_kick(&p->kick);
}

/* ---- by the device ---- */

void net_pair_start(struct net_pair *p)
{
	queue_group_hold(&p->group);
	p->rx_starved = false; /* the doorbell may have come while it was at rest */
	queue_group_let_go(&p->group);
	queue_group_start(&p->group);
	loop_kick(&p->kick);
}

void net_pair_rest(struct net_pair *p, bool for_good)
{
	queue_group_hold(&p->group);
	queue_group_rest(&p->group, for_good);
	if (for_good) {
		p->pending = 0; /* a frame half-sent to the back-end goes on: its stream must stay whole */
		p->rx_used = p->tx_used = p->rx_starved = p->tx_blocked = false;
		p->rx_expected = NET_RX_SMALL;
	}
	queue_group_let_go(&p->group);
	if (for_good)
		loop_kick(&p->kick);
}

int net_pair_attach(struct net_pair *p, bool attach)
{
	int r = 0;

	queue_group_hold(&p->group);
	if (p->attached != attach && p->backend)
		r = p->backend->ops->attach(p->backend, attach);
	p->attached = attach && r == 0;
	queue_group_let_go(&p->group);
	loop_kick(&p->kick);
	return attach ? r : 0; /* what cannot be detached is a queue of an interface that is gone */
}

/* ---- life ---- */

struct set_up {
	struct net_pair *p;
	int r;
};

/* On the thread whose loop it is. */
static void set_up(void *ctx)
{
	struct set_up *set_up = ctx;
	struct net_pair *p = set_up->p;

	set_up->r = loop_kick_init(&p->kick, p->group.loop, on_kick, p);
	if (set_up->r < 0)
		return;
	p->timer = loop_add_timer(p->group.loop, on_kick, p);
	p->source = loop_add_fd(p->group.loop, p->backend->fd, EPOLLIN, on_backend, p);
	if (p->source)
		loop_set_events(p->source, 0);
	if (!p->timer || !p->source)
		set_up->r = -errno;
}

int net_pair_init(struct net_pair *p, struct virtio_net *n, uint16_t index, const char *thread_name, struct net_backend *backend)
{
	struct set_up how = {.p = p};
	int r;

	p->n = n;
	p->backend = backend;
	p->kick.fd = -1;
	p->attached = true;
	p->rx_expected = NET_RX_SMALL;
	p->rx = &n->dev.queues[NET_QUEUES * index + NET_QUEUE_RX];
	p->tx = &n->dev.queues[NET_QUEUES * index + NET_QUEUE_TX];
	r = queue_group_init(&p->group, &n->dev, n->loop, NET_QUEUES * index, NET_QUEUES, thread_name, net_pair_work, p);
	if (r < 0)
		return r;
	queue_group_call(&p->group, set_up, &how);
	return how.r;
}

void net_pair_done(struct net_pair *p)
{
	queue_group_join(&p->group);
	loop_remove(p->source);
	loop_remove(p->timer);
	if (p->backend)
		p->backend->ops->free(p->backend);
	loop_kick_done(&p->kick);
	queue_group_done(&p->group);
}
