/* Files that take another's place once they are whole: what is there before, after, and when nobody ends it. */
#include "tests/unit/test.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], path[PATH_MAX];
static bool no_nameless; /* of the file system */

int __real_open(const char *name, int flags, ...);
int __wrap_open(const char *name, int flags, ...);
int __wrap_open(const char *name, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = va_arg(args, mode_t);
	va_end(args);
	if (no_nameless && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return __real_open(name, flags, mode);
}

/* How many files are in the folder; they go. */
static int take_all(void)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	int n = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.') {
			assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
			n++;
		}
	closedir(dir);
	return n;
}

/* On memory: every kernel that is of use here has files without a name there. */
static int setup(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/dev/shm/hull-new-file.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/file", folder);
	no_nameless = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	take_all();
	return rmdir(folder);
}

static void assert_content(const char *text)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC, 0);
	char found[64] = "";

	assert_true(fd >= 0 && read_full(fd, found, sizeof(found) - 1) >= 0);
	assert_string_equal(found, text);
}

static void begin(struct new_file *file, const char *text)
{
	struct error err;

	assert_int_equal(new_file_begin(file, path, 0640, &err), 0);
	assert_int_equal(write_full(file->fd, text, strlen(text)), 0);
}

static void begin_and_place(const char *text)
{
	struct new_file file;
	struct error err;

	begin(&file, text);
	assert_int_equal(new_file_place(&file, path, &err), 0);
	assert_int_equal(file.fd, -1);
	new_file_forget(&file);
}

/* One, then another in its place; nothing of either but its name. */
static void check_both(void)
{
	struct stat st;

	begin_and_place("first");
	assert_content("first");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	begin_and_place("second");
	assert_content("second");
	assert_int_equal(take_all(), 1);
}

static void test_it_is_there_once_it_is_placed_and_takes_the_place_of_another(void **state)
{
	(void)state;
	check_both();
	no_nameless = true;
	check_both();
}

static void test_a_name_may_be_as_long_as_one_can_be(void **state)
{
	(void)state;
	memset(path + strlen(folder) + 1, 'x', NAME_MAX);
	path[strlen(folder) + 1 + NAME_MAX] = '\0';
	check_both();
	no_nameless = true;
	check_both();
}

/* Of one that is killed over it. */
static void begin_and_die(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct new_file file;

		begin(&file, "a part");
		raise(SIGKILL);
	}
	assert_true(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
}

static void test_who_is_killed_over_one_leaves_nothing(void **state)
{
	(void)state;
	begin_and_place("before");
	begin_and_die();
	assert_content("before");
	assert_int_equal(take_all(), 1);
	no_nameless = true;
	begin_and_die();
	assert_int_equal(take_all(), 1); /* as it had to have a name */
}

static void test_what_is_not_to_be_or_cannot_be_leaves_nothing(void **state)
{
	struct new_file file;
	struct error err;

	(void)state;
	for (int i = 0; i < 2; i++, no_nameless = true) {
		begin(&file, "no");
		new_file_forget(&file);
		assert_int_equal(take_all(), 0);
		begin(&file, "no");
		assert_int_equal(mkdir(path, 0700), 0); /* somebody was faster */
		assert_int_equal(new_file_place(&file, path, &err), -EISDIR);
		assert_int_equal(rmdir(path), 0);
		assert_int_equal(take_all(), 0);
		assert_int_equal(new_file_begin(&file, "/dev/shm/none/file", 0600, &err), -ENOENT);
		assert_int_equal(file.fd, -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_it_is_there_once_it_is_placed_and_takes_the_place_of_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_name_may_be_as_long_as_one_can_be, setup, teardown),
		cmocka_unit_test_setup_teardown(test_who_is_killed_over_one_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_not_to_be_or_cannot_be_leaves_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
