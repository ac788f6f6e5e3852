/* The event loop: what is called, when, and what never is. */
#include "tests/unit/test.h"

#include "common/loop.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

struct fixture {
	struct loop *loop;
	int pipe[2];
	struct loop_source *source, *other, *timer;
	int calls;
	char order[16];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->loop = loop_new();
	assert_non_null(f->loop);
	assert_int_equal(pipe(f->pipe), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	loop_free(f->loop);
	close(f->pipe[0]);
	close(f->pipe[1]);
	free(f);
	return 0;
}

static void stop(void *ctx)
{
	loop_stop(((struct fixture *)ctx)->loop);
}

static void on_readable(void *ctx, uint32_t events)
{
	struct fixture *f = ctx;
	char c;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(f->pipe[0], &c, 1), 1);
	f->calls++;
	loop_stop(f->loop);
}

static void a_readable_descriptor_is_called(void **state)
{
	struct fixture *f = *state;

	f->source = loop_add_fd(f->loop, f->pipe[0], EPOLLIN, on_readable, f);
	assert_int_equal(write(f->pipe[1], "x", 1), 1);
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->calls, 1);
}

static void remove_both(void *ctx, uint32_t events)
{
	struct fixture *f = ctx;

	(void)events;
	f->calls++;
	loop_remove(f->source);
	loop_remove(f->other);
	f->source = f->other = NULL;
	loop_timer_arm(f->timer, 0);
}

static void a_source_removed_in_a_callback_is_never_called_again(void **state)
{
	struct fixture *f = *state;
	int copy = dup(f->pipe[0]);

	f->timer = loop_add_timer(f->loop, stop, f);
	f->source = loop_add_fd(f->loop, f->pipe[0], EPOLLIN, remove_both, f);
	f->other = loop_add_fd(f->loop, copy, EPOLLIN, remove_both, f);
	assert_int_equal(write(f->pipe[1], "x", 1), 1);
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->calls, 1);
	close(copy);
}

static void a_parked_source_is_not_called_not_even_for_a_hang_up(void **state)
{
	struct fixture *f = *state;

	f->timer = loop_add_timer(f->loop, stop, f);
	f->source = loop_add_fd(f->loop, f->pipe[0], EPOLLIN, on_readable, f);
	assert_int_equal(loop_set_events(f->source, 0), 0);
	close(f->pipe[1]);
	loop_timer_arm(f->timer, 1000000);
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->calls, 0);
	f->pipe[1] = dup(0);
}

static void note(struct fixture *f, char c)
{
	size_t n = strlen(f->order);

	f->order[n] = c;
}

static void second(void *ctx)
{
	note(ctx, '2');
	stop(ctx);
}

static void first(void *ctx)
{
	note(ctx, '1');
}

static void timers_fire_once_and_in_order(void **state)
{
	struct fixture *f = *state;
	struct loop_source *late = loop_add_timer(f->loop, second, f);
	struct loop_source *early = loop_add_timer(f->loop, first, f);
	struct loop_source *never = loop_add_timer(f->loop, second, f);

	loop_timer_arm(late, 3000000);
	loop_timer_arm(early, 1000000);
	loop_timer_arm(never, 1);
	loop_timer_arm(never, UINT64_MAX);
	assert_int_equal(loop_run(f->loop), 0);
	assert_string_equal(f->order, "12");
}

static void again(void *ctx)
{
	struct fixture *f = ctx;

	if (++f->calls == 100)
		loop_stop(f->loop);
	loop_timer_arm(f->timer, 0);
}

#define N_MANY 500

static struct many {
	struct loop_source *timer;
	struct loop *loop;
	uint64_t delay_ns;
	int *left;
	uint64_t *last_ns;
} many[N_MANY];

static void on_one_of_many(void *ctx)
{
	struct many *one = ctx;

	assert_true(one->delay_ns >= *one->last_ns);
	*one->last_ns = one->delay_ns;
	one->delay_ns = 0; /* it has fired */
	if (--*one->left == 0)
		loop_stop(one->loop);
}

