/* virtio-balloon's pages: put in, taken out, reported; by few discards, and in rounds however long a request is. */
#include "tests/unit/balloon_world.h"

#define FIRST_PFN (GUEST_BASE / PAGE)

static void inflate(struct world *w, const uint32_t *pfns, uint32_t n)
{
	gpa_t list = guest_put(&w->g, pfns, n * sizeof(*pfns));

	world_send(w, INFLATE, (struct driver_buf){list, n * (uint32_t)sizeof(*pfns), false});
}

/* As Linux gives them: a mebibyte at a time, mostly from above. */
static void a_mebibyte_is_one_discard(void **state)
{
	struct world *w = *state;
	uint32_t pfns[256];

	for (uint32_t i = 0; i < 256; i++)
		pfns[i] = FIRST_PFN + 1000 - i;
	inflate(w, pfns, 256);
	assert_true(world_is_used(w, INFLATE));
	assert_int_equal(w->d.interrupts[INFLATE], 1);
	assert_int_equal(w->n_discards, 1);
	world_expect_span(w, 0, GUEST_BASE + 745 * PAGE, 1 << 20);
	assert_int_equal(counts(w)->inflate_count, 1);
	assert_int_equal(counts(w)->event_fails, 0);
}

static void pages_in_disorder_are_few_ranges(void **state)
{
	struct world *w = *state;
	const uint32_t pfns[] = {FIRST_PFN + 9, FIRST_PFN + 3, FIRST_PFN + 1, FIRST_PFN + 2, FIRST_PFN + 9, FIRST_PFN + 1,
		FIRST_PFN + 12, FIRST_PFN + 10, FIRST_PFN + 9};

	inflate(w, pfns, ARRAY_SIZE(pfns));
	assert_int_equal(w->n_discards, 3);
	world_expect_span(w, 0, GUEST_BASE + 1 * PAGE, 3 * PAGE);
	world_expect_span(w, 1, GUEST_BASE + 9 * PAGE, 2 * PAGE);
	world_expect_span(w, 2, GUEST_BASE + 12 * PAGE, PAGE);
}

static void pages_that_are_no_ram_are_counted(void **state)
{
	struct world *w = *state;
	const uint32_t pfns[] = {FIRST_PFN + 1, 0, UINT32_MAX, FIRST_PFN + GUEST_SIZE / PAGE};

	inflate(w, pfns, ARRAY_SIZE(pfns));
	assert_true(world_is_used(w, INFLATE));
	assert_int_equal(driver_status(&w->d), LIVE);
	assert_int_equal(counts(w)->event_fails, 3);
	world_expect_span(w, 3, (gpa_t)UINT32_MAX * PAGE, PAGE);
}

static void what_is_no_list_of_pages_is_refused(void **state)
{
	struct world *w = *state;
	const struct driver_buf bad[] = {{GUEST_BASE + PAGE, 6, false}, {GUEST_BASE + PAGE, 0, false},
		{GUEST_BASE + PAGE, 4, true}, {0, 4, false}, {GUEST_BASE + PAGE, UINT32_MAX, false}};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		world_start(w, WHOLE, QUEUES);
		world_send(w, INFLATE, bad[i]);
		assert_int_equal(driver_status(&w->d), BROKEN);
		assert_int_equal(w->q[INFLATE].used_ring->idx, 0);
		assert_int_equal(counts(w)->event_fails, i + 1);
	}
	assert_int_equal(w->n_discards, 0);
	world_start(w, WHOLE, QUEUES);
	world_send(w, REPORTS, (struct driver_buf){GUEST_BASE + PAGE, PAGE, false});
	assert_int_equal(driver_status(&w->d), BROKEN);
}

static void pages_taken_out_need_nothing(void **state)
{
	struct world *w = *state;
	const uint32_t pfns[] = {FIRST_PFN, 0};
	gpa_t list = guest_put(&w->g, pfns, sizeof(pfns));

	world_send(w, DEFLATE, (struct driver_buf){list, sizeof(pfns), false});
	assert_true(world_is_used(w, DEFLATE));
	assert_int_equal(w->d.interrupts[DEFLATE], 1);
	assert_int_equal(w->n_discards, 0);
	assert_int_equal(counts(w)->deflate_count, 1);
}

#define PIECES	  64u
#define LONG_LIST 1024u /* numbers in each, of every second page */

/* One request of 65,536 ranges, and behind it one of a single page. */
static void send_long_list(struct world *w)
{
	uint32_t pfns[LONG_LIST], last = FIRST_PFN;
	struct driver_buf bufs[PIECES];
	gpa_t list;

	for (uint32_t i = 0; i < LONG_LIST; i++)
		pfns[i] = FIRST_PFN + 2 * i;
	list = guest_put(&w->g, pfns, sizeof(pfns));
	for (unsigned i = 0; i < PIECES; i++)
		bufs[i] = (struct driver_buf){list, sizeof(pfns), false};
	driver_add_indirect(&w->q[INFLATE], bufs, PIECES);
	inflate(w, &last, 1);
}

static bool both_are_used(void *ctx)
{
	return ((struct world *)ctx)->q[INFLATE].used_ring->idx == 2;
}

