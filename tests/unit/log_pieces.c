/* How old logs are: what is young stays whatever happens, what is too old goes, and the time that says so is nobody's to set. */
#include "tests/unit/no_holes.h"
#include "tests/unit/test.h"

#include "api/log_clock.h"
#include "api/log_pieces.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOUR_MS 3600000ll
#define DAY_MS	(24 * HOUR_MS)
#define BEGUN	(20000 * DAY_MS)
#define AGE_MS	(32 * DAY_MS) /* pieces of a day */

struct world {
	int fd;
	char path[32];
	struct log_pieces log;
	struct log_moment moment;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	strcpy(w->path, "/tmp/hull-log-XXXXXX");
	w->fd = mkstemp(w->path);
	assert_true(w->fd >= 0);
	w->moment = (struct log_moment){.now = BEGUN, .before = BEGUN, .wall = BEGUN};
	no_holes = false;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	close(w->fd);
	unlink(w->path);
	free(w);
	return 0;
}

static void say(struct world *w, const char *text)
{
	assert_int_equal(lseek(w->fd, 0, SEEK_END) >= 0, 1);
	assert_int_equal(write(w->fd, text, strlen(text)), (ssize_t)strlen(text));
}

static struct stat stat_of(const struct world *w)
{
	struct stat st;

	assert_int_equal(fstat(w->fd, &st), 0);
	/* Written when the wall clock of these tests says it was looked at. */
	st.st_mtim = (struct timespec){.tv_sec = w->moment.wall / 1000};
	return st;
}

static void look(struct world *w)
{
	struct stat st = stat_of(w);

	log_pieces_add(&w->log, &st, &w->moment, AGE_MS);
	log_pieces_drop(&w->log, w->fd, &st, &w->moment, AGE_MS, true);
}

static void pass(struct world *w, int64_t ms)
{
	w->moment.before = w->moment.now;
	w->moment.now += ms;
	w->moment.wall += ms;
}

