/* virtio-balloon before a host whose pages are of 2 MiB: it has one when all of it is in the balloon, and only then. */
#include "tests/unit/balloon_world.h"

#define HUGE	   (2u << 20)
#define MUST_TELL  (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST)
#define BLOCK_PFN  (HUGE / PAGE) /* of the block in [2 MiB, 4 MiB) */
#define BLOCK_SIZE 512u

static int setup(void **state)
{
	struct world *w;

	world_setup(state);
	w = *state;
	world_drop_device(w);
	w->config.discard.page_bytes = HUGE;
	world_make_device(w);
	world_start(w, WHOLE | MUST_TELL, QUEUES);
	return 0;
}

/* `n` pages from `pfn` on, by the queue `q`. */
static void move(struct world *w, uint16_t q, uint32_t pfn, uint32_t n)
{
	uint32_t pfns[BLOCK_SIZE];

	for (uint32_t i = 0; i < n; i++)
		pfns[i] = pfn + i;
	world_send(w, q, (struct driver_buf){guest_put(&w->g, pfns, n * sizeof(*pfns)), n * (uint32_t)sizeof(*pfns), false});
	assert_true(world_is_used(w, q));
}

static void a_block_goes_when_all_of_it_is_in(void **state)
{
	struct world *w = *state;

	move(w, INFLATE, BLOCK_PFN, 256);
	move(w, INFLATE, BLOCK_PFN, 256); /* pages that are in do not count again */
	move(w, INFLATE, BLOCK_PFN + 257, 255);
	assert_int_equal(w->n_discards, 0);
	move(w, INFLATE, BLOCK_PFN + 256, 1);
	assert_int_equal(w->n_discards, 1);
	world_expect_span(w, 0, HUGE, HUGE);
	move(w, INFLATE, BLOCK_PFN, BLOCK_SIZE);
	assert_int_equal(w->n_discards, 1);
	assert_int_equal(counts(w)->event_fails, 0);
}

static void a_page_that_is_out_keeps_its_block(void **state)
{
	struct world *w = *state;

	move(w, INFLATE, BLOCK_PFN, 256);
	move(w, DEFLATE, BLOCK_PFN + 7, 1);
	move(w, DEFLATE, BLOCK_PFN + 300, 1); /* it was not in */
	move(w, INFLATE, BLOCK_PFN + 256, 256);
	assert_int_equal(w->n_discards, 0);
	move(w, INFLATE, BLOCK_PFN + 7, 1);
	assert_int_equal(w->n_discards, 1);
	/* Once more out and in, and the host has it once more. */
	move(w, DEFLATE, BLOCK_PFN + 511, 1);
	move(w, INFLATE, BLOCK_PFN + 511, 1);
	assert_int_equal(w->n_discards, 2);
	world_expect_span(w, 1, HUGE, HUGE);
}

static void pages_beyond_all_memory_are_nothing(void **state)
{
	struct world *w = *state;

	move(w, INFLATE, UINT32_MAX - BLOCK_SIZE + 1, BLOCK_SIZE);
	move(w, DEFLATE, UINT32_MAX - BLOCK_SIZE + 1, BLOCK_SIZE);
	assert_int_equal(w->n_discards, 0);
	move(w, INFLATE, 0, BLOCK_SIZE); /* a block that begins before memory does */
	assert_int_equal(w->n_discards, 1);
	assert_int_equal(counts(w)->event_fails, 1);
	assert_int_equal(driver_status(&w->d), LIVE);
	world_send(w, DEFLATE, (struct driver_buf){GUEST_BASE, 6, false});
	assert_int_equal(driver_status(&w->d), BROKEN);
}

static void what_is_in_is_known_after_a_load(void **state)
{
	struct world *w = *state;

	for (uint32_t i = 0; i < BLOCK_SIZE; i += 2)
		move(w, INFLATE, BLOCK_PFN + i, 1);
	move(w, INFLATE, 3 * BLOCK_PFN, BLOCK_SIZE - 1);
	world_move(w);
	move(w, INFLATE, 3 * BLOCK_PFN + BLOCK_SIZE - 1, 1);
	assert_int_equal(w->n_discards, 1);
	world_expect_span(w, 0, 3 * HUGE, HUGE);
	for (uint32_t i = 1; i < BLOCK_SIZE; i += 2)
		move(w, INFLATE, BLOCK_PFN + i, 1);
	assert_int_equal(w->n_discards, 2);
	world_expect_span(w, 1, HUGE, HUGE);
	/* A host with small pages has no use for it. */
	w->config.discard.page_bytes = PAGE;
	virtio_dev_enter(w->dev);
	w->dev->driver_features &= ~MUST_TELL; /* as it would not have been offered there */
	virtio_dev_leave(w->dev);
	world_move(w);
	move(w, INFLATE, BLOCK_PFN, 1);
	assert_int_equal(w->n_discards, 3);
}

static void a_reset_empties_it(void **state)
{
	struct world *w = *state;

	move(w, INFLATE, BLOCK_PFN, BLOCK_SIZE - 1);
	world_start(w, WHOLE | MUST_TELL, QUEUES);
	move(w, INFLATE, BLOCK_PFN + BLOCK_SIZE - 1, 1);
	assert_int_equal(w->n_discards, 0);
}

/* 5.5.3: it may use pages before it says that they are out. */
static void a_driver_that_does_not_tell_gathers_nothing(void **state)
{
	struct world *w = *state;

	world_start(w, WHOLE, QUEUES);
	move(w, INFLATE, BLOCK_PFN, 256);
	assert_int_equal(w->n_discards, 1); /* of which the host makes what it can */
	world_expect_span(w, 0, HUGE, HUGE / 2);
	move(w, INFLATE, BLOCK_PFN + 256, 256);
	world_expect_span(w, 1, HUGE + HUGE / 2, HUGE / 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_block_goes_when_all_of_it_is_in),
		TEST(a_page_that_is_out_keeps_its_block),
		TEST(pages_beyond_all_memory_are_nothing),
		TEST(what_is_in_is_known_after_a_load),
		TEST(a_reset_empties_it),
		TEST(a_driver_that_does_not_tell_gathers_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
