/* An orderly end: who is asked, how often, and when patience is over. */
#include "tests/unit/test.h"

#include "common/loop.h"
#include "vmm/shutdown.h"

#include <stdio.h>

struct world {
	struct loop *loop;
	struct shutdown *shutdown;
	unsigned asked, enough; /* the loop ends when it was asked so often */
	unsigned gave_up;
	char why[96];
};

static void ask(void *ctx)
{
	struct world *w = ctx;

	if (++w->asked == w->enough)
		loop_stop(w->loop);
}

static void give_up(void *ctx, const char *why)
{
	struct world *w = ctx;

	w->gave_up++;
	snprintf(w->why, sizeof(w->why), "%s", why);
	loop_stop(w->loop);
}

static const struct shutdown_ops ops = {ask, give_up};

static void world_init(struct world *w, uint64_t timeout_ms, uint64_t ask_every_ms)
{
	*w = (struct world){.loop = loop_new()};
	assert_non_null(w->loop);
	w->shutdown = shutdown_new(w->loop, (struct shutdown_times){timeout_ms, ask_every_ms}, &ops, w);
	assert_non_null(w->shutdown);
}

static void world_done(struct world *w)
{
	shutdown_free(w->shutdown);
	loop_free(w->loop);
}

static void test_a_guest_is_asked_again(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 3600000, 1);
	w.enough = 5;
	shutdown_request(w.shutdown, "SIGTERM");
	assert_int_equal(w.asked, 1);
	assert_int_equal(loop_run(w.loop), 0);
	assert_int_equal(w.asked, 5);
	assert_int_equal(w.gave_up, 0);
	world_done(&w);
}

static void test_its_time_is_over_once(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 20, 3600000);
	shutdown_request(w.shutdown, "SIGTERM");
	assert_int_equal(loop_run(w.loop), 0);
	assert_int_equal(w.gave_up, 1);
	assert_string_equal(w.why, "SIGTERM, and the guest did not power off within 0.02 s");
	shutdown_request(w.shutdown, "SIGTERM");
	assert_int_equal(w.gave_up, 1);
	assert_int_equal(w.asked, 1);
	world_done(&w);
}

static void test_a_second_request_does_not_wait(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 3600000, 3600000);
	shutdown_request(w.shutdown, "SIGTERM");
	assert_int_equal(w.gave_up, 0);
	shutdown_request(w.shutdown, "SIGTERM");
	assert_int_equal(w.gave_up, 1);
	assert_string_equal(w.why, "SIGTERM, twice");
	world_done(&w);
}

static void test_without_a_timeout_nobody_is_asked(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 0, 1);
	shutdown_request(w.shutdown, "SIGTERM");
	assert_int_equal(w.asked, 0);
	assert_int_equal(w.gave_up, 1);
	assert_string_equal(w.why, "SIGTERM");
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_guest_is_asked_again),
		cmocka_unit_test(test_its_time_is_over_once),
		cmocka_unit_test(test_a_second_request_does_not_wait),
		cmocka_unit_test(test_without_a_timeout_nobody_is_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
