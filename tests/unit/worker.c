/* Work beside the loop: where each function of it runs, and what becomes of it at the end. */
#include "tests/unit/test.h"

#include "api/worker.h"

#include <pthread.h>

#define PIECES 3

struct world {
	struct loop *loop;
	struct worker *workers;
	pthread_barrier_t together; /* all pieces at work */
	unsigned worked, done, ended;
};

struct piece {
	struct world *world;
	pthread_t worker;
	bool together;
};

static void work(void *ctx)
{
	struct piece *piece = ctx;

	if (piece->together)
		pthread_barrier_wait(&piece->world->together);
	piece->worker = pthread_self();
	__atomic_fetch_add(&piece->world->worked, 1, __ATOMIC_RELAXED);
}

static void on_done(void *ctx)
{
	struct piece *piece = ctx;

	assert_false(pthread_equal(piece->worker, pthread_self()));
	if (++piece->world->done == PIECES)
		loop_stop(piece->world->loop);
}

static void on_end(void *ctx)
{
	((struct piece *)ctx)->world->ended++;
}

static int set_up(void **state)
{
	static struct world world;

	world = (struct world){.loop = loop_new()};
	pthread_barrier_init(&world.together, NULL, PIECES);
	*state = &world;
	return 0;
}

static int tear_down(void **state)
{
	struct world *world = *state;

	loop_free(world->loop);
	pthread_barrier_destroy(&world->together);
	return 0;
}

static void pieces_are_worked_on_at_once_and_done_on_the_loop(void **state)
{
	struct world *world = *state;
	struct piece pieces[PIECES];

	for (size_t i = 0; i < PIECES; i++) {
		pieces[i] = (struct piece){.world = world, .together = true};
		assert_int_equal(worker_begin(&world->workers, world->loop, work, on_done, &pieces[i]), 0);
		assert_non_null(world->workers);
	}
	assert_int_equal(loop_run(world->loop), 0);
	assert_int_equal(world->done, PIECES);
	assert_null(world->workers);
	workers_end(&world->workers, on_end);
	assert_int_equal(world->ended, 0);
}

static void the_end_waits_for_what_is_worked_on_and_calls_another(void **state)
{
	struct world *world = *state;
	struct piece pieces[PIECES];

	for (size_t i = 0; i < PIECES; i++) {
		pieces[i] = (struct piece){.world = world};
		assert_int_equal(worker_begin(&world->workers, world->loop, work, on_done, &pieces[i]), 0);
	}
	workers_end(&world->workers, on_end);
	assert_int_equal(world->worked, PIECES);
	assert_int_equal(world->ended, PIECES);
	assert_int_equal(world->done, 0);
	assert_null(world->workers);
	assert_int_equal(worker_begin(&world->workers, world->loop, work, on_done, &pieces[0]), 0);
	workers_end(&world->workers, NULL);
	assert_int_equal(world->worked, PIECES + 1);
	assert_int_equal(world->ended, PIECES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pieces_are_worked_on_at_once_and_done_on_the_loop),
		TEST(the_end_waits_for_what_is_worked_on_and_calls_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
