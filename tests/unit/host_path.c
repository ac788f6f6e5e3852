/* Folders of the host as people write them, in full. */
#include "tests/unit/test.h"

#include "cli/host_path.h"
#include "common/cleanup.h"
#include "common/json.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64] = "/tmp/hull-host-path-XXXXXX"; /* with src, and link, which leads to it */

static int make_base(void **state)
{
	(void)state;
	return !mkdtemp(base) || chdir(base) < 0 || mkdir("src", 0755) < 0 || mkdir("src/.hidden", 0755) < 0 || symlink("src", "link") < 0;
}

static int remove_base(void **state)
{
	(void)state;
	return unlink("link") < 0 || rmdir("src/.hidden") < 0 || rmdir("src") < 0 || chdir("/") < 0 || rmdir(base) < 0;
}

static void assert_full(const char *folder, const char *text, const char *expected)
{
	struct error err;
	cleanup_free char *full = host_path_in_full(folder, text, &err);

	assert_non_null(full);
	assert_string_equal(full, expected);
}

static void it_begins_with_a_slash_or_a_dot(void **state)
{
	(void)state;
	assert_true(host_path_is("/srv"));
	assert_true(host_path_is("./src"));
	assert_true(host_path_is("../src"));
	assert_true(host_path_is(".hidden"));
	assert_false(host_path_is("src"));
	assert_false(host_path_is(""));
}

static void what_begins_with_a_dot_is_found_from_a_folder(void **state)
{
	char expected[128];

	(void)state;
	snprintf(expected, sizeof(expected), "%s/src", base);
	assert_full(".", "./src", expected);
	assert_full(".", "./src/", expected);
	assert_full(".", "./link", expected);
	assert_full("src", ".", expected);
	assert_full("src/.hidden", "..", expected);
	assert_full(".", "./src/.hidden/..", expected);
	snprintf(expected, sizeof(expected), "%s/src/.hidden", base);
	assert_full("src", ".hidden", expected);
}

static void what_begins_with_a_slash_is_the_hosts_and_not_looked_at(void **state)
{
	(void)state;
	assert_full(".", "/no/such/folder", "/no/such/folder");
	assert_full(".", "/no/such/folder//", "/no/such/folder");
	assert_full(".", "/a/../b", "/a/../b"); /* the API refuses it */
	assert_full(".", "/", "/");
}

static void what_is_not_there_is_refused_by_what_was_written(void **state)
{
	struct error err = {0};

	(void)state;
	assert_null(host_path_in_full(".", "./missing", &err));
	assert_int_equal(err.errnum, ENOENT);
	assert_string_equal(err.message, "./missing: No such file or directory");
}

static void mounts_of_any_kind_are_left_alone_but_for_folders(void **state)
{
	json_t *mounts = json_loads("[{\"volume\": \"./data\"}, 7, {\"host_path\": 7}, {\"host_path\": \"./src\"}]", 0, NULL);
	json_t *wrong = json_loads("[{\"volume\": \"data\"}, {\"host_path\": \"./missing\"}]", 0, NULL);
	struct error err = {0};
	char expected[128];

	(void)state;
	snprintf(expected, sizeof(expected), "%s/src", base);
	assert_int_equal(host_paths_in_full(base, mounts, &err), 0);
	assert_string_equal(json_string_value(json_object_get(json_array_get(mounts, 3), "host_path")), expected);
	assert_string_equal(json_string_value(json_object_get(json_array_get(mounts, 0), "volume")), "./data");
	assert_int_equal(host_paths_in_full(base, NULL, &err), 0);
	assert_int_equal(host_paths_in_full(base, wrong, &err), -ENOENT);
	assert_string_equal(err.field, "mounts[1].host_path");
	json_decref(mounts);
	json_decref(wrong);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_begins_with_a_slash_or_a_dot),
		cmocka_unit_test(what_begins_with_a_dot_is_found_from_a_folder),
		cmocka_unit_test(what_begins_with_a_slash_is_the_hosts_and_not_looked_at),
		cmocka_unit_test(what_is_not_there_is_refused_by_what_was_written),
		cmocka_unit_test(mounts_of_any_kind_are_left_alone_but_for_folders),
	};

	return cmocka_run_group_tests(tests, make_base, remove_base);
}