/* Each is armed, and a third again for another time, a third not after all, and of those, some are removed. */
static void many_timers_fire_in_order_however_they_are_changed(void **state)
{
	struct fixture *f = *state;
	int left = N_MANY;
	uint64_t last_ns = 0;

	srand(7);
	for (int i = 0; i < N_MANY; i++) {
		many[i] = (struct many){.loop = f->loop, .left = &left, .last_ns = &last_ns};
		many[i].timer = loop_add_timer(f->loop, on_one_of_many, &many[i]);
		assert_non_null(many[i].timer);
		loop_timer_arm(many[i].timer, 1000000000ull + (uint64_t)rand());
	}
	/* Some ms apart, so that the time this takes changes no order. */
	for (int i = 0; i < N_MANY; i++) {
		many[i].delay_ns = 1 + (uint64_t)(rand() % 8) * 20000000ull;
		loop_timer_arm(many[i].timer, i % 3 == 2 ? UINT64_MAX : many[i].delay_ns);
		left -= i % 3 == 2;
		if (i % 9 == 2)
			loop_remove(many[i].timer);
	}
	assert_int_equal(loop_run(f->loop), 0);
	for (int i = 0; i < N_MANY; i++)
		assert_int_equal(many[i].delay_ns == 0, i % 3 != 2);
}

static void a_timer_may_arm_itself_anew(void **state)
{
	struct fixture *f = *state;

	f->timer = loop_add_timer(f->loop, again, f);
	loop_timer_arm(f->timer, 0);
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->calls, 100);
}

static void *post_from_thread(void *ctx)
{
	struct fixture *f = ctx;

	loop_post(f->loop, first, f);
	loop_post(f->loop, second, f);
	return NULL;
}

static void what_other_threads_post_runs_here_in_order(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	pthread_create(&thread, NULL, post_from_thread, f);
	assert_int_equal(loop_run(f->loop), 0);
	pthread_join(thread, NULL);
	assert_string_equal(f->order, "12");
}

static void on_signal(void *ctx, uint32_t signo)
{
	struct fixture *f = ctx;

	f->calls = (int)signo;
	loop_stop(f->loop);
}

static void a_signal_is_an_event(void **state)
{
	struct fixture *f = *state;

	assert_non_null(loop_add_signal(f->loop, SIGUSR1, on_signal, f));
	raise(SIGUSR1);
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->calls, SIGUSR1);
}

static void count_and_stop(void *ctx, uint32_t events)
{
	struct fixture *f = ctx;

	(void)events;
	f->calls++;
	loop_stop(f->loop);
}

/* Two edges in one round, and the first callback stops the loop: the second comes in the next run. */
static void an_edge_left_undone_by_a_stop_is_not_lost(void **state)
{
	struct fixture *f = *state;
	int other[2];

	assert_int_equal(pipe(other), 0);
	assert_int_equal(write(f->pipe[1], "x", 1), 1);
	assert_int_equal(write(other[1], "x", 1), 1);
	f->source = loop_add_fd(f->loop, f->pipe[0], EPOLLIN | EPOLLET, count_and_stop, f);
	f->other = loop_add_fd(f->loop, other[0], EPOLLIN | EPOLLET, count_and_stop, f);
	f->timer = loop_add_timer(f->loop, stop, f);
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->calls, 1);
	loop_timer_arm(f->timer, 5000000000ull); /* only if it is lost */
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->calls, 2);
	loop_remove(f->other);
	close(other[0]);
	close(other[1]);
}

static void a_stop_before_the_run_is_not_lost(void **state)
{
	struct fixture *f = *state;

	loop_stop(f->loop);
	assert_int_equal(loop_run(f->loop), 0);
}

#define with_fixture(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_fixture(a_readable_descriptor_is_called),
		with_fixture(a_source_removed_in_a_callback_is_never_called_again),
		with_fixture(a_parked_source_is_not_called_not_even_for_a_hang_up),
		with_fixture(timers_fire_once_and_in_order),
		with_fixture(many_timers_fire_in_order_however_they_are_changed),
		with_fixture(a_timer_may_arm_itself_anew),
		with_fixture(what_other_threads_post_runs_here_in_order),
		with_fixture(a_signal_is_an_event),
		with_fixture(an_edge_left_undone_by_a_stop_is_not_lost),
		with_fixture(a_stop_before_the_run_is_not_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
