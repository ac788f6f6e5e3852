/* A device whose rings are worked elsewhere: negotiation, configuration space and rings handed over and taken back.
 *
 * Theory of operation. Once the driver is ready, the back-end is told what it accepted, where memory and rings are, and is given
 * the eventfds of doorbell and interrupt: from then on requests pass by without a word to this process, but for an interrupt by
 * a transport that must be told (then the loop listens to an eventfd of ours). A ring is taken back when the driver resets the
 * device, or to be saved; before that it is let run empty, where its kind of device answers all requests: a back-end may
 * forget what is in flight when it is stopped.
 *
 *	handed over   activate(), resume()    a vCPU's thread, the loop's
 *	taken back    reset(), quiesce()
 *
 * All of it waits for the back-end, up to a deadline, with the device's lock held. One that misses it, breaks the protocol or
 * goes away is lost: one line in the log, NEEDS_RESET, and nothing is asked of it any more; the driver may reset the device,
 * but never start it again. What touches the loop's sources happens on the loop thread only: a loss that a vCPU's thread meets
 * shuts the socket down, which wakes the loop. */
#include "devices/virtio_vhost_device.h"

#include "common/checked.h"
#include "common/log.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define BIT(n) (1ull << (n))

#define QUEUE_SIZE 256

/* How long a reset waits for requests in flight. Drivers have none left by then; a guest that does not care is not to hold up
 * the device's lock for long. */
#define RESET_DRAIN_NS 1000000000ull
/* The back-end moves the ring's index in memory, which cannot be waited for. */
#define DRAIN_POLL_MS 1

static struct virtio_vhost *from_dev(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_vhost, dev);
}

static void begin(struct virtio_vhost *v)
{
	v->backend->deadline_ns = monotonic_ns() + v->backend->patience_ns;
}

static uint64_t us_since(uint64_t begun_ns)
{
	return (monotonic_ns() - begun_ns) / 1000;
}

static void put_u16(uint8_t *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, sizeof(value));
}

/* Something failed. If the back-end is lost by that, it is said, once. */
static void failed(struct virtio_vhost *v, const struct error *err)
{
	if (!v->backend->lost)
		return;
	if (!v->loss_told)
		log_warn("%s %s is out of order: %s", v->ops.name, v->id, err->message);
	v->loss_told = true;
	metric_store(&v->metrics.backend_fails, 1);
	if (v->kind->status_at)
		put_u16(v->config + v->kind->status_at, 0); /* 5.1.4.2: the link is down */
	virtio_dev_broken(&v->dev, "its back-end is lost");
}

/* ---- rings handed over ---- */

static int start_queue(struct virtio_vhost *v, uint16_t q, struct error *err)
{
	const struct virtio_transport *transport = v->dev.transport;
	int call_fd = transport->call_fd(v->dev.transport_ctx, q), r;
	struct vhost_queue queue = {
		.index = q,
		.vq = &v->dev.queues[q],
		.kick_fd = transport->kick_fd(v->dev.transport_ctx, q),
		.call_fd = call_fd >= 0 ? call_fd : v->calls[q].fd,
		.error_fd = v->error_fd,
	};

	v->started[q] = true; /* in part, if it fails */
	r = v->backend->ops->start_queue(v->backend, &queue, err);
	if (r == 0)
		eventfd_write(queue.kick_fd, 1); /* the driver may have been quicker */
	return r;
}

/* What is to be read only is left out: nobody could hold the other side to that. */
static int tell_memory(struct virtio_vhost *v, struct error *err)
{
	const struct gmem_region *region = NULL;

	v->map.n = 0;
	while ((region = gmem_next(v->dev.mem, region)))
		if (!region->read_only && (region->fd >= 0 || !v->backend->ops->needs_shared_memory))
			v->map.regions[v->map.n++] = region;
	return v->backend->ops->set_memory(v->backend, &v->map, err);
}

static int start(struct virtio_vhost *v, struct error *err)
{
	int r;

	begin(v);
	r = v->backend->ops->start(v->backend, v->dev.driver_features, err);
	if (r == 0)
		r = tell_memory(v, err);
	for (uint16_t q = 0; q < v->ops.n_queues && r == 0; q++)
		if (v->dev.queues[q].ready)
			r = start_queue(v, q, err);
	return r;
}

/* ---- and taken back ---- */

