/* Entity tags: what they are made of, and the lists of them in requests. */
#include "tests/unit/test.h"

#include "api/etag.h"
#include "common/checked.h"

#include <errno.h>
#include <string.h>

static void a_tag_follows_what_is_seen(void **state)
{
	json_t *seen = json_pack("{s:i}", "cpus", 1);
	char first[ETAG_BYTES], again[ETAG_BYTES], changed[ETAG_BYTES];

	(void)state;
	etag_of(seen, first);
	etag_of_text(seen, "{\"cpus\":1}", 10, again);
	json_object_set_new(seen, "cpus", json_integer(2));
	etag_of(seen, changed);
	json_decref(seen);
	assert_int_equal(strlen(first), ETAG_BYTES - 1);
	assert_int_equal(etag_list_has(first, first, false), 1);
	assert_string_equal(first, again);
	assert_string_not_equal(first, changed);
}

static void what_something_takes_at_the_moment_is_no_part_of_it(void **state)
{
	json_t *seen = json_pack("{s:i, s:i}", "size_mib", 16, "used_bytes", 1);
	char first[ETAG_BYTES], sent[ETAG_BYTES], later[ETAG_BYTES], larger[ETAG_BYTES];

	(void)state;
	etag_of(seen, first);
	etag_of_text(seen, "{\"size_mib\":16,\"used_bytes\":1}", 30, sent);
	json_object_set_new(seen, "used_bytes", json_integer(2));
	etag_of(seen, later);
	assert_int_equal(json_integer_value(json_object_get(seen, "used_bytes")), 2);
	json_object_set_new(seen, "size_mib", json_integer(32));
	etag_of(seen, larger);
	json_decref(seen);
	assert_string_equal(first, sent);
	assert_string_equal(first, later);
	assert_string_not_equal(first, larger);
}

static const struct {
	const char *list;
	int strong, weak;
} lists[] = {
	{"\"a\"", 1, 1},
	{"*", 1, 1},
	{" *\t", 1, 1},
	{"\"b\"", 0, 0},
	{"\"b\", \"a\"", 1, 1},
	{"\"b\",\"c\"", 0, 0},
	{", ,\"b\",, \"a\" ,", 1, 1},
	{"\"b,\\\" ,\"a\"", 1, 1}, /* a comma is a character, and a backslash is one like others */
	{"\"\", \"\xc3\xa4\"", 0, 0},
	{"W/\"a\"", 0, 1},
	{"W/\"b\", W/\"a\"", 0, 1},
	{"\"a", -EINVAL, -EINVAL},
	{"a", -EINVAL, -EINVAL},
	{"\"a\" \"b\"", -EINVAL, -EINVAL},
	{"\"a\"x", -EINVAL, -EINVAL},
	{"\"a b\"", -EINVAL, -EINVAL},
	{"\"\x7f\"", -EINVAL, -EINVAL},
	{"w/\"a\"", -EINVAL, -EINVAL},
	{"W/ \"a\"", -EINVAL, -EINVAL},
	{"*, \"a\"", -EINVAL, -EINVAL},
	{"\"a\", *", -EINVAL, -EINVAL},
	{"", -EINVAL, -EINVAL},
	{" , ", -EINVAL, -EINVAL},
};

static void lists_are_read_as_the_specification_has_them(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		assert_int_equal(etag_list_has(lists[i].list, "\"a\"", false), lists[i].strong);
		assert_int_equal(etag_list_has(lists[i].list, "\"a\"", true), lists[i].weak);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tag_follows_what_is_seen),
		cmocka_unit_test(what_something_takes_at_the_moment_is_no_part_of_it),
		cmocka_unit_test(lists_are_read_as_the_specification_has_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
