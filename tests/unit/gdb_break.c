/* A debugger's breakpoints in guest memory and in debug registers, and memory by virtual address. */
#include "tests/unit/test.h"

#include "vmm/gdb_break.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define BASE 0x100000u

/* Virtual pages 0, 1 and 2 are the memory's 2, 0 and 2; nothing else is mapped. */
struct world {
	uint8_t *host;
	struct gmem mem;
	struct gdb_breaks breaks;
	struct gdb_space space;
};

static int translate(void *ctx, uint64_t address, gpa_t *ret)
{
	static const gpa_t pages[] = {BASE + 2 * PAGE, BASE, BASE + 2 * PAGE};

	(void)ctx;
	if (address / PAGE >= sizeof(pages) / sizeof(pages[0]))
		return -EFAULT;
	*ret = pages[address / PAGE] + address % PAGE;
	return 0;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_int_equal(posix_memalign((void **)&w->host, PAGE, 3 * PAGE), 0);
	for (unsigned i = 0; i < 3 * PAGE; i++)
		w->host[i] = (uint8_t)(i % 251);
	assert_int_equal(gmem_add(&w->mem, BASE, 3 * PAGE, w->host), 0);
	gdb_breaks_init(&w->breaks, &w->mem);
	w->space.translate = translate;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	free(w->host);
	free(w);
	return 0;
}

static void test_a_breakpoint_is_in_memory_and_not_seen(void **state)
{
	struct world *w = *state;
	uint8_t *place = w->host + 2 * PAGE + 16, before = *place, seen[32];

	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 16, 1), 0);
	assert_int_equal(*place, 0xcc);
	assert_true(gdb_breaks_hit(&w->breaks, BASE + 2 * PAGE + 16));
	assert_false(gdb_breaks_hit(&w->breaks, BASE + 16));
	assert_int_equal(gdb_memory_read(&w->breaks, &w->space, 0, seen, sizeof(seen)), sizeof(seen));
	assert_int_equal(seen[16], before);
	/* By another address that leads there, it is the same one. */
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 2 * PAGE + 16, 1), 0);
	assert_int_equal(w->breaks.n_software, 1);
	assert_true(gdb_breaks_any_software(&w->breaks)); /* so it is not saved */
	assert_int_equal(gdb_break_remove(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 2 * PAGE + 16, 1), 0);
	assert_int_equal(*place, before);
	assert_false(gdb_breaks_any_software(&w->breaks));
	assert_int_equal(gdb_break_remove(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 16, 1), 0);
}

static void test_what_is_written_lies_below_a_breakpoint(void **state)
{
	struct world *w = *state;
	uint8_t *place = w->host + 2 * PAGE + 16;
	uint8_t seen;

	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 16, 1), 0);
	assert_int_equal(gdb_memory_write(&w->breaks, &w->space, 15, "\x01\x02\x03", 3), 0);
	assert_int_equal(place[-1], 1);
	assert_int_equal(place[0], 0xcc);
	assert_int_equal(place[1], 3);
	assert_int_equal(gdb_memory_read(&w->breaks, &w->space, 16, &seen, 1), 1);
	assert_int_equal(seen, 2);
	gdb_breaks_clear(&w->breaks);
	assert_int_equal(place[0], 2);
	assert_int_equal(w->breaks.n_software, 0);
}

static void test_what_the_guest_wrote_over_a_breakpoint_stays(void **state)
{
	struct world *w = *state;
	uint8_t *place = w->host + 2 * PAGE + 16;

	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 16, 1), 0);
	*place = 0x90;
	gdb_breaks_clear(&w->breaks);
	assert_int_equal(*place, 0x90);
}

static void test_memory_goes_on_in_the_next_page_and_ends_where_nothing_is(void **state)
{
	struct world *w = *state;
	uint8_t seen[64];

	assert_int_equal(gdb_memory_read(&w->breaks, &w->space, PAGE - 32, seen, 64), 64);
	assert_memory_equal(seen, w->host + 3 * PAGE - 32, 32);
	assert_memory_equal(seen + 32, w->host, 32);
	assert_int_equal(gdb_memory_read(&w->breaks, &w->space, 3 * PAGE - 32, seen, 64), 32);
	assert_int_equal(gdb_memory_read(&w->breaks, &w->space, 3 * PAGE, seen, 64), 0);
	assert_int_equal(gdb_memory_read(&w->breaks, &w->space, UINT64_MAX - 1, seen, 64), 0);
	assert_int_equal(gdb_memory_write(&w->breaks, &w->space, PAGE - 1, "\xaa\xbb", 2), 0);
	assert_int_equal(w->host[3 * PAGE - 1], 0xaa);
	assert_int_equal(w->host[0], 0xbb);
	assert_int_equal(gdb_memory_write(&w->breaks, &w->space, 3 * PAGE - 1, "\xcc\xdd", 2), -EFAULT);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 3 * PAGE, 1), -EFAULT);
	assert_int_equal(gdb_break_remove(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, 3 * PAGE, 1), -EFAULT);
}

static void test_there_are_only_so_many(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < GDB_SOFTWARE_MAX; i++)
		assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, i, 1), 0);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_SOFTWARE, GDB_SOFTWARE_MAX, 1), -ENOSPC);
	for (unsigned i = 0; i < GDB_HARDWARE_MAX; i++)
		assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_HARDWARE, i, 1), 0);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0, 8), -ENOSPC);
	assert_int_equal(gdb_break_remove(&w->breaks, &w->space, GDB_BREAK_HARDWARE, 2, 1), 0);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0, 8), 0);
}

static void test_debug_registers(void **state)
{
	struct world *w = *state;
	uint64_t dr[GDB_HARDWARE_MAX], dr7;

	assert_false(gdb_breaks_any_hardware(&w->breaks));
	gdb_debug_registers(&w->breaks, dr, &dr7);
	assert_int_equal(dr7, 0x400);
	/* Where nothing is mapped yet, too. */
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_BREAK_HARDWARE, 0xffffffff81000001, 5), 0);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0x1000, 8), 0);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_ACCESS, 0x2004, 4), 0);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_ACCESS, 0x2004, 4), 0); /* once */
	assert_true(gdb_breaks_any_hardware(&w->breaks));
	gdb_debug_registers(&w->breaks, dr, &dr7);
	assert_int_equal(dr[0], 0xffffffff81000001);
	assert_int_equal(dr[1], 0x1000);
	assert_int_equal(dr[2], 0x2004);
	assert_int_equal(dr[3], 0);
	assert_int_equal(dr7, 0x700 | 0x2a | 0x0u << 16 | 0x9u << 20 | 0xfu << 24);
}

static void test_what_no_processor_watches(void **state)
{
	struct world *w = *state;

	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0x1000, 3), -EINVAL);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0x1000, 0), -EINVAL);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0x1000, 16), -EINVAL);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0x1000, UINT64_MAX), -EINVAL);
	assert_int_equal(gdb_break_insert(&w->breaks, &w->space, GDB_WATCH_WRITE, 0x1002, 4), -EINVAL);
	assert_false(gdb_breaks_any_hardware(&w->breaks));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_a_breakpoint_is_in_memory_and_not_seen),
		TEST(test_what_is_written_lies_below_a_breakpoint),
		TEST(test_what_the_guest_wrote_over_a_breakpoint_stays),
		TEST(test_memory_goes_on_in_the_next_page_and_ends_where_nothing_is),
		TEST(test_there_are_only_so_many),
		TEST(test_debug_registers),
		TEST(test_what_no_processor_watches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
