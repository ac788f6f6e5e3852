/* The error object: one line, with its field's path. */
#include "tests/unit/test.h"

#include "common/error.h"

#include <errno.h>
#include <string.h>

static void an_error_names_field_and_reason(void **state)
{
	struct error err;
	char line[512];

	(void)state;
	assert_int_equal(error_set_field(&err, EINVAL, "vcpu_count", "must be %d to %d", 1, 32), -EINVAL);
	assert_int_equal(error_in_field(&err, "machine-config"), -EINVAL);
	assert_string_equal(error_line(&err, line, sizeof(line)), "machine-config.vcpu_count: must be 1 to 32");
}

static void an_index_joins_without_a_dot(void **state)
{
	struct error err;

	(void)state;
	error_set_field(&err, EINVAL, "host", "taken");
	error_in_field(&err, "[%d]", 2);
	error_in_field(&err, "ports");
	assert_string_equal(err.field, "ports[2].host");
}

static void control_characters_cannot_make_a_second_line(void **state)
{
	struct error err;

	(void)state;
	error_set_field(&err, EINVAL, "a\nb", "no \x1b[31m\r\n%s", "forged: line");
	assert_null(strpbrk(err.field, "\n\r\x1b"));
	assert_null(strpbrk(err.message, "\n\r\x1b"));
}

static void long_text_is_cut_not_overrun(void **state)
{
	struct error err;
	char name[1000];

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	error_set_field(&err, EINVAL, name, "%s", name);
	assert_int_equal(strlen(err.field), ERROR_FIELD_MAX - 1);
	assert_int_equal(strlen(err.message), ERROR_MESSAGE_MAX - 1);
	error_in_field(&err, "%s", name);
	error_prefix(&err, "%s", name);
	assert_int_equal(strlen(err.field), ERROR_FIELD_MAX - 1);
}

static void errno_and_context_are_told(void **state)
{
	struct error err;

	(void)state;
	assert_int_equal(error_set_errno(&err, ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_string_equal(err.message, "cannot open x: No such file or directory");
	error_prefix(&err, "kernel: ");
	assert_string_equal(err.message, "kernel: cannot open x: No such file or directory");
	assert_int_equal(error_set(NULL, EIO, "nobody listens"), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_names_field_and_reason),
		cmocka_unit_test(an_index_joins_without_a_dot),
		cmocka_unit_test(control_characters_cannot_make_a_second_line),
		cmocka_unit_test(long_text_is_cut_not_overrun),
		cmocka_unit_test(errno_and_context_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
