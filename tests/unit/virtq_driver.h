/* A small virtio driver for tests: guest memory on the heap, the driver's side of split queues, and the status
 * sequence of a device without a transport. It can also do all that a driver must not.
 *
 *	struct guest g;             guest_init(&g, 1 << 20);
 *	struct driver d;            driver_init(&d, dev, loop);
 *	struct driver_queue q;      driver_queue_init(&q, &g, 64);
 *	driver_start(&d, features, &q, 1);
 *	head = driver_add(&q, bufs, n);  driver_kick(&d, 0);
 *	assert_true(driver_wait_used(&d, &q, &head, &len)); */
#ifndef HULL_TESTS_UNIT_VIRTQ_DRIVER_H
#define HULL_TESTS_UNIT_VIRTQ_DRIVER_H

#include "tests/unit/test.h"

#include "common/checked.h"
#include "common/loop.h"
#include "devices/virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#define DRIVER_DEADLINE_NS 10000000000ull /* a wait that takes this long has failed */
#define GUEST_BASE	   0x10000ull /* so that address 0 is not memory */

/* ---- guest memory, handed out from the bottom ---- */

struct guest {
	struct gmem mem;
	uint8_t *ram;
	uint64_t size;
	gpa_t brk;
};

static inline void guest_init(struct guest *g, uint64_t size)
{
	*g = (struct guest){.size = size, .brk = GUEST_BASE};
	g->ram = aligned_alloc(4096, size);
	assert_non_null(g->ram);
	memset(g->ram, 0, size);
	assert_int_equal(gmem_add(&g->mem, GUEST_BASE, size, g->ram), 0);
}

static inline void guest_done(struct guest *g)
{
	free(g->ram);
}

static inline gpa_t guest_alloc(struct guest *g, uint64_t len, uint64_t align)
{
	gpa_t at = align_up(g->brk, align);

	assert_true(at + len <= GUEST_BASE + g->size);
	g->brk = at + len;
	return at;
}

static inline void *guest_ptr(struct guest *g, gpa_t gpa)
{
	void *p = gmem_span(&g->mem, gpa, 1);

	assert_non_null(p);
	return p;
}

/* Memory with these contents. */
static inline gpa_t guest_put(struct guest *g, const void *data, uint64_t len)
{
	gpa_t at = guest_alloc(g, len, 16);

	memcpy(guest_ptr(g, at), data, len);
	return at;
}

/* ---- the driver's side of a queue ---- */

struct driver_queue {
	struct guest *guest;
	uint16_t size;
	gpa_t desc, avail, used;
	struct vring_desc *desc_table;
	struct vring_avail *avail_ring;
	struct vring_used *used_ring;
	uint16_t next_desc; /* descriptors are handed out round and round: tests keep few in flight */
	uint16_t next_avail; /* what avail.idx will be */
	uint16_t last_used;
};

struct driver_buf {
	gpa_t gpa;
	uint32_t len;
	bool write; /* the device's to write */
};

static inline void driver_queue_init(struct driver_queue *q, struct guest *g, uint16_t size)
{
	*q = (struct driver_queue){.guest = g, .size = size};
	q->desc = guest_alloc(g, 16ull * size, 16);
	q->avail = guest_alloc(g, 6 + 2ull * size, 2);
	q->used = guest_alloc(g, 6 + 8ull * size, 4);
	q->desc_table = guest_ptr(g, q->desc);
	q->avail_ring = guest_ptr(g, q->avail);
	q->used_ring = guest_ptr(g, q->used);
}

/* Tells the device where the queue is, as a transport would, and enables it. */
static inline int driver_queue_attach(const struct driver_queue *q, struct virtq *vq)
{
	vq->size = q->size;
	vq->desc = q->desc;
	vq->avail = q->avail;
	vq->used = q->used;
	return virtq_enable(vq);
}

