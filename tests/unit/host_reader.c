/* What the kernel says of processes, read beside the loop. */
#include "tests/unit/test.h"

#include "api/host_reader.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct asked {
	struct loop *loop;
	char order[8]; /* who was answered */
	struct host_stats stats[2]; /* a's and b's */
};

struct asker {
	struct asked *asked;
	char name;
	bool last;
};

static void on_stats(void *ctx, const struct host_stats *stats)
{
	const struct asker *asker = ctx;
	struct asked *asked = asker->asked;

	asked->order[strlen(asked->order)] = asker->name;
	asked->stats[asker->name - 'a'] = *stats;
	if (asker->last)
		loop_stop(asked->loop);
}

static int setup(void **state)
{
	static struct asked asked;

	asked = (struct asked){.loop = loop_new()};
	*state = &asked;
	return 0;
}

static int teardown(void **state)
{
	loop_free(((struct asked *)*state)->loop);
	return 0;
}

static void who_asks_is_answered_in_order(void **state)
{
	struct asked *asked = *state;
	struct host_reader *reader = host_reader_new(asked->loop);
	struct asker a = {asked, 'a', false}, b = {asked, 'b', true};

	host_reader_read(reader, getpid(), on_stats, &a);
	host_reader_read(reader, getpid(), on_stats, &b);
	assert_string_equal(asked->order, "");
	assert_int_equal(loop_run(asked->loop), 0);
	assert_string_equal(asked->order, "ab");
	for (int i = 0; i < 2; i++) {
		assert_true(asked->stats[i].cpu_us >= 0);
		assert_int_equal(asked->stats[i].threads, 2); /* the reading one, too */
		assert_true(asked->stats[i].pss_bytes > 0 && asked->stats[i].pss_bytes <= asked->stats[i].rss_bytes);
	}
	host_reader_free(reader);
}

/* It was there when it was asked for; its number may be another's by now. */
static void a_process_that_has_ended_has_no_numbers(void **state)
{
	struct asked *asked = *state;
	struct host_reader *reader = host_reader_new(asked->loop);
	struct asker a = {asked, 'a', false}, b = {asked, 'b', true};
	const struct host_stats none = {-1, -1, -1, -1, -1, -1};
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	host_reader_read(reader, getpid(), on_stats, &a);
	host_reader_read(reader, pid, on_stats, &b); /* not before the loop has seen the end of the first */
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(loop_run(asked->loop), 0);
	assert_memory_equal(&asked->stats[1], &none, sizeof(none));
	/* And one that was not even there. */
	host_reader_read(reader, pid, on_stats, &b);
	assert_int_equal(loop_run(asked->loop), 0);
	assert_string_equal(asked->order, "abb");
	assert_memory_equal(&asked->stats[1], &none, sizeof(none));
	host_reader_free(reader);
}

static void who_has_gone_is_not_called(void **state)
{
	struct asked *asked = *state;
	struct host_reader *reader = host_reader_new(asked->loop);
	struct asker a = {asked, 'a', false}, b = {asked, 'b', true};
	struct host_reading *first = host_reader_read(reader, getpid(), on_stats, &a);
	struct host_reading *second = host_reader_read(reader, getpid(), on_stats, &a);

	host_reader_read(reader, getpid(), on_stats, &b);
	host_reading_cancel(first);
	host_reading_cancel(second);
	assert_int_equal(loop_run(asked->loop), 0);
	assert_string_equal(asked->order, "b");
	/* The reader itself goes: with one being read, and one that waits. */
	host_reader_read(reader, getpid(), on_stats, &b);
	host_reader_read(reader, getpid(), on_stats, &b);
	host_reader_free(reader);
	assert_string_equal(asked->order, "b");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(who_asks_is_answered_in_order),
		TEST(a_process_that_has_ended_has_no_numbers),
		TEST(who_has_gone_is_not_called),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