/* What a reader gets, who begins where the log begins. */
static const char *kept(const struct world *w)
{
	static char text[1 << 17];
	ssize_t n = pread(w->fd, text, sizeof(text) - 1, (off_t)w->log.gone);

	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

static void test_each_line_stays_for_its_age_and_a_piece_at_most(void **state)
{
	enum { DAYS = 100 };
	struct world *w = *state;
	char line[32];

	for (int day = 0; day < DAYS; day++) {
		int oldest;

		snprintf(line, sizeof(line), "day %d\n", day);
		say(w, line);
		look(w);
		assert_int_equal(sscanf(kept(w), "day %d\n", &oldest), 1);
		assert_true(day < 32 ? oldest == 0 : day - oldest >= 31 && day - oldest <= 33);
		assert_true(w->log.n <= LOG_PIECES_A_AGE + 2);
		pass(w, DAY_MS);
	}
	pass(w, AGE_MS - DAY_MS - 1);
	look(w);
	assert_string_equal(kept(w), "day 99\n");
	pass(w, 1);
	look(w);
	assert_string_equal(kept(w), "");
	/* Nothing of it is on the disk. */
	for (uint64_t i = 0; i < w->log.gone; i++) {
		char byte;

		assert_int_equal(pread(w->fd, &byte, 1, (off_t)i), 1);
		assert_int_equal(byte, 0);
	}
}

static void test_a_line_that_goes_on_after_its_piece_stays_whole(void **state)
{
	struct world *w = *state;

	say(w, "old\nbegun ");
	look(w);
	pass(w, AGE_MS);
	say(w, "and ended\nyoung\n");
	look(w);
	assert_string_equal(kept(w), "begun and ended\nyoung\n");
	pass(w, AGE_MS);
	say(w, "a prompt");
	look(w);
	assert_string_equal(kept(w), "a prompt");
	pass(w, AGE_MS);
	look(w);
	assert_string_equal(kept(w), "");
}

static void test_what_was_written_while_nobody_looked_is_as_old_as_its_file_says(void **state)
{
	struct world *w = *state;
	struct stat st;

	say(w, "first\n");
	look(w);
	pass(w, 10 * DAY_MS);
	say(w, "ten days ago\n");
	st = stat_of(w); /* of this day */
	pass(w, 0);
	w->moment.before = w->moment.now;
	w->moment.now += 10 * DAY_MS;
	w->moment.wall += 10 * DAY_MS;
	assert_true(log_pieces_add(&w->log, &st, &w->moment, AGE_MS));
	assert_int_equal(w->log.pieces[1].at, BEGUN + 10 * DAY_MS);
	/* A wall clock that is a year ahead makes it no older than the last look, and one that is behind no older than now. */
	say(w, "more\n");
	pass(w, 2 * DAY_MS);
	st = stat_of(w);
	w->moment.wall += 365 * DAY_MS;
	assert_true(log_pieces_add(&w->log, &st, &w->moment, AGE_MS));
	assert_int_equal(w->log.pieces[2].at, w->moment.before);
	say(w, "and more\n");
	pass(w, 2 * DAY_MS);
	st = stat_of(w);
	w->moment.wall -= 800 * DAY_MS;
	assert_true(log_pieces_add(&w->log, &st, &w->moment, AGE_MS));
	assert_int_equal(w->log.pieces[3].at, w->moment.now);
}

static void test_pieces_of_the_future_are_of_now(void **state)
{
	struct world *w = *state;

	say(w, "a\n");
	look(w);
	w->moment = (struct log_moment){.now = BEGUN - 1000 * DAY_MS, .before = BEGUN - 1000 * DAY_MS, .wall = BEGUN};
	look(w);
	assert_int_equal(w->log.pieces[0].at, BEGUN - 1000 * DAY_MS);
	pass(w, AGE_MS);
	look(w);
	assert_string_equal(kept(w), "");
}

/* That was lost to a crash of the host, which then came up with a wall clock that is years ahead: nothing is too old by that. */
static void test_what_another_clock_has_timed_may_be_of_now(void **state)
{
	struct world *w = *state;

	say(w, "a\n");
	look(w);
	pass(w, DAY_MS);
	say(w, "b\n");
	look(w);
	w->moment = (struct log_moment){.clock = 7, .now = BEGUN + 1000 * DAY_MS, .before = BEGUN + 1000 * DAY_MS, .wall = BEGUN + 1000 * DAY_MS};
	look(w);
	assert_string_equal(kept(w), "a\nb\n");
	pass(w, AGE_MS - 1);
	look(w);
	assert_string_equal(kept(w), "a\nb\n");
	pass(w, 1);
	look(w);
	assert_string_equal(kept(w), "");
}

static void test_another_file_or_a_shorter_one_begins_anew(void **state)
{
	struct world *w = *state;

	say(w, "old and long\n");
	look(w);
	pass(w, AGE_MS - 1);
	assert_int_equal(ftruncate(w->fd, 0), 0);
	say(w, "young\n");
	look(w);
	pass(w, 1);
	look(w);
	assert_string_equal(kept(w), "young\n");
	w->log.inode++;
	w->log.gone = 3;
	look(w);
	assert_string_equal(kept(w), "young\n");
}

static void test_without_holes_a_log_is_emptied_when_all_of_it_is_old_and_nobody_writes(void **state)
{
	struct world *w = *state;
	struct stat st;

	no_holes = true;
	say(w, "a\n");
	look(w);
	pass(w, AGE_MS);
	say(w, "b\n");
	look(w);
	assert_string_equal(kept(w), "a\nb\n");
	pass(w, AGE_MS);
	st = stat_of(w);
	log_pieces_add(&w->log, &st, &w->moment, AGE_MS);
	assert_false(log_pieces_drop(&w->log, w->fd, &st, &w->moment, AGE_MS, false));
	assert_string_equal(kept(w), "a\nb\n");
	look(w);
	assert_int_equal(lseek(w->fd, 0, SEEK_END), 0);
	assert_int_equal(w->log.gone, 0);
}

/* An age that becomes longer and longer has pieces of many lengths. */
static void test_there_are_never_too_many_pieces(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 3 * LOG_PIECES_MAX; i++) {
		struct stat st;

		say(w, "line\n");
		st = stat_of(w);
		log_pieces_add(&w->log, &st, &w->moment, AGE_MS);
		pass(w, AGE_MS);
	}
	assert_int_equal(w->log.n, LOG_PIECES_MAX);
	assert_int_equal(w->log.pieces[LOG_PIECES_MAX - 1].end, 3 * LOG_PIECES_MAX * 5);
}

static void test_what_is_stored_is_read_and_what_is_damaged_is_nothing(void **state)
{
	static const char *const damaged[] = {"{\"inode\": 5, \"gone\": 9, \"pieces\": [[100, 8]]}", "[]", "7",
		"{\"inode\": 5, \"gone\": 0, \"pieces\": [[100, 8], [99, 9]]}", "{\"inode\": 5, \"gone\": 0, \"pieces\": [[100, 8], [101, 7]]}",
		"{\"inode\": 5, \"gone\": 0, \"pieces\": [[-1, 8]]}", "{\"inode\": 5, \"gone\": 0, \"pieces\": [[]]}"};
	struct world *w = *state;
	struct log_pieces read;
	json_t *stored;

	for (int i = 0; i < 3; i++) {
		say(w, "line\n");
		look(w);
		pass(w, DAY_MS);
	}
	stored = log_pieces_dump(&w->log);
	log_pieces_read(&read, stored);
	assert_memory_equal(&read, &w->log, sizeof(read));
	json_decref(stored);
	log_pieces_read(&read, NULL);
	assert_int_equal(read.inode, 0);
	for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
		stored = json_loads(damaged[i], JSON_DECODE_ANY, NULL);
		log_pieces_read(&read, stored);
		assert_int_equal(read.n, 0);
		assert_int_equal(read.gone, 0);
		json_decref(stored);
	}
}

