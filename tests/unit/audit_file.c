/* The audit log's file: lines come back as they were written, the newest first, whatever lies where; and there are never too many. */
#include "tests/unit/test.h"

#include "api/audit_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_MS	(24 * INT64_C(3600000))
#define NOW	(20000 * DAY_MS + 1)
#define LIMIT	(1u << 20)

struct world {
	char folder[32], path[64];
	struct audit_file *file;
	int expected; /* the number that the next line is to have */
	int seen, stop_after;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct error err;

	assert_non_null(w);
	strcpy(w->folder, "/tmp/hull-audit-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/log", w->folder);
	w->file = audit_file_new(w->path, LIMIT, 10, &err);
	assert_non_null(w->file);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[64];

	audit_file_free(w->file);
	snprintf(command, sizeof(command), "rm -r %s", w->folder);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

/* Of a length that makes them lie anywhere in a block. */
static void append(struct world *w, int n, int64_t now)
{
	char line[AUDIT_LINE_MAX];
	int len = snprintf(line, sizeof(line), "%d %0*d\n", n, 1 + n * 37 % 900, 0);

	assert_int_equal(audit_file_append(w->file, line, (size_t)len, now), 0);
}

static bool is_next(void *ctx, const char *line, size_t len)
{
	struct world *w = ctx;

	assert_int_equal(atoi(line), w->expected--);
	assert_int_equal(line[len - 1], '0');
	return ++w->seen != w->stop_after;
}

static void test_lines_come_back_in_pieces_of_any_size(void **state)
{
	static const int sizes[] = {1, 7, 1000, 100000};
	struct world *w = *state;

	for (int n = 0; n < 700; n++)
		append(w, n, NOW);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct audit_place place = audit_file_end(w->file);

		w->expected = 699;
		for (bool more = true; more;) {
			w->seen = 0;
			w->stop_after = sizes[i];
			more = audit_file_read_back(w->file, &place, LIMIT, is_next, w);
		}
		assert_int_equal(w->expected, -1);
	}
}

static void test_a_look_at_too_many_lines_goes_on_where_it_ended(void **state)
{
	struct world *w = *state;
	struct audit_place place;

	for (int n = 0; n < 50; n++)
		append(w, n, NOW);
	place = audit_file_end(w->file);
	w->expected = 49;
	assert_true(audit_file_read_back(w->file, &place, 1, is_next, w));
	assert_int_equal(w->seen, 1);
	assert_true(audit_file_read_back(w->file, &place, 5000, is_next, w));
	assert_true(w->seen > 5 && w->seen < 40);
	assert_false(audit_file_read_back(w->file, &place, LIMIT, is_next, w));
	assert_int_equal(w->expected, -1);
}

static bool count(void *ctx, const char *line, size_t len)
{
	(void)line;
	(void)len;
	++*(int *)ctx;
	return true;
}

static void test_what_is_no_line_of_ours_ends_no_reading(void **state)
{
	struct world *w = *state;
	struct audit_place place;
	char *garbage = malloc(300000);
	int fd = open(w->path, O_WRONLY | O_APPEND), n = 0;

	memset(garbage, 'x', 300000);
	append(w, 0, NOW);
	assert_int_equal(write(fd, garbage, 300000), 300000);
	assert_int_equal(write(fd, "\n\n\n", 3), 3);
	close(fd);
	free(garbage);
	audit_file_reopen(w->file);
	append(w, 1, NOW);
	place = audit_file_end(w->file);
	assert_false(audit_file_read_back(w->file, &place, LIMIT, count, &n));
	assert_true(n >= 4 && n < 20);
}

static void test_a_day_later_it_is_put_aside_and_days_later_it_is_gone(void **state)
{
	struct world *w = *state;
	char aside[80];
	struct stat st;

	snprintf(aside, sizeof(aside), "%s.00000001", w->path);
	append(w, 0, NOW);
	audit_file_age(w->file, NOW + 1);
	assert_int_equal(stat(aside, &st), -1);
	append(w, 1, NOW + DAY_MS);
	assert_int_equal(stat(aside, &st), 0);
	assert_int_equal(audit_file_end(w->file).number, 2);
	audit_file_age(w->file, NOW + 100000 * DAY_MS);
	assert_int_equal(stat(aside, &st), -1);
}

static void test_all_together_they_are_bounded(void **state)
{
	struct world *w = *state;
	struct audit_place place;
	int n = 0;

	for (int i = 0; i < 10000; i++)
		append(w, i, NOW);
	place = audit_file_end(w->file);
	assert_true(place.number > 60);
	assert_false(audit_file_read_back(w->file, &place, 2 * LIMIT, count, &n));
	assert_true(n > 1700 && n < 2500); /* of some 450 bytes */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lines_come_back_in_pieces_of_any_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_look_at_too_many_lines_goes_on_where_it_ended, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_no_line_of_ours_ends_no_reading, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_day_later_it_is_put_aside_and_days_later_it_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_together_they_are_bounded, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
