/* Checked arithmetic, and ownership that ends with its scope. */
#include "common/checked.h"

#include "common/cleanup.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <string.h>

static void what_wraps_is_told(void **state)
{
	uint64_t sum;
	uint32_t product;
	int32_t difference;
	uint8_t narrow;

	(void)state;
	assert_true(checked_add(UINT64_MAX - 1, (uint64_t)1, &sum));
	assert_true(sum == UINT64_MAX);
	assert_false(checked_add(UINT64_MAX, (uint64_t)1, &sum));
	assert_true(checked_mul(65535u, 65537u, &product));
	assert_int_equal(product, UINT32_MAX);
	assert_false(checked_mul(65536u, 65536u, &product));
	assert_true(checked_sub(INT32_MIN + 1, 1, &difference));
	assert_false(checked_sub(INT32_MIN, 1, &difference));
	/* It is the result's type that counts, not the operands'. */
	assert_true(checked_sub((uint64_t)3, (uint64_t)5, &difference));
	assert_int_equal(difference, -2);
	assert_false(checked_sub((uint64_t)3, (uint64_t)5, &sum));
	assert_true(checked_add(200, 55, &narrow));
	assert_false(checked_add(200, 56, &narrow));
}

static void a_range_fits_or_not_without_wrapping(void **state)
{
	(void)state;
	assert_true(range_fits(0, 0, 0));
	assert_true(range_fits(0, 10, 10));
	assert_true(range_fits(10, 0, 10));
	assert_false(range_fits(10, 1, 10));
	assert_false(range_fits(11, 0, 10));
	assert_false(range_fits(1, UINT64_MAX, UINT64_MAX));
	assert_false(range_fits(UINT64_MAX, 2, 10)); /* the sum is 1 */
	assert_true(range_fits(UINT64_MAX - 4, 4, UINT64_MAX));
}

static void addresses_are_aligned_both_ways(void **state)
{
	(void)state;
	assert_int_equal(align_up(0, 4096), 0);
	assert_int_equal(align_up(1, 4096), 4096);
	assert_int_equal(align_up(4096, 4096), 4096);
	assert_int_equal(align_down(4095, 4096), 0);
	assert_int_equal(align_down(8191, 4096), 4096);
	assert_true(align_up(UINT64_MAX - 4095, 4096) == UINT64_MAX - 4095);
}

static int pass_on(int *ret_closed)
{
	cleanup_close int kept = open("/dev/null", O_RDONLY | O_CLOEXEC), left = open("/dev/null", O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = strdup("freed by the scope"), *stolen = text ? steal_ptr(&text) : NULL;

	assert_null(text);
	assert_non_null(stolen);
	*ret_closed = left;
	errno = EAGAIN;
	return steal_fd(&kept);
}

static void a_scope_ends_what_it_has_not_passed_on(void **state)
{
	int closed, kept = pass_on(&closed);

	(void)state;
	assert_int_equal(errno, EAGAIN); /* kept by close_fd() */
	assert_true(fcntl(kept, F_GETFD) >= 0);
	assert_int_equal(fcntl(closed, F_GETFD), -1);
	assert_int_equal(close_fd(kept), -1);
	assert_int_equal(fcntl(kept, F_GETFD), -1);
	assert_int_equal(close_fd(-1), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_wraps_is_told),
		cmocka_unit_test(a_range_fits_or_not_without_wrapping),
		cmocka_unit_test(addresses_are_aligned_both_ways),
		cmocka_unit_test(a_scope_ends_what_it_has_not_passed_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
