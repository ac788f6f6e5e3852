/* A machine as a vhost device sees it: a small driver in memory that can be shared, a transport whose descriptors can be looked
 * at, and a back-end. */
#ifndef HULL_TESTS_UNIT_VHOST_WORLD_H
#define HULL_TESTS_UNIT_VHOST_WORLD_H

#include "tests/unit/vhost_backend.h"
#include "tests/unit/virtq_driver.h"

#include "devices/virtio_vhost.h"

#define BIT(n)	    (1ull << (n))
#define QSIZE	    64u
#define REGION	    (1u << 20)		       /* bytes; two of them, from one file */
#define FAR_REGION  (GUEST_BASE + 4 * REGION) /* the second one */
#define LIVE	    15u
#define BROKEN	    (LIVE | VIRTIO_STATUS_NEEDS_RESET)
#define SECTORS	    12345u
#define RING_EVENTS (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))

struct world {
	struct loop *loop;
	struct guest g;
	int ram_fd;
	struct backend b;
	struct vhost *vhost; /* NULL once a device has it */
	struct virtio_dev *dev;
	struct driver d;
	struct driver_queue q[VIRTIO_QUEUES_MAX];
	struct error err;
	int kick[VIRTIO_QUEUES_MAX], call[VIRTIO_QUEUES_MAX]; /* of the transport */
	bool interrupts_directly; /* the transport: by eventfds of its own */
	bool deaf[VIRTIO_QUEUES_MAX]; /* the loop listens to the doorbell no more */
	bool held; /* atomic: the back-end holds what it is asked */
	uint64_t patience_ns; /* with the back-end */
	struct vhost *taken;  /* the device's */
	unsigned descriptors; /* open before there was a device */
};

/* ---- the transport ---- */

static inline void world_interrupt(void *ctx, uint16_t q)
{
	driver_on_interrupt(&((struct world *)ctx)->d, q);
}

static inline int world_kick_fd(void *ctx, uint16_t q)
{
	return ((struct world *)ctx)->kick[q];
}

static inline void world_listen(void *ctx, uint16_t q, bool listen)
{
	((struct world *)ctx)->deaf[q] = !listen;
}

static inline int world_call_fd(void *ctx, uint16_t q)
{
	struct world *w = ctx;

	return w->interrupts_directly ? w->call[q] : -1;
}

static const struct virtio_transport world_transport = {
	world_interrupt, world_kick_fd, world_listen, world_call_fd};

/* ---- the back-end ---- */

/* Fills what it may write, and holds chains as long as it is told to. */
static inline int world_serve(struct backend *b, uint16_t q, const struct virtq_chain *chain)
{
	struct world *w = b->ctx;
	uint8_t byte = (uint8_t)(0x50 + q);

	if (__atomic_load_n(&w->held, __ATOMIC_SEQ_CST))
		return -1;
	for (uint64_t i = 0; i < chain->in_bytes; i++)
		virtq_chain_write(chain, i, &byte, 1);
	return (int)chain->in_bytes;
}

static inline void world_connect(struct world *w)
{
	int fd = backend_start(&w->b);

	w->vhost = vhost_user_new(fd, &w->err);
	if (w->vhost)
		w->vhost->patience_ns = w->patience_ns;
}

/* ---- the device ---- */

static inline void world_take(struct world *w, struct virtio_dev *dev)
{
	if (!dev)
		fail_msg("%s: %s", w->err.field, w->err.message);
	if (w->vhost)
		w->taken = w->vhost;
	w->vhost = NULL;
	w->dev = dev;
	driver_init(&w->d, dev, w->loop);
	dev->transport = &world_transport;
	dev->transport_ctx = w;
}

static inline void world_make_blk(struct world *w)
{
	world_connect(w);
	if (!w->vhost)
		fail_msg("%s", w->err.message);
	world_take(w, virtio_vhost_blk_new(w->vhost, "disk", true, w->loop, &w->g.mem, &w->err));
}

