/* Where devices' memory is placed: above RAM, in the first gap, as far as the processor's addresses go. And what is let go with a
 * machine. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "vmm/layout.h"
#include "vmm/vm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIB   (UINT64_C(1) << 30)
#define ALIGN LAYOUT_DEVICE_MEMORY_ALIGN

static struct gmem mem;
static struct vm vm;

/* Host addresses that nobody looks behind. */
static void add(gpa_t gpa, uint64_t size_bytes, enum gmem_kind kind)
{
	struct gmem_region region = {.gpa = gpa, .size_bytes = size_bytes, .kind = kind};

	assert_int_equal(gmem_add_region(&mem, &region), 0);
}

static gpa_t place(uint64_t size_bytes, uint64_t align)
{
	struct error err = {0};
	gpa_t at;

	if (vm_place(&vm, &mem, size_bytes, align, &at, &err) == 0)
		return at;
	assert_non_null(strstr(err.message, "bits of guest memory"));
	return 0;
}

static int setup(void **state)
{
	(void)state;
	memset(&mem, 0, sizeof(mem));
	vm.cpuid = calloc(1, sizeof(*vm.cpuid) + sizeof(vm.cpuid->entries[0]));
	vm.cpuid->nent = 1;
	vm.cpuid->entries[0].function = 0x80000008;
	vm.cpuid->entries[0].eax = 36;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(vm.cpuid);
	return 0;
}

static void test_it_is_above_ram(void **state)
{
	(void)state;
	add(0, GIB, GMEM_RAM);
	assert_int_equal(place(GIB, 1), LAYOUT_HIGH_RAM);
	add(LAYOUT_HIGH_RAM, 3 * GIB, GMEM_RAM);
	assert_int_equal(place(GIB, 1), LAYOUT_HIGH_RAM + 4 * GIB);
	assert_int_equal(place(GIB, 16 * GIB), 16 * GIB);
}

static void test_it_is_in_the_first_gap(void **state)
{
	(void)state;
	add(0, GIB, GMEM_RAM);
	add(LAYOUT_HIGH_RAM, 4096, GMEM_DEVICE);
	add(LAYOUT_HIGH_RAM + 2 * ALIGN, GIB, GMEM_DEVICE);
	assert_int_equal(place(ALIGN, 1), LAYOUT_HIGH_RAM + ALIGN);
	assert_int_equal(place(ALIGN + 4096, 1), LAYOUT_HIGH_RAM + 3 * ALIGN);
	gmem_hide(&mem, LAYOUT_HIGH_RAM);
	gmem_remove(&mem, LAYOUT_HIGH_RAM);
	assert_int_equal(place(2 * ALIGN, 1), LAYOUT_HIGH_RAM);
}

static void test_it_ends_where_addresses_end(void **state)
{
	(void)state;
	add(0, GIB, GMEM_RAM);
	assert_int_equal(place(60 * GIB, 1), LAYOUT_HIGH_RAM);
	assert_int_equal(place(60 * GIB + 4096, 1), 0);
	assert_int_equal(place(UINT64_MAX, 1), 0);
	add(LAYOUT_HIGH_RAM, 59 * GIB, GMEM_DEVICE);
	assert_int_equal(place(4096, 1), 0); /* what is left does not begin where it must */
	vm.cpuid->entries[0].eax = 37;
	assert_int_equal(place(4096, 1), 64 * GIB);
}

/* By a thread of the kernel's, after this one. A pipe stands for the machine: its other end is told. */
static void test_the_machine_is_let_go(void **state)
{
	struct vm ended = {.kvm_fd = -1};
	struct pollfd end = {.fd = -1, .events = POLLIN};
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	ended.fd = fds[1];
	vm_done(&ended);
	assert_int_equal(ended.fd, -1);
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
	end.fd = fds[0];
	assert_int_equal(poll(&end, 1, 60000), 1);
	assert_int_equal(end.revents, POLLHUP);
	close(fds[0]);
	vm_done(&ended); /* of nothing */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_it_is_above_ram, setup, teardown),
		cmocka_unit_test_setup_teardown(test_it_is_in_the_first_gap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_it_ends_where_addresses_end, setup, teardown),
		cmocka_unit_test(test_the_machine_is_let_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
