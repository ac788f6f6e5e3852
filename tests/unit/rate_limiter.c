/* Token buckets against an invented clock: what is let through in a time, to the token. */
#include "devices/rate_limiter.h"
#include "tests/unit/test.h"

#define MS 1000000ull
#define S  1000000000ull

/* Operations of `bytes` as fast as they may begin, for `duration_ns` from `start_ns`: bytes moved. */
static uint64_t saturate(struct rate_limiter *limiter, uint64_t bytes, uint64_t start_ns, uint64_t duration_ns)
{
	uint64_t now = start_ns, moved = 0;

	for (;;) {
		uint64_t delay = rate_limiter_delay_ns(limiter, now);

		if (delay > start_ns + duration_ns - now)
			return moved;
		now += delay;
		assert_int_equal(rate_limiter_delay_ns(limiter, now), 0); /* the time it said was right */
		rate_limiter_charge(limiter, bytes, now);
		moved += bytes;
	}
}

static void make(struct rate_limiter *limiter, int64_t size, int64_t refill_time, int64_t burst, bool of_ops)
{
	struct token_bucket_config bucket = {size, refill_time, burst};
	struct rate_limiter_config config = {of_ops ? NULL : &bucket, of_ops ? &bucket : NULL};

	rate_limiter_init(limiter, &config, 0);
}

static void test_no_limit(void **state)
{
	struct rate_limiter limiter;

	(void)state;
	rate_limiter_init(&limiter, NULL, 5);
	assert_false(rate_limiter_is_on(&limiter));
	rate_limiter_charge(&limiter, UINT64_MAX, 5);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 5), 0);
	make(&limiter, 0, 100, 0, false);
	assert_false(rate_limiter_is_on(&limiter));
	make(&limiter, 100, 0, 0, false);
	assert_false(rate_limiter_is_on(&limiter));
	assert_int_equal(token_bucket_take(&limiter.bandwidth, 77, 0), 77);
}

/* Ten seconds: the bucket, the burst, and what has come since, and at most one operation more. */
static void test_the_rate_is_held(void **state)
{
	static const struct {
		int64_t size, refill_time, burst;
		uint64_t bytes;
	} cases[] = {
		{1 << 20, 1000, 0, 4096},
		{1 << 20, 1000, 1 << 20, 4096},
		{1 << 20, 100, 0, 65536},
		{1000, 7, 333, 64},
		{7, 1000, 0, 1},
		{4096, 1000, 0, 1 << 20}, /* each request is larger than the bucket */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rate_limiter limiter;
		unsigned __int128 due = (unsigned __int128)cases[i].size + (uint64_t)cases[i].burst;
		uint64_t moved;

		make(&limiter, cases[i].size, cases[i].refill_time, cases[i].burst, false);
		moved = saturate(&limiter, cases[i].bytes, 0, 10 * S);
		due += (unsigned __int128)cases[i].size * 10000 / (uint64_t)cases[i].refill_time;
		if (moved > due + cases[i].bytes || moved + cases[i].bytes < due)
			fail_msg("case %zu: %llu moved, %llu due", i, (unsigned long long)moved, (unsigned long long)due);
	}
}

static void test_operations_are_counted_too(void **state)
{
	struct token_bucket_config bytes = {1000, 1000, 0}, ops = {2, 1000, 0};
	struct rate_limiter_config config = {&bytes, &ops};
	struct rate_limiter limiter;

	(void)state;
	make(&limiter, 10, 1000, 5, true);
	assert_int_equal(saturate(&limiter, 1, 0, 10 * S), 10 + 5 + 100);
	/* The slower of the two decides. */
	rate_limiter_init(&limiter, &config, 0);
	assert_int_equal(saturate(&limiter, 1, 0, 10 * S), 2 + 20);
	rate_limiter_init(&limiter, &config, 0);
	assert_int_equal(saturate(&limiter, 1000, 0, 10 * S), 11000);
}