/* Waits until what the driver has made available is completed. False when `until_ns` comes first, or the back-end is lost. */
static bool drain_queue(struct virtio_vhost *v, uint16_t q, uint64_t until_ns)
{
	const struct virtq *vq = &v->dev.queues[q];
	struct pollfd fd = {.fd = v->backend->fd, .events = 0};
	uint16_t end = virtq_driver_index(vq);

	/* Indices run modulo 2^16. */
	while ((int16_t)(virtq_device_index(vq) - end) < 0) {
		if (monotonic_ns() >= until_ns || (poll(&fd, 1, DRAIN_POLL_MS) > 0 && fd.revents))
			return false;
	}
	return true;
}

/* Whether all requests are completed within `ns`, where the device is of a kind that completes them. */
static bool drain(struct virtio_vhost *v, uint64_t ns)
{
	uint64_t until_ns = monotonic_ns() + ns;
	bool drained = true;

	for (uint16_t q = 0; q < v->ops.n_queues; q++)
		if (v->started[q] && v->kind->answers_all && !v->backend->lost)
			drained = drain_queue(v, q, until_ns) && drained;
	return drained;
}

static void take_back(struct virtio_vhost *v)
{
	begin(v);
	for (uint16_t q = 0; q < v->ops.n_queues; q++) {
		uint16_t next_avail;
		struct error err = {0};

		if (!v->started[q])
			continue;
		v->started[q] = false;
		if (v->backend->ops->stop_queue(v->backend, q, &next_avail, &err) == 0)
			virtq_take_over(&v->dev.queues[q], next_avail);
		else
			failed(v, &err);
	}
}

/* ---- what the loop hears ---- */

static void forget_sources(struct virtio_vhost *v)
{
	loop_remove(v->watch);
	loop_remove(v->requests);
	v->watch = v->requests = NULL;
}

static void on_backend(void *ctx, uint32_t epoll_events)
{
	struct virtio_vhost *v = ctx;
	struct error err = {0};

	(void)epoll_events;
	virtio_dev_enter(&v->dev);
	if (v->backend->ops->check(v->backend, &err) < 0) {
		forget_sources(v);
		failed(v, &err);
	}
	virtio_dev_leave(&v->dev);
}

static void on_requests(void *ctx, uint32_t epoll_events)
{
	struct virtio_vhost *v = ctx;
	struct error err = {0};
	bool changed;

	(void)epoll_events;
	virtio_dev_enter(&v->dev);
	if (v->backend->ops->serve_requests(v->backend, &changed, &err) < 0) {
		forget_sources(v);
		failed(v, &err);
	} else if (changed) {
		loop_timer_arm(v->reread, 0); /* many in one round are one */
	}
	virtio_dev_leave(&v->dev);
}

static void on_call(void *ctx, uint32_t epoll_events)
{
	struct vhost_call *call = ctx;
	struct virtio_dev *dev = &call->v->dev;
	eventfd_t count;

	(void)epoll_events;
	eventfd_read(call->fd, &count);
	virtio_dev_enter(dev);
	if (dev->active)
		virtio_dev_interrupt(dev, call->queue);
	virtio_dev_leave(dev);
}

static void on_error(void *ctx, uint32_t epoll_events)
{
	struct virtio_vhost *v = ctx;
	eventfd_t count;

	(void)epoll_events;
	eventfd_read(v->error_fd, &count);
	virtio_dev_enter(&v->dev);
	if (virtio_dev_running(&v->dev))
		virtio_dev_broken(&v->dev, "its back-end found a ring broken");
	virtio_dev_leave(&v->dev);
}

/* ---- the configuration space ---- */

void vhost_device_set_config(struct virtio_vhost *v, const void *config)
{
	memcpy(v->config, config, v->kind->config_size);
	if (v->kind->num_queues_at)
		put_u16(v->config + v->kind->num_queues_at, v->ops.n_queues);
}

int virtio_vhost_reread_config(struct virtio_dev *dev, struct error *err)
{
	struct virtio_vhost *v = from_dev(dev);
	uint8_t config[VHOST_CONFIG_MAX];
	uint64_t begun_ns = monotonic_ns();
	int r;

	if (!v->kind->config_is_backends)
		return error_set(err, ENOTSUP, "its configuration is not the back-end's");
	virtio_dev_enter(dev);
	begin(v);
	r = v->backend->ops->read_config(v->backend, config, (uint32_t)v->kind->config_size, err);
	if (r == 0) {
		vhost_device_set_config(v, config);
		virtio_dev_config_changed(dev);
		metric_store(&v->metrics.config_change_time_us, us_since(begun_ns));
	} else {
		failed(v, err);
	}
	virtio_dev_leave(dev);
	return r;
}

static void on_reread(void *ctx)
{
	struct virtio_vhost *v = ctx;
	struct error err = {0};

	if (virtio_vhost_reread_config(&v->dev, &err) < 0 && !v->backend->lost)
		log_warn("%s %s: its configuration has changed and cannot be read: %s", v->ops.name, v->id, err.message);
}

