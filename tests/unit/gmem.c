/* Guest memory that comes, goes, is there in part or is only to be read, and what of it devices still hold. */
#include "tests/unit/virtq_driver.h"

#include <errno.h>

#define BLOCK 4096ull

static uint8_t block_a[4 * BLOCK] __attribute__((aligned(4096))), block_b[BLOCK] __attribute__((aligned(4096)));

static void regions_are_told_in_order_whenever_they_came(void **state)
{
	const gpa_t order[] = {0x30000, 0x10000, 0x20000};
	const struct gmem_region *region = NULL;
	struct gmem mem = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		assert_int_equal(gmem_add(&mem, order[i], BLOCK, block_b), 0);
	for (gpa_t gpa = 0x10000; gpa <= 0x30000; gpa += 0x10000) {
		region = gmem_next(&mem, region);
		assert_non_null(region);
		assert_int_equal(region->gpa, gpa);
		assert_int_equal(region->kind, GMEM_RAM);
	}
	assert_null(gmem_next(&mem, region));
}

static void what_is_hidden_is_found_no_more_and_keeps_its_place(void **state)
{
	struct gmem mem = {0};
	uint8_t byte;

	(void)state;
	assert_int_equal(gmem_add(&mem, 0x10000, BLOCK, block_a), 0);
	assert_int_equal(gmem_add(&mem, 0x11000, BLOCK, block_b), 0);
	gmem_hide(&mem, 0x10000);
	assert_null(gmem_span(&mem, 0x10000, 1));
	assert_int_equal(gmem_read(&mem, 0x10000, &byte, 1), -EFAULT);
	assert_int_equal(gmem_next(&mem, NULL)->gpa, 0x11000);
	assert_int_equal(gmem_add(&mem, 0x10000, BLOCK, block_a), -EINVAL); /* who found it may still be at it */
}

static void places_of_removed_regions_are_used_again(void **state)
{
	struct gmem mem = {0};

	(void)state;
	assert_int_equal(gmem_add(&mem, 0x10000, BLOCK, block_a), 0);
	for (unsigned i = 0; i < 3 * GMEM_REGIONS_MAX; i++) {
		gpa_t gpa = 0x100000 + i * BLOCK;

		assert_int_equal(gmem_add(&mem, gpa, BLOCK, block_b), 0);
		assert_ptr_equal(gmem_span(&mem, gpa, BLOCK), block_b);
		gmem_hide(&mem, gpa);
		gmem_remove(&mem, gpa);
		assert_null(gmem_span(&mem, gpa, 1));
	}
	assert_ptr_equal(gmem_span(&mem, 0x10000, 1), block_a);
}

static void a_region_is_there_block_by_block(void **state)
{
	uint64_t blocks[1] = {0}, n;
	struct gmem_region region = {.gpa = 0x10000, .size_bytes = sizeof(block_a), .host = block_a,
		.kind = GMEM_DEVICE, .blocks = blocks, .block_bytes = BLOCK};
	struct gmem mem = {0};
	uint8_t data[2] = {0};

	(void)state;
	assert_int_equal(gmem_add_region(&mem, &region), 0);
	assert_null(gmem_view(&mem, 0x10000, 1));
	gmem_set_blocks(&mem, 0x10000, BLOCK, 2 * BLOCK, true);
	assert_null(gmem_span(&mem, 0x10000 + BLOCK - 1, 2));
	assert_ptr_equal(gmem_span(&mem, 0x10000 + BLOCK, 2 * BLOCK), block_a + BLOCK);
	assert_null(gmem_span(&mem, 0x10000 + BLOCK, 2 * BLOCK + 1));
	assert_ptr_equal(gmem_span_start(&mem, 0x10000 + BLOCK + 16, UINT64_MAX, &n), block_a + BLOCK + 16);
	assert_int_equal(n, 2 * BLOCK - 16);
	assert_int_equal(gmem_write(&mem, 0x10000 + 2 * BLOCK - 1, data, 2), 0);
	assert_int_equal(gmem_write(&mem, 0x10000 + 3 * BLOCK - 1, data, 2), -EFAULT);
	gmem_set_blocks(&mem, 0x10000, 2 * BLOCK, BLOCK, false);
	assert_int_equal(blocks[0], 1 << 1);
	assert_null(gmem_span(&mem, 0x10000 + 2 * BLOCK, 1));
	gmem_set_blocks(&mem, 0x10000, 0, 4 * BLOCK, true);
	assert_ptr_equal(gmem_span(&mem, 0x10000, 4 * BLOCK), block_a);
}

