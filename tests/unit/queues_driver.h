/* A driver of a device whose queues have threads of their own: doorbells and interrupts are eventfds, as with PCI.
 *
 *	struct queues_driver d;   queues_init(&d, dev, loop, n);   queues_start(&d, &guest, features);
 *	driver_add(&d.q[i], …);   queues_kick(&d, i);   assert_true(queues_wait_used(&d, i, &head, &len)); */
#ifndef HULL_TESTS_UNIT_QUEUES_DRIVER_H
#define HULL_TESTS_UNIT_QUEUES_DRIVER_H

#include "tests/unit/virtq_driver.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct queues_driver {
	struct driver d; /* first: the transport's context is either */
	uint16_t n;
	struct driver_queue q[VIRTIO_QUEUES_MAX];
	int kick[VIRTIO_QUEUES_MAX], call[VIRTIO_QUEUES_MAX];
	bool no_vector[VIRTIO_QUEUES_MAX];
	bool deaf[VIRTIO_QUEUES_MAX]; /* the loop does not listen to the doorbell any more */
};

static inline int queues_kick_fd(void *ctx, uint16_t q)
{
	return ((struct queues_driver *)ctx)->kick[q];
}

static inline int queues_call_fd(void *ctx, uint16_t q)
{
	struct queues_driver *d = ctx;

	return d->no_vector[q] ? -1 : d->call[q];
}

static inline void queues_listen(void *ctx, uint16_t q, bool listen)
{
	((struct queues_driver *)ctx)->deaf[q] = !listen;
}

static const struct virtio_transport queues_transport = {
	driver_on_interrupt, queues_kick_fd, queues_listen, queues_call_fd};

static inline void queues_init(struct queues_driver *d, struct virtio_dev *dev, struct loop *loop, uint16_t n)
{
	*d = (struct queues_driver){.n = n};
	driver_init(&d->d, dev, loop);
	dev->transport = &queues_transport;
	for (uint16_t i = 0; i < n; i++) {
		d->kick[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		d->call[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_true(d->kick[i] >= 0 && d->call[i] >= 0);
	}
}

/* After the device, which borrows them. */
static inline void queues_close(struct queues_driver *d)
{
	for (uint16_t i = 0; i < d->n; i++) {
		close(d->kick[i]);
		close(d->call[i]);
	}
}

/* All of them, afresh. */
static inline void queues_start(struct queues_driver *d, struct guest *g, uint64_t features)
{
	for (uint16_t i = 0; i < d->n; i++)
		driver_queue_init(&d->q[i], g, 128);
	assert_int_equal(driver_start(&d->d, features, d->q, d->n), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
		VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK);
}

static inline void queues_kick(struct queues_driver *d, uint16_t i)
{
	assert_int_equal(eventfd_write(d->kick[i], 1), 0);
}

/* Waits for the interrupt; the device's threads need none of this one's help. */
static inline bool queues_wait_used(struct queues_driver *d, uint16_t i, uint16_t *ret_head, uint32_t *ret_len)
{
	struct pollfd fd = {.fd = d->call[i], .events = POLLIN};
	eventfd_t count;

	while (!driver_get_used(&d->q[i], ret_head, ret_len)) {
		if (poll(&fd, 1, DRIVER_DEADLINE_NS / 1000000) != 1)
			return false;
		eventfd_read(d->call[i], &count);
	}
	return true;
}

static inline bool queues_needs_reset(void *ctx)
{
	return driver_status(ctx) & VIRTIO_STATUS_NEEDS_RESET;
}

#endif