static void a_long_request_is_worked_on_in_rounds(void **state)
{
	struct world *w = *state;

	send_long_list(w);
	assert_int_equal(w->n_discards, 1024);
	assert_int_equal(w->q[INFLATE].used_ring->idx, 0);
	driver_run_rounds(&w->d, 2);
	assert_in_range(w->n_discards, 2 * 1024, 5 * 1024); /* others have their turns meanwhile */
	assert_true(driver_run_until(&w->d, both_are_used, w));
	assert_int_equal(w->n_discards, PIECES * LONG_LIST + 1);
	assert_int_equal(counts(w)->inflate_count, 1);
}

static void a_long_request_goes_on_after_a_load(void **state)
{
	struct world *w = *state;

	send_long_list(w);
	world_move(w);
	assert_int_equal(w->n_discards, 2 * 1024);
	assert_true(driver_run_until(&w->d, both_are_used, w));
	assert_int_equal(w->n_discards, PIECES * LONG_LIST + 1);
}

static void a_reset_forgets_a_long_request(void **state)
{
	struct world *w = *state;
	uint32_t pfn = FIRST_PFN;

	send_long_list(w);
	world_start(w, WHOLE, QUEUES);
	driver_run_rounds(&w->d, 2);
	assert_int_equal(w->n_discards, 1024);
	inflate(w, &pfn, 1);
	assert_true(world_is_used(w, INFLATE));
	assert_int_equal(w->n_discards, 1025);
}

static void what_is_reported_free_goes(void **state)
{
	struct world *w = *state;
	const struct driver_buf bufs[] = {{GUEST_BASE + (2 << 20), 2 << 20, true}, {GUEST_BASE + (8 << 20), 4 << 20, true}};

	driver_add_indirect(&w->q[REPORTS], bufs, 2);
	driver_kick(&w->d, REPORTS);
	assert_true(world_is_used(w, REPORTS));
	assert_int_equal(w->d.interrupts[REPORTS], 1);
	assert_int_equal(w->n_discards, 2);
	world_expect_span(w, 0, bufs[0].gpa, bufs[0].len);
	world_expect_span(w, 1, bufs[1].gpa, bufs[1].len);
	assert_int_equal(counts(w)->free_page_report_count, 2);
	assert_int_equal(counts(w)->free_page_report_freed, 6 << 20);
	assert_int_equal(counts(w)->free_page_report_fails, 0);
}

static bool report_is_used(void *ctx)
{
	return ((struct world *)ctx)->q[REPORTS].used_ring->idx == 1;
}

/* All of memory, 100 times over. */
static void a_long_report_is_worked_on_in_rounds(void **state)
{
	struct world *w = *state;
	struct driver_buf bufs[100];

	for (unsigned i = 0; i < ARRAY_SIZE(bufs); i++)
		bufs[i] = (struct driver_buf){GUEST_BASE + (1 << 20), GUEST_SIZE - (1 << 20), true};
	driver_add_indirect(&w->q[REPORTS], bufs, ARRAY_SIZE(bufs));
	driver_kick(&w->d, REPORTS);
	assert_in_range(w->discarded_bytes, 64 << 20, 192 << 20);
	world_move(w);
	assert_in_range(w->discarded_bytes, 128 << 20, 384 << 20);
	assert_true(driver_run_until(&w->d, report_is_used, w));
	assert_int_equal(w->discarded_bytes, 100 * (uint64_t)(GUEST_SIZE - (1 << 20)));
	assert_int_equal(w->n_discards, 100);
}

/* 5.5.2: the number of a queue that is there is the next one; the others are not there at all. */
static void queues_are_there_as_features_are(void **state)
{
	struct world *w = *state;

	assert_int_equal(w->dev->ops->n_queues, QUEUES);
	world_start(w, 1ull << VIRTIO_BALLOON_F_REPORTING, 3);
	world_send(w, 2, (struct driver_buf){GUEST_BASE + (1 << 20), PAGE, true});
	assert_int_equal(counts(w)->free_page_report_count, 1);
	world_send(w, 3, (struct driver_buf){GUEST_BASE + (1 << 20), PAGE, true}); /* not set up */
	assert_int_equal(w->q[3].used_ring->idx, 0);
	world_start(w, 0, 3);
	world_send(w, 2, (struct driver_buf){GUEST_BASE + (1 << 20), PAGE, true}); /* of no use */
	assert_int_equal(driver_status(&w->d), LIVE);
	assert_int_equal(w->n_discards, 1);

	world_drop_device(w);
	w->config.stats_interval_s = 0;
	w->config.hinting = w->config.deflate_on_oom = false;
	world_make_device(w);
	assert_int_equal(w->dev->ops->n_queues, 3);
	assert_int_equal(w->dev->ops->config_size, 8);
	assert_int_equal(w->dev->ops->features(w->dev), 1ull << VIRTIO_BALLOON_F_REPORTING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_mebibyte_is_one_discard),
		WORLD_TEST(pages_in_disorder_are_few_ranges),
		WORLD_TEST(pages_that_are_no_ram_are_counted),
		WORLD_TEST(what_is_no_list_of_pages_is_refused),
		WORLD_TEST(pages_taken_out_need_nothing),
		WORLD_TEST(a_long_request_is_worked_on_in_rounds),
		WORLD_TEST(a_long_request_goes_on_after_a_load),
		WORLD_TEST(a_reset_forgets_a_long_request),
		WORLD_TEST(what_is_reported_free_goes),
		WORLD_TEST(a_long_report_is_worked_on_in_rounds),
		WORLD_TEST(queues_are_there_as_features_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