static void what_is_only_to_be_read_is_not_written(void **state)
{
	struct gmem_region region = {
		.gpa = 0x10000, .size_bytes = BLOCK, .host = block_a, .kind = GMEM_DEVICE, .read_only = true};
	struct gmem mem = {0};
	uint8_t byte;
	uint64_t n;

	(void)state;
	assert_int_equal(gmem_add_region(&mem, &region), 0);
	assert_ptr_equal(gmem_view(&mem, 0x10000, BLOCK), block_a);
	assert_int_equal(gmem_read(&mem, 0x10000, &byte, 1), 0);
	assert_null(gmem_span(&mem, 0x10000, 1));
	assert_null(gmem_span_start(&mem, 0x10000, 1, &n));
	assert_int_equal(gmem_write(&mem, 0x10000, &byte, 1), -EFAULT);
}

/* The driver's buffers and rings. */

static void a_device_reads_but_does_not_write_what_is_only_to_be_read(void **state)
{
	struct gmem_region fixed = {
		.gpa = 0x8000000, .size_bytes = sizeof(block_a), .host = block_a, .kind = GMEM_DEVICE, .read_only = true};
	struct virtq_chain chain;
	struct driver_queue q;
	struct guest g;
	struct virtq vq;

	(void)state;
	guest_init(&g, 1 << 20);
	driver_queue_init(&q, &g, 8);
	virtq_init(&vq, &g.mem, 8);
	assert_int_equal(gmem_add_region(&g.mem, &fixed), 0);
	assert_int_equal(driver_queue_attach(&q, &vq), 0);
	driver_set_desc(&q, 0, 0x8000000, 16, 0, 0);
	driver_publish(&q, 0);
	assert_int_equal(virtq_pop(&vq, &chain), 1);
	assert_ptr_equal(chain.iov[0].iov_base, block_a);
	driver_set_desc(&q, 1, 0x8000000, 16, VRING_DESC_F_WRITE, 0);
	driver_publish(&q, 1);
	assert_int_equal(virtq_pop(&vq, &chain), -EFAULT);
	virtq_reset(&vq);
	q.used = 0x8000000;
	assert_int_equal(driver_queue_attach(&q, &vq), -EINVAL);
	guest_done(&g);
}

static void rings_and_buffers_hold_the_memory_they_lie_in(void **state)
{
	struct virtq_chain chain;
	struct driver_queue q;
	struct guest g;
	struct virtq vq;
	uint8_t *data, *host[3];

	(void)state;
	guest_init(&g, 1 << 20);
	driver_queue_init(&q, &g, 8);
	virtq_init(&vq, &g.mem, 8);
	host[0] = guest_ptr(&g, q.desc);
	host[1] = guest_ptr(&g, q.avail);
	host[2] = guest_ptr(&g, q.used);
	assert_false(virtq_holds(&vq, g.ram, g.size)); /* not set up yet */
	assert_int_equal(driver_queue_attach(&q, &vq), 0);
	for (size_t i = 0; i < ARRAY_SIZE(host); i++)
		assert_true(virtq_holds(&vq, host[i] + 1, 1));
	assert_true(virtq_holds(&vq, host[2] + 6 + 8 * 8 - 1, 1)); /* avail_event */
	assert_false(virtq_holds(&vq, host[2] + 6 + 8 * 8, 64));
	assert_false(virtq_holds(&vq, host[0], 0));

	driver_set_desc(&q, 0, guest_alloc(&g, 100, 16), 100, VRING_DESC_F_WRITE, 0);
	data = guest_ptr(&g, q.desc_table[0].addr);
	driver_publish(&q, 0);
	assert_int_equal(virtq_pop(&vq, &chain), 1);
	assert_true(virtq_chain_holds(&chain, data + 99, 100));
	assert_true(virtq_chain_holds(&chain, data - 1, 2));
	assert_false(virtq_chain_holds(&chain, data + 100, 100));
	assert_false(virtq_chain_holds(&chain, data - 1, 1));
	guest_done(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(regions_are_told_in_order_whenever_they_came),
		cmocka_unit_test(what_is_hidden_is_found_no_more_and_keeps_its_place),
		cmocka_unit_test(places_of_removed_regions_are_used_again),
		cmocka_unit_test(a_region_is_there_block_by_block),
		cmocka_unit_test(what_is_only_to_be_read_is_not_written),
		cmocka_unit_test(a_device_reads_but_does_not_write_what_is_only_to_be_read),
		cmocka_unit_test(rings_and_buffers_hold_the_memory_they_lie_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