static void test_a_debt_is_paid_before_anything_begins(void **state)
{
	struct rate_limiter limiter;

	(void)state;
	make(&limiter, 1000, 1000, 0, false);
	rate_limiter_charge(&limiter, 3000, 0); /* 2000 below zero: two seconds, and one token */
	assert_int_equal(rate_limiter_delay_ns(&limiter, 0), 2 * S + 1 * MS);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 1 * S), 1 * S + 1 * MS);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 2 * S + 1 * MS), 0);
}

static void test_a_rest_fills_no_more_than_the_bucket(void **state)
{
	struct rate_limiter limiter;

	(void)state;
	make(&limiter, 100, 1000, 50, false);
	assert_int_equal(saturate(&limiter, 1, 0, 0), 150);
	assert_int_equal(saturate(&limiter, 1, 3600 * S, 0), 100); /* the burst does not come back */
	assert_int_equal(saturate(&limiter, 1, 3600 * S + 500 * MS, 0), 50);
}

static void test_a_clock_that_goes_back_takes_nothing(void **state)
{
	struct rate_limiter limiter;

	(void)state;
	make(&limiter, 100, 1000, 0, false);
	rate_limiter_charge(&limiter, 100, 10 * S);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 9 * S), 10 * MS);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 10 * S), 10 * MS);
}

static void test_extremes(void **state)
{
	struct rate_limiter limiter;

	(void)state;
	make(&limiter, INT64_MAX, 1000000000000, INT64_MAX, false);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 0), 0);
	for (int i = 0; i < 100; i++)
		rate_limiter_charge(&limiter, UINT64_MAX, 0);
	assert_in_range(rate_limiter_delay_ns(&limiter, 0), 1, INT64_MAX);
	make(&limiter, 1, 1000000000000, 0, false);
	rate_limiter_charge(&limiter, 1, 0);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 0), 1000000000000 * MS);
	make(&limiter, INT64_MAX, 1, 0, false);
	rate_limiter_charge(&limiter, INT64_MAX, 0);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 0), 1);
}

static void test_an_update_replaces_what_it_names(void **state)
{
	struct token_bucket_config slow = {10, 1000, 0};
	struct rate_limiter_config only_ops = {NULL, &slow}, off = {&(struct token_bucket_config){0, 0, 0}, NULL};
	struct rate_limiter limiter;

	(void)state;
	make(&limiter, 1000, 1000, 0, false);
	rate_limiter_charge(&limiter, 1000, 0);
	rate_limiter_update(&limiter, &only_ops, 0);
	assert_int_equal(rate_limiter_delay_ns(&limiter, 0), 1 * MS); /* the bytes are still spent */
	assert_int_equal(limiter.ops.size, 10);
	rate_limiter_update(&limiter, &off, 0);
	assert_int_equal(limiter.bandwidth.size, 0);
	assert_int_equal(saturate(&limiter, 1000000, 0, 0), 10 * 1000000);
}

static void test_taking_what_there_is(void **state)
{
	struct token_bucket bucket;

	(void)state;
	token_bucket_init(&bucket, &(struct token_bucket_config){100, 1000, 20}, 0);
	assert_int_equal(token_bucket_take(&bucket, 50, 0), 50); /* the burst first */
	assert_int_equal(token_bucket_take(&bucket, 100, 0), 70);
	assert_int_equal(token_bucket_take(&bucket, 100, 0), 0);
	assert_int_equal(token_bucket_take(&bucket, 100, 9 * MS), 0); /* not a whole one yet */
	assert_int_equal(token_bucket_take(&bucket, 100, 10 * MS), 1);
	assert_int_equal(token_bucket_take(&bucket, UINT64_MAX, 10 * S), 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limit),
		cmocka_unit_test(test_the_rate_is_held),
		cmocka_unit_test(test_operations_are_counted_too),
		cmocka_unit_test(test_a_debt_is_paid_before_anything_begins),
		cmocka_unit_test(test_a_rest_fills_no_more_than_the_bucket),
		cmocka_unit_test(test_a_clock_that_goes_back_takes_nothing),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_an_update_replaces_what_it_names),
		cmocka_unit_test(test_taking_what_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
