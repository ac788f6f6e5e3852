/* Checks of single values, ports that collide, and problems as JSON. */
#include "tests/unit/test.h"

#include "api/mounts.h"
#include "api/problem.h"
#include "api/spec.h"

#include <errno.h>
#include <string.h>

static void names_are_short_and_plain(void **state)
{
	static const char *const good[] = {"a", "0", "a-b", "a--b9"}, *const bad[] = {"", "-a", "a-", "A", "a_b", "a/b", "ä"};
	char long_name[NAME_MAX_BYTES + 2];
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(name_check(good[i], &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(name_check(bad[i], &err), -EINVAL);
	memset(long_name, 'a', sizeof(long_name));
	long_name[NAME_MAX_BYTES + 1] = '\0';
	assert_int_equal(name_check(long_name, &err), -EINVAL);
	long_name[NAME_MAX_BYTES] = '\0';
	assert_int_equal(name_check(long_name, &err), 0);
}

static void host_names_are_labels_between_dots(void **state)
{
	static const char *const good[] = {"a", "web.localhost", "a-b.1.c2", "1.2.3.a4"};
	static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "A.b", "a_b", "127.0.0.1", "1", "a.1b", "a b", "a\n", "*.a", "ä.b"};
	char long_name[HOSTNAME_MAX_BYTES + 2];
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(dns_name_check(good[i], &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(dns_name_check(bad[i], &err), -EINVAL);
	for (size_t i = 0; i < sizeof(long_name); i++)
		long_name[i] = i % 64 == 63 ? '.' : 'a';
	long_name[HOSTNAME_MAX_BYTES + 1] = '\0';
	assert_int_equal(dns_name_check(long_name, &err), -EINVAL);
	long_name[HOSTNAME_MAX_BYTES] = '\0';
	assert_int_equal(dns_name_check(long_name, &err), 0);
	assert_true(dns_name_is_within("a.b", "b") && dns_name_is_within("b", "b"));
	assert_false(dns_name_is_within("ab", "b") || dns_name_is_within("b", "a.b") || dns_name_is_within("a.bc", "b"));
}

static void a_digest_cannot_be_a_path(void **state)
{
	struct error err;

	(void)state;
	assert_int_equal(
		digest_check("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", &err), 0);
	assert_int_equal(
		digest_check("sha256:../../../../../../../../../../../../../../../../../../../../etc", &err), -EINVAL);
	assert_int_equal(
		digest_check("sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", &err), -EINVAL);
	assert_int_equal(digest_check("sha256:", &err), -EINVAL);
}

/* A machine that has one port. */
static bool collide(struct port_spec *ports, const struct port_spec *port)
{
	const struct machine_spec spec = {.ports = {.items = ports, .len = 1}};

	return machine_spec_collides(&spec, port);
}

static void ports_collide_on_one_address_or_all(void **state)
{
	struct port_spec here = {80, 1, (char *)"127.0.0.1", PROTOCOL_TCP}, all = {80, 1, (char *)"0.0.0.0", PROTOCOL_TCP};
	struct port_spec there = {80, 1, (char *)"127.0.0.2", PROTOCOL_TCP}, other = {81, 1, (char *)"127.0.0.1", PROTOCOL_TCP};
	struct port_spec udp = {80, 1, (char *)"127.0.0.1", PROTOCOL_UDP};

	(void)state;
	assert_true(collide(&here, &here));
	assert_true(collide(&here, &all));
	assert_true(collide(&all, &there));
	assert_false(collide(&here, &there));
	assert_false(collide(&here, &other));
	assert_false(collide(&here, &udp));
	assert_true(collide(&udp, &udp));
	assert_false(machine_spec_collides(&(struct machine_spec){0}, &here));
}

static void a_mount_is_at_a_normal_path_of_its_own(void **state)
{
	static const char *const good[] = {"/d", "/data", "/var/lib/postgresql/data", "/...", "/.a/..b", "/running", "/a b", "/etc"};
	static const char *const bad[] = {"", "/", "data", "//data", "/data/", "/a//b", "/.", "/a/.", "/a/../b", "/..", "a/b", "./a", "/proc", "/proc/1",
		"/sys/fs", "/dev/shm", "/run", "/run/x"};
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(mount_path_check(good[i], &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(mount_path_check(bad[i], &err), -EINVAL);
}

static void assert_mounts(const char *text, int r, const char *field)
{
	json_t *json = json_loads(text, 0, NULL);
	struct machine_spec spec;
	struct error err = {0};
	int found = json_read(&machine_spec_table, json, &spec, &err);

	json_decref(json);
	if (found == 0)
		found = machine_spec_check(&spec, UINT64_MAX, &err);
	assert_int_equal(found, r);
	assert_string_equal(err.field, field);
	json_done(&machine_spec_table, &spec);
}

static void no_two_mounts_are_the_same(void **state)
{
#define MOUNTS(text_) "{\"image\": \"i\", \"mounts\": [" text_ "]}"
#define A	      "{\"volume\": \"a\", \"path\": \"/a\"}"
	(void)state;
	assert_mounts(MOUNTS(A), 0, "");
	assert_mounts(MOUNTS(A ", {\"volume\": \"b\", \"path\": \"/a/b\", \"read_only\": true}"), 0, "");
	assert_mounts(MOUNTS(A ", {\"volume\": \"b\", \"path\": \"/a\"}"), -EINVAL, "mounts[1].path");
	assert_mounts(MOUNTS(A ", {\"volume\": \"a\", \"path\": \"/b\"}"), -EINVAL, "mounts[1].volume");
	assert_mounts(MOUNTS("{\"path\": \"/a\"}"), -ENODATA, "mounts[0].volume");
	assert_mounts(MOUNTS("{\"volume\": \"a\"}"), -ENODATA, "mounts[0].path");
	assert_mounts(MOUNTS("{\"volume\": \"A\", \"path\": \"/a\"}"), -EINVAL, "mounts[0].volume");
	assert_mounts(MOUNTS("{\"volume\": \"a\", \"path\": \"/a/\"}"), -EINVAL, "mounts[0].path");
	assert_mounts(MOUNTS(A "," A "," A "," A "," A "," A "," A "," A "," A "," A "," A "," A "," A), -EINVAL, "mounts");
}

static void a_problem_is_always_json(void **state)
{
	struct problem problem;
	json_t *dumped;

	(void)state;
	problem_set(&problem, PROBLEM_INVALID_FIELD, "name", "cut \xc3");
	dumped = problem_dump(&problem);
	assert_non_null(dumped);
	assert_string_equal(json_string_value(json_object_get(dumped, "detail")), "cut ?");
	assert_string_equal(json_string_value(json_object_get(dumped, "code")), "invalid_field");
	assert_int_equal(json_integer_value(json_object_get(dumped, "status")), 400);
	json_decref(dumped);
	dumped = problem_schema();
	assert_non_null(dumped);
	json_decref(dumped);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_short_and_plain),
		cmocka_unit_test(host_names_are_labels_between_dots),
		cmocka_unit_test(a_digest_cannot_be_a_path),
		cmocka_unit_test(ports_collide_on_one_address_or_all),
		cmocka_unit_test(a_mount_is_at_a_normal_path_of_its_own),
		cmocka_unit_test(no_two_mounts_are_the_same),
		cmocka_unit_test(a_problem_is_always_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
