/* A file that keeps what is newest: how much of the disk it takes, and what a reader finds. */
#include "tests/unit/no_holes.h"
#include "tests/unit/test.h"

#include "common/bounded_file.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT (1u << 20)
#define LINE  64u

static int setup(void **state)
{
	static int fd;
	const char *tmp = getenv("TMPDIR");
	char path[4096];

	snprintf(path, sizeof(path), "%s/hull-bounded.XXXXXX", tmp ? tmp : "/tmp");
	fd = mkostemp(path, O_APPEND | O_CLOEXEC);
	assert_true(fd >= 0);
	unlink(path);
	no_holes = false;
	*state = &fd;
	return 0;
}

static int teardown(void **state)
{
	close(*(int *)*state);
	return 0;
}

/* Lines of LINE bytes, each of which says where it begins. */
static void write_lines(struct bounded_file *file, int fd, off_t from, off_t to)
{
	for (off_t at = from; at < to; at += LINE) {
		char line[LINE + 1];

		snprintf(line, sizeof(line), "%-63lld\n", (long long)at);
		assert_int_equal(write(fd, line, LINE), LINE);
		bounded_file_wrote(file, fd, LINE);
	}
}

static uint64_t bytes_on_disk(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void assert_line_at(int fd, off_t pos)
{
	char line[LINE + 1] = "";

	assert_int_equal(pread(fd, line, LINE, pos), LINE);
	assert_int_equal(strtoll(line, NULL, 10), pos);
}

static void without_a_limit_all_is_kept(void **state)
{
	int fd = *(int *)*state;
	struct bounded_file file = bounded_file(0);

	write_lines(&file, fd, 0, 4 * LIMIT);
	assert_true(bytes_on_disk(fd) >= 4 * LIMIT);
	assert_int_equal(bounded_file_kept(fd, 0), 0);
	assert_line_at(fd, 0);
}

static void the_newest_are_kept_where_they_were(void **state)
{
	int fd = *(int *)*state;
	struct bounded_file file = bounded_file(LIMIT);
	off_t first;

	write_lines(&file, fd, 0, 4 * LIMIT);
	assert_in_range(bytes_on_disk(fd), LIMIT, LIMIT + LIMIT / 8 + 65536);
	first = bounded_file_kept(fd, 0);
	assert_in_range(first, 4 * LIMIT - LIMIT - LIMIT / 8 - 65536, 4 * LIMIT - LIMIT);
	for (off_t at = first; at < 4 * LIMIT; at += LINE)
		assert_line_at(fd, at);
	assert_int_equal(bounded_file_kept(fd, first + 5), first + 5);
	assert_int_equal(bounded_file_kept(fd, 4 * LIMIT), 4 * LIMIT);
}

static void what_an_earlier_writer_left_is_cut_too(void **state)
{
	int fd = *(int *)*state;
	struct bounded_file unbounded = bounded_file(0), file = bounded_file(LIMIT);

	write_lines(&unbounded, fd, 0, 4 * LIMIT);
	write_lines(&file, fd, 4 * LIMIT, 4 * LIMIT + LINE);
	assert_true(bytes_on_disk(fd) <= LIMIT + LIMIT / 8 + 65536);
	assert_line_at(fd, 4 * LIMIT);
}

static void without_holes_the_file_is_emptied(void **state)
{
	int fd = *(int *)*state;
	struct bounded_file file = bounded_file(LIMIT);
	struct stat st;

	no_holes = true;
	write_lines(&file, fd, 0, 2 * LIMIT);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size <= LIMIT + LIMIT / 8);
	/* Who had read further begins again. */
	assert_int_equal(bounded_file_kept(fd, 2 * LIMIT), 0);
}

static void what_is_all_hole_holds_nothing(void **state)
{
	int fd = *(int *)*state;

	assert_int_equal(ftruncate(fd, LIMIT), 0);
	assert_int_equal(bounded_file_kept(fd, 0), LIMIT);
}

static void a_pipe_is_left_alone(void **state)
{
	struct bounded_file file = bounded_file(LIMIT);
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "abc", 3), 3);
	bounded_file_wrote(&file, fds[1], 2 * LIMIT);
	close(fds[1]);
	assert_int_equal(read(fds[0], (char[4]){0}, 4), 3);
	close(fds[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_a_limit_all_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(the_newest_are_kept_where_they_were, setup, teardown),
		cmocka_unit_test_setup_teardown(what_an_earlier_writer_left_is_cut_too, setup, teardown),
		cmocka_unit_test_setup_teardown(without_holes_the_file_is_emptied, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_all_hole_holds_nothing, setup, teardown),
		cmocka_unit_test(a_pipe_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
