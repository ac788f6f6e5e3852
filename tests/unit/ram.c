/* Guest RAM of both kinds: laid out around the hole, given back in whole pages, what is no RAM refused. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "vmm/layout.h"
#include "vmm/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE 4096u
#define HUGE (2u << 20)
#define MIB  (1u << 20)

static struct ram ram;

static void makes(enum ram_kind kind, enum ram_pages pages, uint64_t size_bytes, int base_fd)
{
	struct ram_config config = {size_bytes, kind, pages, base_fd};
	struct error err = {0};

	if (ram_init(&ram, &config, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal((uintptr_t)ram.host % HUGE, 0); /* what the host has in one page, the guest has in one entry */
}

static uint8_t *at(gpa_t gpa)
{
	uint8_t *host = gmem_span(&ram.mem, gpa, 1);

	assert_non_null(host);
	return host;
}

/* Bytes that the host has given for it: of the file, or of this process's own pages. */
static uint64_t held_bytes(void)
{
	uint64_t n = ram.size_bytes / PAGE, held = 0;
	cleanup_free unsigned char *resident = calloc(n, 1);
	struct stat file;

	if (ram.kind == RAM_SHARED) {
		assert_int_equal(fstat(ram.fd, &file), 0);
		return (uint64_t)file.st_blocks * 512;
	}
	assert_int_equal(mincore(ram.host, ram.size_bytes, resident), 0);
	for (uint64_t i = 0; i < n; i++)
		held += (resident[i] & 1) * PAGE;
	return held;
}

static void each_kind(void (*test)(void))
{
	for (int kind = RAM_SHARED; kind <= RAM_COW; kind++) {
		makes((enum ram_kind)kind, RAM_PAGES_NORMAL, 8 * MIB, -1);
		test();
		ram_done(&ram);
		assert_null(ram.host);
	}
}

static void gives_back(void)
{
	assert_int_equal(held_bytes(), 0);
	memset(at(0), 0xaa, 8 * MIB);
	assert_int_equal(held_bytes(), 8 * MIB);
	assert_int_equal(ram_discard(&ram, 2 * MIB, 4 * MIB), 0);
	assert_int_equal(held_bytes(), 4 * MIB);
	assert_int_equal(*at(2 * MIB - 1), 0xaa);
	assert_int_equal(*at(2 * MIB), 0);
	assert_int_equal(*at(6 * MIB - 1), 0);
	assert_int_equal(*at(6 * MIB), 0xaa);
	*at(2 * MIB) = 1; /* it is there again */
	assert_int_equal(*at(2 * MIB), 1);
	assert_int_equal(ram_discard(&ram, 0, 8 * MIB), 0);
	assert_int_equal(ram_discard(&ram, 0, 8 * MIB), 0); /* once more is no error */
	assert_int_equal(held_bytes(), 0);
}

static void test_what_is_given_back_is_the_hosts_again(void **state)
{
	(void)state;
	each_kind(gives_back);
}

static void keeps_partial_pages(void)
{
	memset(at(0), 0xaa, 8 * MIB);
	assert_int_equal(ram_discard(&ram, PAGE + 1, 2 * PAGE), 0); /* one whole page lies in it */
	assert_int_equal(held_bytes(), 8 * MIB - PAGE);
	assert_int_equal(*at(2 * PAGE - 1), 0xaa);
	assert_int_equal(*at(2 * PAGE), 0);
	assert_int_equal(*at(3 * PAGE), 0xaa);
	assert_int_equal(ram_discard(&ram, 5 * PAGE + 1, PAGE), 0);
	assert_int_equal(ram_discard(&ram, 5 * PAGE, PAGE - 1), 0);
	assert_int_equal(ram_discard(&ram, 5 * PAGE, 0), 0);
	assert_int_equal(*at(5 * PAGE), 0xaa);
}

static void test_only_whole_pages_go(void **state)
{
	(void)state;
	each_kind(keeps_partial_pages);
}

