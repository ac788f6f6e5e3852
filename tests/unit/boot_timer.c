/* The register by which a guest says that it has booted. */
#include "tests/unit/test.h"

#include "devices/boot_timer.h"

#include <string.h>

static void booted(void *ctx)
{
	++*(unsigned *)ctx;
}

static void test_only_its_one_word_counts_and_once(void **state)
{
	static const uint8_t word[8] = {BOOT_TIMER_MAGIC}, other[1] = {BOOT_TIMER_MAGIC + 1};
	struct boot_timer dev;
	unsigned times = 0;

	(void)state;
	boot_timer_init(&dev, booted, &times);
	boot_timer_write(&dev, 0, other, 1);
	boot_timer_write(&dev, 0, word, 2);
	boot_timer_write(&dev, 0, word, 8);
	boot_timer_write(&dev, 1, word, 1);
	assert_int_equal(times, 0);
	boot_timer_write(&dev, 0, word, 1);
	assert_int_equal(times, 1);
	boot_timer_write(&dev, 0, word, 1);
	assert_int_equal(times, 1);
}

static void test_it_reads_as_nothing(void **state)
{
	struct boot_timer dev;
	uint8_t data[8], zero[8] = {0};

	(void)state;
	boot_timer_init(&dev, booted, NULL);
	memset(data, 0xff, sizeof(data));
	boot_timer_read(&dev, 0, data, sizeof(data));
	assert_memory_equal(data, zero, sizeof(data));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_its_one_word_counts_and_once),
		cmocka_unit_test(test_it_reads_as_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