/* The time. */

static void test_time_passes_with_the_host_whatever_its_wall_clock_says(void **state)
{
	struct log_clock clock = {0};

	(void)state;
	assert_true(log_clock_advance(&clock, 5000, BEGUN, "boot"));
	assert_int_equal(clock.now, BEGUN);
	assert_true(log_clock_advance(&clock, 6000, BEGUN + 365 * DAY_MS, "boot"));
	assert_int_equal(clock.now, BEGUN + 1000);
	assert_true(log_clock_advance(&clock, 8000, 0, "boot"));
	assert_int_equal(clock.now, BEGUN + 3000);
}

static void test_how_long_a_host_was_off_its_wall_clock_says_an_hour_later(void **state)
{
	struct log_clock clock = {0};

	(void)state;
	assert_true(log_clock_advance(&clock, DAY_MS, BEGUN, "first"));
	assert_false(log_clock_advance(&clock, HOUR_MS - 1, BEGUN + 900 * DAY_MS, "second"));
	assert_int_equal(clock.now, BEGUN);
	assert_true(log_clock_advance(&clock, HOUR_MS, BEGUN + 30 * DAY_MS, "second"));
	assert_int_equal(clock.now, BEGUN + 30 * DAY_MS);
	assert_true(log_clock_advance(&clock, HOUR_MS + 1, BEGUN, "second"));
	assert_int_equal(clock.now, BEGUN + 30 * DAY_MS + 1);
	/* A clock that was set back: that it was up for two hours is known. */
	assert_true(log_clock_advance(&clock, 2 * HOUR_MS, BEGUN - 900 * DAY_MS, "third"));
	assert_int_equal(clock.now, BEGUN + 30 * DAY_MS + 1 + 2 * HOUR_MS);
}

static void test_a_stored_clock_goes_on_and_a_damaged_one_begins_anew(void **state)
{
	static const char *const damaged[] = {"{}", "[]", "{\"now_ms\": 0, \"uptime_ms\": 1, \"wall_ms\": 1, \"boot_id\": \"x\"}",
		"{\"now_ms\": 1, \"uptime_ms\": -1, \"wall_ms\": 1, \"boot_id\": \"x\"}", "{\"now_ms\": 1, \"uptime_ms\": 1, \"wall_ms\": 1, \"boot_id\": 1}",
		"{\"now_ms\": 9223372036854775807, \"uptime_ms\": 1, \"wall_ms\": 1, \"boot_id\": \"x\"}",
		"{\"now_ms\": 1, \"uptime_ms\": 1, \"wall_ms\": -9223372036854775808, \"boot_id\": \"x\"}"};
	struct log_clock clock = {0}, read;
	json_t *stored;

	(void)state;
	log_clock_advance(&clock, 5000, BEGUN, "boot");
	stored = log_clock_dump(&clock);
	log_clock_read(&read, stored);
	json_decref(stored);
	assert_true(log_clock_advance(&read, 6000, 77, "boot"));
	assert_int_equal(read.now, BEGUN + 1000);
	log_clock_read(&read, NULL);
	assert_int_equal(read.now, 0);
	for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
		stored = json_loads(damaged[i], 0, NULL);
		log_clock_read(&read, stored);
		assert_int_equal(read.now, 0);
		json_decref(stored);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_line_stays_for_its_age_and_a_piece_at_most, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_line_that_goes_on_after_its_piece_stays_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_was_written_while_nobody_looked_is_as_old_as_its_file_says, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pieces_of_the_future_are_of_now, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_another_clock_has_timed_may_be_of_now, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_file_or_a_shorter_one_begins_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_without_holes_a_log_is_emptied_when_all_of_it_is_old_and_nobody_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_there_are_never_too_many_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_stored_is_read_and_what_is_damaged_is_nothing, setup, teardown),
		cmocka_unit_test(test_time_passes_with_the_host_whatever_its_wall_clock_says),
		cmocka_unit_test(test_how_long_a_host_was_off_its_wall_clock_says_an_hour_later),
		cmocka_unit_test(test_a_stored_clock_goes_on_and_a_damaged_one_begins_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
