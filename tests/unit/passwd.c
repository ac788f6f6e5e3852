/* Who the workload runs as: what an image's passwd and group say, and what they must not be believed. */
#include "tests/unit/test.h"

#include "guest-kernel/passwd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char passwd[] = "# comment\n"
			     "root:x:0:0:root:/root:/bin/sh\n"
			     "app:x:1000:1001:App:/home/app:/bin/sh\n"
			     "1002:x:7:7::/seven:/bin/sh\n"
			     "homeless:x:1003:1003:::\n"
			     "broken:x:abc:0::/:\n"
			     "huge:x:4294967295:0::/:\n"
			     "+nis\n"
			     "last:x:1004:1004::/last:/bin/sh";
static const char group[] = "root:x:0:\n"
			    "video:x:44:other,app\n"
			    "app:x:1001:app\n"
			    "apple:x:45:apple\n"
			    "audio:x:29:app";

static struct passwd_user resolve(const char *spec)
{
	struct passwd_user user;
	struct error err = {0};

	if (passwd_resolve(spec, passwd, group, &user, &err) < 0)
		fail_msg("%s: %s", spec, err.message);
	return user;
}

static void refused(const char *spec, int errnum)
{
	struct passwd_user user = {.uid = 99}, before = user;
	struct error err = {0};

	assert_int_equal(passwd_resolve(spec, passwd, group, &user, &err), -errnum);
	assert_string_equal(err.field, "user");
	assert_string_not_equal(err.message, "");
	assert_memory_equal(&user, &before, sizeof user);
}

static void a_name_has_its_numbers_home_and_groups(void **state)
{
	struct passwd_user user = resolve("app");

	(void)state;
	assert_int_equal(user.uid, 1000);
	assert_int_equal(user.gid, 1001);
	assert_string_equal(user.home, "/home/app");
	assert_int_equal(user.n_groups, 2);
	assert_int_equal(user.groups[0], 44);
	assert_int_equal(user.groups[1], 29);
}

static void a_number_that_is_listed_is_that_user(void **state)
{
	struct passwd_user user = resolve("1000");

	(void)state;
	assert_int_equal(user.gid, 1001);
	assert_string_equal(user.home, "/home/app");
	assert_int_equal(user.n_groups, 2);
}

static void a_number_that_is_not_listed_will_do(void **state)
{
	struct passwd_user user = resolve("5000");

	(void)state;
	assert_int_equal(user.uid, 5000);
	assert_int_equal(user.gid, 0);
	assert_string_equal(user.home, "/");
	assert_int_equal(user.n_groups, 0);
}

static void a_name_goes_before_a_number(void **state)
{
	(void)state;
	assert_int_equal(resolve("1002").uid, 7);
}

static void an_explicit_group_replaces_all_others(void **state)
{
	struct passwd_user user = resolve("app:video");

	(void)state;
	assert_int_equal(user.uid, 1000);
	assert_int_equal(user.gid, 44);
	assert_int_equal(user.n_groups, 0);
	assert_int_equal(resolve("app:4711").gid, 4711);
	assert_int_equal(resolve("5000:audio").gid, 29);
}

static void a_user_without_home_lives_in_the_root(void **state)
{
	(void)state;
	assert_string_equal(resolve("homeless").home, "/");
}

static void the_last_line_needs_no_newline(void **state)
{
	(void)state;
	assert_int_equal(resolve("last").uid, 1004);
}

static void root_needs_no_passwd(void **state)
{
	struct passwd_user user;
	struct error err;

	(void)state;
	assert_int_equal(passwd_resolve("root", "", "", &user, &err), 0);
	assert_int_equal(user.uid, 0);
	assert_string_equal(user.home, "/root");
}

static void unknown_names_are_refused(void **state)
{
	(void)state;
	refused("nobody", ENOENT);
	refused("ap", ENOENT);
	refused("app:nogroup", ENOENT);
	refused("-1", ENOENT);
	refused("4294967295", ENOENT); /* (uid_t)-1 would mean "stay who you are": root */
	refused("4294967296", ENOENT);
	refused("0x0", ENOENT);
}

static void malformed_specifications_are_refused(void **state)
{
	(void)state;
	refused("", EINVAL);
	refused(":", EINVAL);
	refused(":app", EINVAL);
	refused("app:", EINVAL);
	refused("app:app:app", EINVAL);
}

static void a_record_without_numbers_is_refused(void **state)
{
	(void)state;
	refused("broken", EINVAL);
	refused("huge", EINVAL);
}

static void a_membership_without_end_is_refused(void **state)
{
	size_t size = 32 * 1024;
	char *many = calloc(1, size), *at = many;
	struct passwd_user user;
	struct error err;

	(void)state;
	for (int i = 0; i < PASSWD_GROUPS_MAX + 1; i++)
		at += sprintf(at, "g%d:x:%d:app\n", i, 2000 + i);
	assert_int_equal(passwd_resolve("app", passwd, many, &user, &err), -E2BIG);
	free(many);
}

static void a_fifo_in_place_of_the_file_is_refused_at_once(void **state)
{
	char root[] = "/tmp/hull-passwd.XXXXXX", path[64];
	struct passwd_user user;
	struct error err;

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_int_equal(passwd_lookup(root, "root", &user, &err), 0);
	snprintf(path, sizeof path, "%s/etc", root);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof path, "%s/etc/passwd", root);
	assert_int_equal(mkfifo(path, 0644), 0);
	alarm(10);
	assert_int_equal(passwd_lookup(root, "root", &user, &err), -EINVAL);
	alarm(0);
	unlink(path);
	snprintf(path, sizeof path, "%s/etc", root);
	rmdir(path);
	rmdir(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_has_its_numbers_home_and_groups),
		cmocka_unit_test(a_number_that_is_listed_is_that_user),
		cmocka_unit_test(a_number_that_is_not_listed_will_do),
		cmocka_unit_test(a_name_goes_before_a_number),
		cmocka_unit_test(an_explicit_group_replaces_all_others),
		cmocka_unit_test(a_user_without_home_lives_in_the_root),
		cmocka_unit_test(the_last_line_needs_no_newline),
		cmocka_unit_test(root_needs_no_passwd),
		cmocka_unit_test(unknown_names_are_refused),
		cmocka_unit_test(malformed_specifications_are_refused),
		cmocka_unit_test(a_record_without_numbers_is_refused),
		cmocka_unit_test(a_membership_without_end_is_refused),
		cmocka_unit_test(a_fifo_in_place_of_the_file_is_refused_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
