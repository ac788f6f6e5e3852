/* A volume that no machine has mounted yet, also where one was killed on the way. */
#include "tests/unit/test.h"

#include "guest-kernel/folder.h"
#include "guest-kernel/fresh_volume.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct world {
	char path[128];
	int volume, image;
};

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct world *w = calloc(1, sizeof(*w));

	snprintf(w->path, sizeof(w->path), "%.90s/hull-fresh-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(w->path));
	assert_int_equal(chdir(w->path), 0);
	assert_int_equal(mkdir("volume", 0755) | mkdir("volume/lost+found", 0700) | mkdir("image", 0755) | mkdir("image/in", 0710), 0);
	assert_int_equal(chmod("image", 0731), 0);
	w->volume = open("volume", O_RDONLY | O_DIRECTORY);
	w->image = open("image", O_RDONLY | O_DIRECTORY);
	assert_int_equal(symlink("in/file", "image/link"), 0);
	close(open("image/in/file", O_WRONLY | O_CREAT, 0640));
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct stat st;
	int fd = open(w->path, O_RDONLY | O_DIRECTORY);

	assert_int_equal(fstat(fd, &st), 0);
	folder_delete_contents(fd, st.st_dev);
	assert_int_equal(chdir("/") | rmdir(w->path), 0);
	close(w->volume);
	close(w->image);
	free(w);
	return 0;
}

static bool is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

static void fill(struct world *w, int image)
{
	struct error err;

	if (fresh_volume_fill(w->volume, image, "0", &err) < 0)
		fail_msg("%s", err.message);
	assert_false(is_there("volume/.hull-fresh"));
}

static void assert_copied(void)
{
	char link[16] = "";

	assert_int_equal(mode_of("volume"), 0731);
	assert_int_equal(mode_of("volume/in"), 0710);
	assert_int_equal(mode_of("volume/in/file"), 0640);
	assert_int_equal(readlink("volume/link", link, sizeof(link) - 1), 7);
	assert_string_equal(link, "in/file");
	assert_false(is_there("volume/lost+found"));
}

static void it_gets_what_is_below_it_once(void **state)
{
	fill(*state, ((struct world *)*state)->image);
	assert_copied();
	assert_int_equal(unlink("volume/in/file") | rmdir("volume/in") | unlink("volume/link") | chmod("volume", 0700), 0);
	fill(*state, ((struct world *)*state)->image);
	assert_false(is_there("volume/in"));
	assert_int_equal(mode_of("volume"), 0700);
}

static void where_nothing_is_below_it_is_empty(void **state)
{
	fill(*state, -1);
	assert_false(is_there("volume/lost+found"));
	assert_int_equal(mode_of("volume"), 0755);
}

static void what_somebody_has_put_there_stays_alone(void **state)
{
	close(open("volume/own", O_WRONLY | O_CREAT, 0600));
	fill(*state, ((struct world *)*state)->image);
	assert_true(is_there("volume/own") && is_there("volume/lost+found"));
	assert_false(is_there("volume/in"));
}

static void a_copy_that_was_cut_short_is_made_again(void **state)
{
	assert_int_equal(mkdir("volume/.hull-fresh", 0700) | mkdir("volume/.hull-fresh/in", 0700), 0);
	close(open("volume/.hull-fresh/half", O_WRONLY | O_CREAT, 0600));
	fill(*state, ((struct world *)*state)->image);
	assert_copied();
	assert_false(is_there("volume/half"));
}

static void a_whole_copy_goes_up_with_what_is_there_already(void **state)
{
	assert_int_equal(rmdir("volume/lost+found") | mkdir("volume/.hull-fresh", 0700) | mkdir("volume/.hull-fresh/b", 0700), 0);
	close(open("volume/a", O_WRONLY | O_CREAT, 0600));
	fill(*state, ((struct world *)*state)->image);
	assert_true(is_there("volume/a") && is_there("volume/b"));
	assert_false(is_there("volume/in"));
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(it_gets_what_is_below_it_once),
		CASE(where_nothing_is_below_it_is_empty),
		CASE(what_somebody_has_put_there_stays_alone),
		CASE(a_copy_that_was_cut_short_is_made_again),
		CASE(a_whole_copy_goes_up_with_what_is_there_already),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