/* ---- the device as the core sees it ---- */

static uint64_t vhost_features(struct virtio_dev *dev)
{
	const struct virtio_vhost *v = from_dev(dev);

	return (v->backend->features & v->kind->features & ~v->withheld) | v->own_features;
}

static void vhost_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	memcpy(ret, from_dev(dev)->config + offset, len);
}

static int vhost_activate(struct virtio_dev *dev)
{
	struct virtio_vhost *v = from_dev(dev);
	uint64_t begun_ns = monotonic_ns();
	struct error err = {0};
	int r = start(v, &err);

	if (r == 0) {
		metric_store(&v->metrics.activate_time_us, us_since(begun_ns));
		return 0;
	}
	take_back(v);
	failed(v, &err);
	virtio_dev_broken(dev, err.message); /* which bounds what a driver can have logged */
	return r;
}

static void vhost_reset(struct virtio_dev *dev)
{
	struct virtio_vhost *v = from_dev(dev);
	struct error err = {0};

	if (!(dev->status & VIRTIO_STATUS_NEEDS_RESET))
		drain(v, RESET_DRAIN_NS);
	take_back(v);
	if (v->backend->ops->reset && !v->backend->lost && v->backend->ops->reset(v->backend, &err) < 0)
		failed(v, &err);
}

/* As vhost_ops.set_memory(); what fails is said. */
static int tell_memory_again(struct virtio_vhost *v)
{
	struct error err = {0};
	int r;

	begin(v);
	r = tell_memory(v, &err);
	if (r < 0) {
		failed(v, &err);
		virtio_dev_broken(&v->dev, err.message);
	}
	return r;
}

static void vhost_memory_changed(struct virtio_dev *dev)
{
	tell_memory_again(from_dev(dev));
}

/* Nobody tells us what is in flight, but a region that goes can be taken from the back-end: hidden, it is not told of any more. One
 * that is lost has its own mappings, if it has any.
 * Blocks of a region that stays mapped do no harm to anybody but a driver that took them away while it had requests in them. */
static bool vhost_holds(struct virtio_dev *dev, const void *host, uint64_t len)
{
	struct virtio_vhost *v = from_dev(dev);
	bool told_of_it = false;

	for (unsigned i = 0; i < v->map.n; i++) {
		const struct gmem_region *region = v->map.regions[i];

		told_of_it |= !region->blocks && virtq_overlaps(region->host, region->size_bytes, host, len);
	}
	return told_of_it && tell_memory_again(v) < 0 && !v->backend->lost;
}

/* It was for the back-end, which has heard it too. From now on the loop does not. */
static void vhost_doorbell(struct virtio_dev *dev, uint16_t q)
{
	dev->transport->listen(dev->transport_ctx, q, false);
}

static void vhost_quiesce(struct virtio_dev *dev)
{
	struct virtio_vhost *v = from_dev(dev);
	bool drained = drain(v, v->backend->patience_ns);

	take_back(v);
	if (!drained)
		virtio_dev_broken(dev, "its back-end does not complete what is in flight");
}

static void vhost_resume(struct virtio_dev *dev)
{
	struct virtio_vhost *v = from_dev(dev);
	struct error err = {0};

	if (start(v, &err) < 0) {
		take_back(v);
		failed(v, &err);
		virtio_dev_broken(dev, err.message);
		return;
	}
	for (uint16_t q = 0; q < v->ops.n_queues; q++)
		if (v->started[q])
			virtio_dev_interrupt(dev, q); /* one may have been lost on the way */
}

/* Rings at rest are all there is to save, and what the driver has read. */
static void vhost_save(struct virtio_dev *dev, struct state_writer *w)
{
	const struct virtio_vhost *v = from_dev(dev);

	state_put_bytes(w, v->config, (uint32_t)v->kind->config_size);
}

static int vhost_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_vhost *v = from_dev(dev);
	const uint8_t *config;
	uint32_t len = state_get_bytes(r, &config);

	if (r->failed || len != v->kind->config_size)
		return error_set(err, EINVAL, "saved %s %s has an impossible configuration", v->ops.name, v->id);
	if (v->kind->has_sessions && dev->active)
		return error_set(err, ENOTSUP, "%s %s was in use when it was saved, and what its back-end knew of that was not saved",
			v->ops.name, v->id);
	if (v->kind->config_is_backends && memcmp(config, v->config, len) != 0)
		return error_set(err, EINVAL, "the back-end of %s %s is not as it was when it was saved", v->ops.name, v->id);
	memcpy(v->config, config, len); /* the guest keeps what it knows */
	return 0;
}

