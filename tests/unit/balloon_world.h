/* A balloon between its driver and a host that remembers what it was given back. */
#ifndef HULL_TESTS_UNIT_BALLOON_WORLD_H
#define HULL_TESTS_UNIT_BALLOON_WORLD_H

#include "tests/unit/virtq_driver.h"

#include "devices/virtio_balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>

#define LIVE	   15u
#define BROKEN	   (LIVE | VIRTIO_STATUS_NEEDS_RESET)
#define PAGE	   4096u
#define GUEST_SIZE (16u << 20)
#define QUEUE_SIZE 128
#define WHOLE	   (1ull << VIRTIO_BALLOON_F_STATS_VQ | 1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT | 1ull << VIRTIO_BALLOON_F_REPORTING)

/* The queues' numbers when all features are negotiated. */
enum { INFLATE, DEFLATE, STATS, HINTS, REPORTS, QUEUES };

struct span {
	gpa_t gpa;
	uint64_t len;
};

struct world {
	struct loop *loop;
	struct guest g;
	struct balloon_config config;
	struct virtio_dev *dev;
	struct driver d;
	struct driver_queue q[QUEUES];
	struct error err;
	struct span discards[16]; /* the first ones */
	unsigned n_discards;
	uint64_t discarded_bytes;
};

static inline int world_discard(void *ctx, gpa_t gpa, uint64_t len)
{
	struct world *w = ctx;

	if (w->n_discards < ARRAY_SIZE(w->discards))
		w->discards[w->n_discards] = (struct span){gpa, len};
	w->n_discards++;
	w->discarded_bytes += len;
	return gmem_span(&w->g.mem, gpa, len) ? 0 : -EFAULT;
}

static inline void world_make_device(struct world *w)
{
	w->dev = virtio_balloon_new(&w->config, w->loop, &w->g.mem, &w->err);
	assert_non_null(w->dev);
	driver_init(&w->d, w->dev, w->loop);
}

static inline void world_drop_device(struct world *w)
{
	driver_done(&w->d);
	virtio_dev_free(w->dev);
}

/* The driver negotiates `features` and sets up the first `n` queues, anew. */
static inline void world_start(struct world *w, uint64_t features, uint16_t n)
{
	w->g.brk = GUEST_BASE;
	memset(w->g.ram, 0, GUEST_SIZE);
	for (unsigned i = 0; i < QUEUES; i++)
		driver_queue_init(&w->q[i], &w->g, QUEUE_SIZE);
	assert_int_equal(driver_start(&w->d, features | 1ull << VIRTIO_RING_F_INDIRECT_DESC, w->q, n), LIVE);
}

static inline int world_setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->loop = loop_new();
	guest_init(&w->g, GUEST_SIZE);
	w->config = (struct balloon_config){.target_mib = 2,
		.deflate_on_oom = true,
		.stats_interval_s = 1,
		.hinting = true,
		.reporting = true,
		.discard = {world_discard, w, PAGE}};
	world_make_device(w);
	world_start(w, WHOLE, QUEUES);
	*state = w;
	return 0;
}

static inline int world_teardown(void **state)
{
	struct world *w = *state;

	world_drop_device(w);
	loop_free(w->loop);
	guest_done(&w->g);
	free(w);
	return 0;
}

/* The device is saved in the middle of what it does, and another goes on with that. */
static inline void world_move(struct world *w)
{
	struct state_writer writer;
	struct state_reader reader;

	virtio_dev_quiesce(w->dev);
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	world_drop_device(w);
	world_make_device(w);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(virtio_dev_load(w->dev, &reader, &w->err), 0);
	virtio_dev_resume(w->dev);
	state_writer_done(&writer);
}

static inline void world_expect_span(const struct world *w, unsigned i, gpa_t gpa, uint64_t len)
{
	assert_true(i < w->n_discards);
	assert_int_equal(w->discards[i].gpa, gpa);
	assert_int_equal(w->discards[i].len, len);
}

static inline const struct balloon_metrics *counts(const struct world *w)
{
	return virtio_balloon_metrics(w->dev);
}

static inline void world_send(struct world *w, uint16_t q, struct driver_buf buf)
{
	driver_add(&w->q[q], &buf, 1);
	driver_kick(&w->d, q);
}

/* Whether the next request is completed by now. */
static inline bool world_is_used(struct world *w, uint16_t q)
{
	uint16_t head;
	uint32_t len;

	if (!driver_get_used(&w->q[q], &head, &len))
		return false;
	assert_int_equal(len, 0);
	return true;
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

#endif