static inline void world_drop_device(struct world *w)
{
	if (!w->dev)
		return;
	driver_done(&w->d);
	virtio_dev_free(w->dev);
	w->dev = NULL;
}

static inline uint8_t world_start(struct world *w, uint64_t features, uint16_t n_queues)
{
	for (uint16_t q = 0; q < n_queues; q++)
		driver_queue_init(&w->q[q], &w->g, QSIZE);
	return driver_start(&w->d, features, w->q, n_queues);
}

static inline void world_kick(struct world *w, uint16_t q)
{
	eventfd_write(w->kick[q], 1);
}

/* A request for `len` bytes at `at`, which the back-end is told of. */
static inline void world_ask(struct world *w, uint16_t q, gpa_t at, uint32_t len)
{
	w->q[q].avail_ring->ring[QSIZE] = w->q[q].last_used; /* used_event: the next one interrupts (2.7.7) */
	driver_add(&w->q[q], &(struct driver_buf){at, len, true}, 1);
	world_kick(w, q);
}

static inline void world_is_served(struct world *w, uint16_t q)
{
	gpa_t at = guest_alloc(&w->g, 64, 16);
	uint8_t wanted[64];
	uint16_t head;
	uint32_t len;

	memset(wanted, 0x50 + q, sizeof(wanted));
	world_ask(w, q, at, sizeof(wanted));
	assert_true(driver_wait_used(&w->d, &w->q[q], &head, &len));
	assert_int_equal(len, sizeof(wanted));
	assert_memory_equal(guest_ptr(&w->g, at), wanted, sizeof(wanted));
}

static inline bool world_is_broken(void *ctx)
{
	return driver_status(&((struct world *)ctx)->d) & VIRTIO_STATUS_NEEDS_RESET;
}

/* The loop runs until the device is out of order. */
static inline void world_breaks(struct world *w)
{
	assert_true(driver_run_until(&w->d, world_is_broken, w));
	assert_int_equal(virtio_vhost_metrics(w->dev)->backend_fails, 1);
}

/* ---- its life ---- */

static inline void world_make_memory(struct world *w)
{
	w->ram_fd = memfd_create("guest", MFD_CLOEXEC);
	assert_true(w->ram_fd >= 0);
	assert_int_equal(ftruncate(w->ram_fd, 2 * REGION), 0);
	w->g = (struct guest){.size = REGION, .brk = GUEST_BASE};
	w->g.ram = mmap(NULL, 2 * REGION, PROT_READ | PROT_WRITE, MAP_SHARED, w->ram_fd, 0);
	assert_true(w->g.ram != MAP_FAILED);
	assert_int_equal(gmem_add_shared(&w->g.mem, GUEST_BASE, REGION, w->g.ram, w->ram_fd, 0), 0);
	assert_int_equal(
		gmem_add_shared(&w->g.mem, FAR_REGION, REGION, w->g.ram + REGION, w->ram_fd, REGION), 0);
}

static inline int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	const uint64_t sectors = SECTORS;

	world_make_memory(w);
	w->loop = loop_new();
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		w->kick[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		w->call[q] = eventfd(0, EFD_CLOEXEC);
	}
	w->patience_ns = DRIVER_DEADLINE_NS / 2;
	backend_init(&w->b);
	w->b.serve = world_serve;
	w->b.ctx = w;
	memcpy(w->b.config, &sectors, sizeof(sectors));
	w->descriptors = count_entries("/proc/self/fd");
	*state = w;
	return 0;
}

static inline int teardown(void **state)
{
	struct world *w = *state;

	world_drop_device(w);
	if (w->vhost)
		w->vhost->ops->free(w->vhost);
	backend_stop(&w->b);
	assert_int_equal(count_entries("/proc/self/fd"), w->descriptors);
	loop_free(w->loop);
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		close_fd(w->kick[q]);
		close_fd(w->call[q]);
	}
	munmap(w->g.ram, 2 * REGION);
	close_fd(w->ram_fd);
	free(w);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
