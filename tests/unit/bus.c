/* The bus: what is claimed reaches its device, what is not reads as all ones. */
#include "tests/unit/test.h"
#include "vmm/bus.h"

#include <errno.h>
#include <string.h>

struct recorder {
	uint64_t offset;
	uint32_t len;
	unsigned n_reads, n_writes;
};

static void record_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct recorder *r = ctx;

	*r = (struct recorder){offset, len, r->n_reads + 1, r->n_writes};
	memset(data, 0x5a, len);
}

static void record_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct recorder *r = ctx;

	(void)data;
	*r = (struct recorder){offset, len, r->n_reads, r->n_writes + 1};
}

static const struct bus_ops ops = {record_read, record_write};

static void test_finds_each_range_from_its_first_to_its_last_byte(void **state)
{
	struct bus bus = {0};
	struct recorder r[5] = {0};
	static const uint64_t bases[] = {0x3f8, 0x60, 0x600, 0x505, 0x506};
	static const uint64_t sizes[] = {8, 5, 0x14, 1, 2};
	uint8_t byte;

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(bus_add(&bus, bases[i], sizes[i], &ops, &r[i]), 0);
	for (unsigned i = 0; i < 5; i++) {
		for (uint64_t offset = 0; offset < sizes[i]; offset++) {
			bus_read(&bus, bases[i] + offset, &byte, 1);
			assert_int_equal(byte, 0x5a);
			assert_int_equal(r[i].offset, offset);
			bus_write(&bus, bases[i] + offset, &byte, 1);
		}
		assert_int_equal(r[i].n_reads, sizes[i]);
		assert_int_equal(r[i].n_writes, sizes[i]);
	}
}

static void test_unclaimed_reads_are_all_ones_at_any_width(void **state)
{
	struct bus bus = {0};
	struct recorder r = {0};
	static const uint64_t addresses[] = {0, 0xfff, 0x1008, 0x2000, UINT64_MAX};

	(void)state;
	assert_int_equal(bus_add(&bus, 0x1000, 8, &ops, &r), 0);
	for (unsigned i = 0; i < 5; i++) {
		for (uint32_t len = 1; len <= 8; len++) {
			uint8_t data[9] = {0};

			bus_read(&bus, addresses[i], data, len);
			for (uint32_t b = 0; b < 9; b++)
				assert_int_equal(data[b], b < len ? 0xff : 0);
			bus_write(&bus, addresses[i], data, len);
		}
	}
	assert_int_equal(r.n_reads + r.n_writes, 0);
}

static void test_passes_the_access_on_as_it_is(void **state)
{
	struct bus bus = {0};
	struct recorder r = {0};
	uint8_t data[8];

	(void)state;
	assert_int_equal(bus_add(&bus, 0x1000, 4, &ops, &r), 0);
	bus_read(&bus, 0x1003, data, 8); /* reaches beyond the end: the device's to judge */
	assert_int_equal(r.offset, 3);
	assert_int_equal(r.len, 8);
}

static void test_refuses_what_overlaps_wraps_or_is_too_much(void **state)
{
	struct bus bus = {0};
	struct recorder r = {0};

	(void)state;
	assert_int_equal(bus_add(&bus, 0x1000, 0, &ops, &r), -EINVAL);
	assert_int_equal(bus_add(&bus, UINT64_MAX, 2, &ops, &r), -EINVAL);
	assert_int_equal(bus_add(&bus, 0x1000, 0x10, &ops, &r), 0);
	assert_int_equal(bus_add(&bus, 0x100f, 1, &ops, &r), -EEXIST);
	assert_int_equal(bus_add(&bus, 0xfff, 2, &ops, &r), -EEXIST);
	assert_int_equal(bus_add(&bus, 0x0, 0x10000, &ops, &r), -EEXIST);
	assert_int_equal(bus_add(&bus, 0x1000, 0x10, &ops, &r), -EEXIST);
	assert_int_equal(bus_add(&bus, UINT64_MAX, 1, &ops, &r), 0); /* the very last byte */
	for (unsigned i = 2; i < BUS_RANGES_MAX; i++)
		assert_int_equal(bus_add(&bus, 0x10000 * i, 1, &ops, &r), 0);
	assert_int_equal(bus_add(&bus, 1, 1, &ops, &r), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_each_range_from_its_first_to_its_last_byte),
		cmocka_unit_test(test_unclaimed_reads_are_all_ones_at_any_width),
		cmocka_unit_test(test_passes_the_access_on_as_it_is),
		cmocka_unit_test(test_refuses_what_overlaps_wraps_or_is_too_much),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