static void refuses_what_is_no_ram(void)
{
	static uint8_t foreign[PAGE] __attribute__((aligned(4096)));
	static const struct {
		gpa_t gpa;
		uint64_t len;
	} wrong[] = {{8 * MIB, PAGE}, {8 * MIB, UINT64_MAX}, {UINT64_MAX, 1}, {UINT64_MAX - PAGE + 1, PAGE},
		{LAYOUT_LOW_RAM_END, PAGE}, {16 * MIB, PAGE}};

	/* Memory that another has placed there, as a file is by pmem. */
	memset(foreign, 0x55, sizeof(foreign));
	assert_int_equal(gmem_add(&ram.mem, 16 * MIB, sizeof(foreign), foreign), 0);
	memset(at(0), 0xaa, 8 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(ram_discard(&ram, wrong[i].gpa, wrong[i].len), -EFAULT);
	assert_int_equal(held_bytes(), 8 * MIB);
	assert_int_equal(foreign[0], 0x55);
	/* What comes before the end goes. */
	assert_int_equal(ram_discard(&ram, 7 * MIB, 2 * MIB), -EFAULT);
	assert_int_equal(ram_discard(&ram, MIB, UINT64_MAX), -EFAULT);
	assert_int_equal(held_bytes(), MIB);
}

static void test_what_is_no_ram_stays(void **state)
{
	(void)state;
	each_kind(refuses_what_is_no_ram);
}

static void test_above_the_hole(void **state)
{
	(void)state;
	for (int kind = RAM_SHARED; kind <= RAM_COW; kind++) {
		makes((enum ram_kind)kind, RAM_PAGES_NORMAL, LAYOUT_LOW_RAM_END + 4 * MIB, -1);
		memset(at(LAYOUT_HIGH_RAM), 0xaa, 4 * MIB);
		*at(LAYOUT_LOW_RAM_END - 1) = 0xaa;
		assert_int_equal(ram_discard(&ram, LAYOUT_HIGH_RAM + MIB, 3 * MIB), 0);
		assert_int_equal(held_bytes(), MIB + PAGE);
		assert_int_equal(*at(LAYOUT_LOW_RAM_END - 1), 0xaa);
		assert_int_equal(ram_discard(&ram, LAYOUT_LOW_RAM_END - PAGE, 2 * PAGE), -EFAULT);
		assert_int_equal(ram_discard(&ram, LAYOUT_HIGH_RAM + 4 * MIB, PAGE), -EFAULT);
		assert_int_equal(held_bytes(), MIB);
		ram_done(&ram);
	}
}

static void test_cow_leaves_its_base_as_it_is(void **state)
{
	struct ram_config config = {4 * MIB, RAM_COW, RAM_PAGES_NORMAL, memfd_create("base", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
	cleanup_free uint8_t *written = malloc(4 * MIB);
	struct error err = {0};
	uint8_t byte;

	(void)state;
	memset(written, 0xbb, 4 * MIB);
	assert_int_equal(write(config.base_fd, written, 2 * MIB), 2 * MIB);
	assert_int_equal(ram_init(&ram, &config, &err), -EINVAL); /* it ends too early */
	assert_non_null(strstr(err.message, "2097152"));
	assert_null(ram.host);
	assert_int_equal(write(config.base_fd, written, 2 * MIB), 2 * MIB);
	assert_int_equal(fcntl(config.base_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
	assert_int_equal(ram_init(&ram, &config, &err), 0);
	assert_int_equal(ram.fd, -1);
	assert_int_equal(*at(MIB), 0xbb);
	*at(MIB) = 1;
	assert_int_equal(pread(config.base_fd, &byte, 1, MIB), 1);
	assert_int_equal(byte, 0xbb);
	assert_int_equal(ram_discard(&ram, MIB, PAGE), 0);
	assert_int_equal(*at(MIB), 0xbb);
	ram_done(&ram);
	close_fd(config.base_fd);
}

static void test_2m_pages_go_whole(void **state)
{
	(void)state;
	for (int kind = RAM_SHARED; kind <= RAM_COW; kind++) {
		struct ram_config config = {8 * MIB, (enum ram_kind)kind, RAM_PAGES_2M, -1};
		struct error err = {0};

		if (ram_init(&ram, &config, &err) < 0) {
			assert_non_null(strstr(err.message, "2 MiB pages"));
			skip(); /* the host has set none aside */
		}
		memset(at(0), 0xaa, 8 * MIB);
		assert_int_equal(ram_discard(&ram, PAGE, HUGE), 0);
		assert_int_equal(*at(PAGE), 0xaa);
		assert_int_equal(ram_discard(&ram, HUGE - PAGE, 2 * HUGE), 0);
		assert_int_equal(*at(HUGE - PAGE), 0xaa);
		assert_int_equal(*at(HUGE), 0);
		assert_int_equal(*at(2 * HUGE), 0xaa);
		ram_done(&ram);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_given_back_is_the_hosts_again),
		cmocka_unit_test(test_only_whole_pages_go),
		cmocka_unit_test(test_what_is_no_ram_stays),
		cmocka_unit_test(test_above_the_hole),
		cmocka_unit_test(test_cow_leaves_its_base_as_it_is),
		cmocka_unit_test(test_2m_pages_go_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