static void vhost_free(struct virtio_dev *dev)
{
	struct virtio_vhost *v = from_dev(dev);

	forget_sources(v);
	loop_remove(v->reread);
	loop_remove(v->error);
	for (uint16_t q = 0; q < v->ops.n_queues; q++) {
		loop_remove(v->calls[q].source);
		close_fd(v->calls[q].fd);
	}
	close_fd(v->error_fd);
	v->backend->ops->free(v->backend);
	free(v->id);
	free(v);
}

static const struct virtio_ops vhost_ops = {
	.queue_size = QUEUE_SIZE,
	.features = vhost_features,
	.config_read = vhost_config_read,
	.activate = vhost_activate,
	.reset = vhost_reset,
	.doorbell = vhost_doorbell,
	.holds = vhost_holds,
	.memory_changed = vhost_memory_changed,
	.quiesce = vhost_quiesce,
	.resume = vhost_resume,
	.save = vhost_save,
	.load = vhost_load,
	.free = vhost_free,
};

const struct vhost_metrics *virtio_vhost_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_vhost, dev)->metrics;
}

/* ---- its making ---- */

/* 0 or -errno. */
static int open_call(struct virtio_vhost *v, uint16_t q)
{
	struct vhost_call *call = &v->calls[q];

	call->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (call->fd < 0)
		return -errno;
	call->source = loop_add_fd(v->loop, call->fd, EPOLLIN, on_call, call);
	return call->source ? 0 : -errno;
}

/* 0 or -errno. */
static int watch(struct virtio_vhost *v)
{
	const struct vhost *backend = v->backend;
	int r = 0;

	v->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->error_fd < 0)
		return -errno;
	v->error = loop_add_fd(v->loop, v->error_fd, EPOLLIN, on_error, v);
	v->reread = loop_add_timer(v->loop, on_reread, v);
	if (!v->error || !v->reread)
		return -errno;
	for (uint16_t q = 0; q < v->ops.n_queues && r == 0; q++)
		r = open_call(v, q);
	if (r == 0 && backend->fd >= 0) {
		v->watch = loop_add_fd(v->loop, backend->fd, EPOLLIN | EPOLLRDHUP, on_backend, v);
		r = v->watch ? 0 : -errno;
	}
	if (r == 0 && backend->request_fd >= 0) {
		v->requests = loop_add_fd(v->loop, backend->request_fd, EPOLLIN | EPOLLRDHUP, on_requests, v);
		r = v->requests ? 0 : -errno;
	}
	return r;
}

static int check(const struct vhost *backend, uint16_t n_queues, const struct gmem *mem, struct error *err)
{
	if (backend->queues_max < n_queues)
		return error_set(err, ENOTSUP, "the back-end works on %u queues, and %u are needed", backend->queues_max, n_queues);
	if (backend->ops->needs_shared_memory && !gmem_is_shared(mem))
		return error_set(err, ENOTSUP, "guest memory is this process's own: it had to be of memory_kind shared, or such a device had to be there, when the "
			"machine was started");
	return 0;
}

struct virtio_vhost *vhost_device_new(const struct vhost_kind *kind, struct vhost *backend, uint16_t n_queues,
	const char *id, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct virtio_vhost *v = NULL;
	int r = check(backend, n_queues, mem, err);

	assert(kind->config_size <= VHOST_CONFIG_MAX && n_queues <= VIRTIO_QUEUES_MAX);
	if (r == 0) {
		v = calloc(1, sizeof(*v));
		r = v ? 0 : error_set(err, ENOMEM, "out of memory");
	}
	if (r < 0) {
		backend->ops->free(backend);
		return NULL;
	}
	v->ops = vhost_ops;
	v->ops.name = kind->name;
	v->ops.device_id = kind->device_id;
	v->ops.config_size = kind->config_size;
	v->ops.n_queues = n_queues;
	virtio_dev_init(&v->dev, &v->ops, mem);
	v->dev.ring_features &= backend->features;
	v->kind = kind;
	v->backend = backend;
	v->loop = loop;
	v->error_fd = -1;
	for (uint16_t q = 0; q < n_queues; q++)
		v->calls[q] = (struct vhost_call){v, q, -1, NULL};
	v->id = strdup(id);
	r = v->id ? watch(v) : -ENOMEM;
	if (r == 0) {
		metric_store(&v->metrics.init_time_us, us_since(backend->begun_ns));
		return v;
	}
	error_set_errno(err, -r, "cannot watch the back-end");
	virtio_dev_free(&v->dev);
	return NULL;
}