static inline void driver_set_desc(
	struct driver_queue *q, uint16_t i, gpa_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	q->desc_table[i] = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

/* Makes `head` available, whatever it is. */
static inline void driver_publish(struct driver_queue *q, uint16_t head)
{
	q->avail_ring->ring[q->next_avail++ % q->size] = head;
	__atomic_store_n(&q->avail_ring->idx, q->next_avail, __ATOMIC_RELEASE);
}

static inline void driver_fill(
	struct vring_desc *table, uint16_t size, uint16_t first, const struct driver_buf *bufs, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++)
		table[(first + i) % size] = (struct vring_desc){.addr = bufs[i].gpa,
			.len = bufs[i].len,
			.flags = (uint16_t)((bufs[i].write ? VRING_DESC_F_WRITE : 0) |
					    (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			.next = (uint16_t)((first + i + 1) % size)};
}

/* A chain of `n` descriptors, available at once. Its head. */
static inline uint16_t driver_add(struct driver_queue *q, const struct driver_buf *bufs, uint16_t n)
{
	uint16_t head = q->next_desc;

	assert_true(n >= 1 && n <= q->size);
	driver_fill(q->desc_table, q->size, head, bufs, n);
	q->next_desc = (uint16_t)((head + n) % q->size);
	driver_publish(q, head);
	return head;
}

/* The same by one indirect descriptor. */
static inline uint16_t driver_add_indirect(struct driver_queue *q, const struct driver_buf *bufs, uint16_t n)
{
	gpa_t table = guest_alloc(q->guest, 16ull * n, 16);
	uint16_t head = q->next_desc;

	driver_fill(guest_ptr(q->guest, table), n, 0, bufs, n);
	driver_set_desc(q, head, table, 16u * n, VRING_DESC_F_INDIRECT, 0);
	q->next_desc = (uint16_t)((head + 1) % q->size);
	driver_publish(q, head);
	return head;
}

/* The next completion, if there is one. */
static inline bool driver_get_used(struct driver_queue *q, uint16_t *ret_head, uint32_t *ret_len)
{
	struct vring_used_elem *elem;

	if (__atomic_load_n(&q->used_ring->idx, __ATOMIC_ACQUIRE) == q->last_used)
		return false;
	elem = &q->used_ring->ring[q->last_used++ % q->size];
	*ret_head = (uint16_t)elem->id;
	*ret_len = elem->len;
	return true;
}

/* ---- a device without a transport ---- */

struct driver {
	struct virtio_dev *dev;
	struct loop *loop; /* NULL for a device that needs none */
	struct loop_source *deadline;
	bool late;
	unsigned interrupts[VIRTIO_QUEUES_MAX]; /* atomic */
	unsigned config_interrupts; /* atomic */
};

static inline void driver_on_interrupt(void *ctx, uint16_t q)
{
	struct driver *d = ctx;

	__atomic_fetch_add(q == VIRTIO_INTERRUPT_CONFIG ? &d->config_interrupts : &d->interrupts[q], 1,
		__ATOMIC_SEQ_CST);
	if (d->loop)
		loop_stop(d->loop);
}

static inline void driver_on_deadline(void *ctx)
{
	struct driver *d = ctx;

	d->late = true;
	loop_stop(d->loop);
}

static const struct virtio_transport driver_transport = {.interrupt = driver_on_interrupt};

static inline void driver_init(struct driver *d, struct virtio_dev *dev, struct loop *loop)
{
	*d = (struct driver){.dev = dev, .loop = loop};
	if (loop)
		d->deadline = loop_add_timer(loop, driver_on_deadline, d);
	dev->transport = &driver_transport;
	dev->transport_ctx = d;
}

/* Before the device and the loop go. */
static inline void driver_done(struct driver *d)
{
	d->dev->transport = NULL;
	loop_remove(d->deadline);
	d->deadline = NULL;
}

/* 3.1.1: reset, then every status bit in its order. The final status. VERSION_1 is added to `features`. */
static inline uint8_t driver_start(
	struct driver *d, uint64_t features, struct driver_queue *queues, uint16_t n)
{
	struct virtio_dev *dev = d->dev;
	uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE;

	virtio_dev_enter(dev);
	virtio_dev_set_status(dev, 0);
	virtio_dev_set_status(dev, status);
	virtio_dev_set_status(dev, status |= VIRTIO_STATUS_DRIVER);
	dev->driver_features = features | 1ull << VIRTIO_F_VERSION_1;
	virtio_dev_set_status(dev, status |= VIRTIO_STATUS_FEATURES_OK);
	assert_int_equal(dev->status, status);
	for (uint16_t i = 0; i < n; i++)
		assert_int_equal(driver_queue_attach(&queues[i], &dev->queues[i]), 0);
	virtio_dev_set_status(dev, status |= VIRTIO_STATUS_DRIVER_OK);
	status = dev->status;
	virtio_dev_leave(dev);
	return status;
}

static inline void driver_reset(struct driver *d)
{
	virtio_dev_enter(d->dev);
	virtio_dev_set_status(d->dev, 0);
	virtio_dev_leave(d->dev);
}

static inline uint8_t driver_status(struct driver *d)
{
	uint8_t status;

	virtio_dev_enter(d->dev);
	status = d->dev->status;
	virtio_dev_leave(d->dev);
	return status;
}

static inline void driver_kick(struct driver *d, uint16_t q)
{
	virtio_dev_doorbell(d->dev, q);
}

/* Runs the loop until `done(ctx)` holds; asked again after every interrupt. False when the deadline came first. */
static inline bool driver_run_until(struct driver *d, bool (*done)(void *ctx), void *ctx)
{
	d->late = false;
	loop_timer_arm(d->deadline, DRIVER_DEADLINE_NS);
	while (!done(ctx) && !d->late)
		assert_int_equal(loop_run(d->loop), 0);
	loop_timer_arm(d->deadline, UINT64_MAX);
	return !d->late;
}

struct driver_rounds {
	struct loop *loop;
	int left;
};

static inline void driver_on_round(void *ctx)
{
	struct driver_rounds *rounds = ctx;

	if (rounds->left-- > 0)
		loop_post(rounds->loop, driver_on_round, rounds);
	else
		loop_stop(rounds->loop);
}

/* Lets the loop deal `n` times with everything that is ready. */
static inline void driver_run_rounds(struct driver *d, int n)
{
	struct driver_rounds rounds = {d->loop, n};

	loop_post(d->loop, driver_on_round, &rounds);
	while (rounds.left >= 0) /* interrupts stop the loop too */
		assert_int_equal(loop_run(d->loop), 0);
}

static inline bool driver_queue_has_used(void *ctx)
{
	const struct driver_queue *q = ctx;

	return __atomic_load_n(&q->used_ring->idx, __ATOMIC_ACQUIRE) != q->last_used;
}

/* Runs the loop until the device has completed a request. */
static inline bool driver_wait_used(
	struct driver *d, struct driver_queue *q, uint16_t *ret_head, uint32_t *ret_len)
{
	return driver_run_until(d, driver_queue_has_used, q) && driver_get_used(q, ret_head, ret_len);
}

#endif
