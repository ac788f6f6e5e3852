/* What the guest's processors say of themselves, made of made-up offers of KVM: one of an Intel host, one of an AMD host. */
#include "tests/unit/test.h"
#include "common/checked.h"
#include "vmm/cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#define SUB KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define BIT(n) (1u << (n))

/* A host of 64 processors, this one being number 0x35, in whose KVM everything is switched on. */
static const struct kvm_cpuid_entry2 intel[] = {
	{0x0, 0, 0, 0x24, 0x756e6547, 0x6c65746e, 0x49656e69},
	{0x1, 0, 0, 0x50657, 0x35400800, 0xfffab223 & ~BIT(24), 0x0fabfbff},
	{0x4, 0, SUB, 0x7c004121, 0x01c0003f, 0x3f, 0},
	{0x4, 1, SUB, 0x7c004122, 0x01c0003f, 0x3f, 0},
	{0x4, 2, SUB, 0x7c004143, 0x03c0003f, 0x3ff, 0},
	{0x4, 3, SUB, 0x7c0fc163, 0x0280003f, 0xdfff, 4},
	{0x4, 4, SUB, 0, 0, 0, 0},
	{0x6, 0, 0, 0x77, 2, 9, 0},
	{0x7, 0, SUB, 1, 0xffffffff, 0xffffffff, 0xffffffff},
	{0x7, 1, SUB, 0xffffffff, 0, 0, 0xffffffff},
	{0xa, 0, 0, 0x07300404, 0, 0, 0x603},
	{0xb, 0, SUB, 1, 2, 0x100, 0x35},
	{0xd, 0, SUB, 0xe7, 0x240, 0xa88, 0},
	{0x12, 0, SUB, 1, 2, 3, 4},
	{0x12, 2, SUB, 1, 2, 3, 4},
	{0x14, 0, SUB, 1, 2, 3, 4},
	{0x1d, 0, SUB, 1, 0, 0, 0},
	{0x1d, 1, SUB, 0x04002000, 0x00080040, 0x10, 0},
	{0x1e, 0, SUB, 0, 0x4010, 0, 0},
	{0x1f, 0, SUB, 1, 2, 0x100, 0x35},
	{0x40000000, 0, 0, 0, 0x4b4d564b, 0x564b4d56, 0x4d},
	{0x40000001, 0, 0, 0x01007efb, 0, 0, 0},
	{0x80000000, 0, 0, 0x80000008, 0, 0, 0},
	{0x80000001, 0, 0, 0, 0, 0x121, 0x2c100800},
	{0x80000002, 0, 0, 0x65746e49, 0x2952286c, 0x6f655820, 0x2952286e}, /* "Intel(R) Xeon(R)" */
	{0x80000003, 0, 0, 0x616c5020, 0x756e6974, 0x3238206d, 0x4c433537}, /* " Platinum 8275CL" */
	{0x80000004, 0, 0, 0x55504320, 0x33204020, 0x4730302e, 0x00007a48}, /* " CPU @ 3.00GHz" */
	{0x80000008, 0, 0, 0x302e, 0, 0, 0},
};

static const struct kvm_cpuid_entry2 amd[] = {
	{0x0, 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65},
	{0x1, 0, 0, 0xa00f11, 0x35400800, 0x7ed8320b, 0x078bfbff},
	{0x7, 0, SUB, 0, 0x219c95a9, 0x40068c, 0x20000010},
	{0xb, 0, SUB, 1, 2, 0x100, 0x35},
	{0x40000000, 0, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d},
	{0x40000001, 0, 0, 0x01007efb, 0, 0, 0},
	{0x80000000, 0, 0, 0x80000026, 0x68747541, 0x444d4163, 0x69746e65},
	{0x80000001, 0, 0, 0xa00f11, 0x40000000, 0x75c237ff & ~BIT(22), 0x2fd3fbff},
	{0x80000002, 0, 0, 0x20444d41, 0x43595045, 0x31373720, 0x34362033}, /* "AMD EPYC 7713 64" */
	{0x80000003, 0, 0, 0x726f432d, 0x72502065, 0x7365636f, 0x20726f73},
	{0x80000004, 0, 0, 0x20202020, 0x20202020, 0x20202020, 0x00202020},
	{0x80000008, 0, 0, 0x3030, 0x111ef657, 0x707f, 0},
	{0x8000000a, 0, 0, 1, 0x8000, 0, 0x119b9cff},
	{0x8000001b, 0, 0, 0x3ff, 0, 0, 0},
	{0x8000001d, 0, SUB, 0x4121, 0x01c0003f, 0x3f, 0},
	{0x8000001d, 1, SUB, 0x4122, 0x01c0003f, 0x3f, 0},
	{0x8000001d, 2, SUB, 0x4143, 0x01c0003f, 0x3ff, 2},
	{0x8000001d, 3, SUB, 0x3c163, 0x03c0003f, 0x7fff, 1},
	{0x8000001d, 4, SUB, 0, 0, 0, 0},
	{0x8000001e, 0, 0, 0x35, 0x11a, 0x300, 0},
	{0x8000001f, 0, 0, 0x1780f, 0x173, 0x1fd, 1},
	{0x80000022, 0, 0, 1, 0x106, 0, 0},
	{0x80000026, 0, SUB, 1, 2, 0x100, 0x35},
};

static struct kvm_cpuid2 *table;

static void offer(const struct kvm_cpuid_entry2 *entries, size_t n)
{
	free(table);
	table = calloc(1, sizeof(*table) + 256 * sizeof(*entries));
	assert_non_null(table);
	memcpy(table->entries, entries, n * sizeof(*entries));
	table->nent = (uint32_t)n;
}

static int teardown(void **state)
{
	(void)state;
	free(table);
	table = NULL;
	return 0;
}

static void adapt(unsigned n_vcpus, unsigned threads, unsigned index)
{
	struct cpuid_topology topology = {.n_vcpus = n_vcpus, .threads_per_core = threads, .tsc_deadline = true};

	cpuid_adapt(table, &topology, index);
}

static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(table, function, index);

	if (!e)
		fail_msg("there is no leaf %#x, %u", function, index);
	return e;
}

static void is_zero(uint32_t function, uint32_t index)
{
	const struct kvm_cpuid_entry2 *e = leaf(function, index);

	if (e->eax | e->ebx | e->ecx | e->edx)
		fail_msg("leaf %#x, %u says %#x %#x %#x %#x", function, index, e->eax, e->ebx, e->ecx, e->edx);
}

static void is_level(uint32_t function, uint32_t index, uint32_t shift, uint32_t n, uint32_t type, uint32_t apic_id)
{
	const struct kvm_cpuid_entry2 *e = leaf(function, index);

	assert_int_equal(e->eax, shift);
	assert_int_equal(e->ebx, n);
	assert_int_equal(e->ecx, type << 8 | index);
	assert_int_equal(e->edx, apic_id);
}

static void is_named(const char *expected)
{
	char brand[49] = "";

	for (uint32_t i = 0; i < 3; i++)
		memcpy(brand + 16 * i, &leaf(0x80000002 + i, 0)->eax, 16);
	assert_string_equal(brand, expected);
}

static void test_each_processor_has_its_own_number(void **state)
{
	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	for (unsigned i = 0; i < 6; i++) {
		adapt(6, 2, i);
		assert_int_equal(leaf(0x1, 0)->ebx, i << 24 | 6 << 16 | 8 << 8);
		for (uint32_t function = 0xb; function <= 0x1f; function += 0x1f - 0xb) {
			is_level(function, 0, 1, 2, 1, i);
			is_level(function, 1, 3, 6, 2, i);
			is_level(function, 2, 0, 0, 0, i);
		}
	}
	offer(amd, ARRAY_SIZE(amd));
	adapt(6, 2, 5);
	assert_int_equal(leaf(0x1, 0)->ebx >> 24, 5);
	is_level(0xb, 1, 3, 6, 2, 5);
	assert_int_equal(leaf(0x8000001e, 0)->eax, 5);
	assert_int_equal(leaf(0x8000001e, 0)->ebx, 1 << 8 | 2); /* two threads; the third core */
	assert_int_equal(leaf(0x8000001e, 0)->ecx, 0);
	assert_int_equal(leaf(0x80000008, 0)->ecx, 3 << 12 | 5);
	assert_int_equal(leaf(0x80000001, 0)->ecx & (BIT(1) | BIT(22)), BIT(1) | BIT(22));
	assert_int_equal(leaf(0x80000008, 0)->eax, 0x3030); /* not the topology's */
}

static void test_one_processor_is_alone(void **state)
{
	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	adapt(1, 1, 0);
	assert_int_equal(leaf(0x1, 0)->ebx >> 16, 1);
	assert_false(leaf(0x1, 0)->edx & BIT(28)); /* HTT */
	is_level(0xb, 0, 0, 1, 1, 0);
	is_level(0xb, 1, 0, 1, 2, 0);
	offer(amd, ARRAY_SIZE(amd));
	adapt(1, 1, 0);
	assert_int_equal(leaf(0x80000008, 0)->ecx, 0);
	assert_false(leaf(0x80000001, 0)->ecx & BIT(1)); /* CmpLegacy */
}

/* The threads of a core share levels 1 and 2, all share level 3. */
static void test_caches_are_shared_as_far_as_the_machine_goes(void **state)
{
	static const uint32_t sharing[] = {1, 1, 1, 7};

	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	adapt(8, 2, 0);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(leaf(0x4, i)->eax >> 14 & 0xfff, sharing[i]);
		assert_int_equal(leaf(0x4, i)->eax >> 26, 3); /* four cores */
		assert_int_equal(leaf(0x4, i)->eax & 0x3fff, intel[2 + i].eax & 0x3fff);
		assert_int_equal(leaf(0x4, i)->ebx, intel[2 + i].ebx);
	}
	is_zero(0x4, 4);
	offer(amd, ARRAY_SIZE(amd));
	adapt(8, 2, 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(leaf(0x8000001d, i)->eax >> 14, sharing[i]);
	is_zero(0x8000001d, 4);
}

static void test_what_is_not_offered(void **state)
{
	static const uint32_t intels[][2] = {{0xa, 0}, {0x12, 0}, {0x12, 2}, {0x14, 0}};
	static const uint32_t amds[] = {0x8000000a, 0x8000001b, 0x8000001f, 0x80000022, 0x80000026};

	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	adapt(2, 1, 0);
	assert_false(leaf(0x1, 0)->ecx & (BIT(2) | BIT(4) | BIT(5) | BIT(15)));
	assert_false(leaf(0x1, 0)->edx & BIT(21));
	assert_int_equal(leaf(0x1, 0)->ecx & (BIT(24) | BIT(31)), BIT(24) | BIT(31)); /* TSC deadline, hypervisor */
	assert_int_equal(leaf(0x6, 0)->eax | leaf(0x6, 0)->ebx | leaf(0x6, 0)->ecx, 4);
	assert_int_equal(~leaf(0x7, 0)->ebx, BIT(2) | BIT(25));
	assert_int_equal(~leaf(0x7, 0)->ecx, BIT(5) | BIT(30));
	assert_true(leaf(0x7, 0)->edx & BIT(29)); /* ARCH_CAPABILITIES */
	for (size_t i = 0; i < ARRAY_SIZE(intels); i++)
		is_zero(intels[i][0], intels[i][1]);
	offer(amd, ARRAY_SIZE(amd));
	adapt(2, 1, 0);
	assert_false(leaf(0x80000001, 0)->ecx & (BIT(2) | BIT(10) | BIT(12) | BIT(23) | BIT(24) | BIT(28)));
	assert_false(leaf(0x7, 0)->edx & BIT(29));
	for (size_t i = 0; i < ARRAY_SIZE(amds); i++)
		is_zero(amds[i], 0);
}

static void test_tiles_come_with_their_state_or_not_at_all(void **state)
{
	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	adapt(1, 1, 0);
	assert_false(leaf(0x7, 0)->edx & (BIT(22) | BIT(24) | BIT(25)));
	assert_int_equal(~leaf(0x7, 1)->eax, BIT(21));
	is_zero(0x1d, 0);
	is_zero(0x1d, 1);
	is_zero(0x1e, 0);
	offer(intel, ARRAY_SIZE(intel));
	cpuid_find(table, 0xd, 0)->eax |= BIT(17) | BIT(18);
	adapt(1, 1, 0);
	assert_int_equal(leaf(0x7, 0)->edx & (BIT(22) | BIT(24) | BIT(25)), BIT(22) | BIT(24) | BIT(25));
	assert_int_equal(leaf(0x1d, 1)->eax, 0x04002000);
}

static void test_the_processors_name(void **state)
{
	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	adapt(2, 1, 0);
	is_named("Intel(R) Xeon(R) Processor @ 3.00GHz");
	adapt(2, 1, 1);
	is_named("Intel(R) Xeon(R) Processor @ 3.00GHz");
	cpuid_find(table, 0x80000004, 0)->eax = 0;
	memset(&cpuid_find(table, 0x80000003, 0)->eax, 'G', 16); /* no frequency, and no end */
	memset(&cpuid_find(table, 0x80000004, 0)->eax, 'H', 16);
	adapt(2, 1, 0);
	is_named("Intel(R) Xeon(R) Processor");
	offer(amd, ARRAY_SIZE(amd));
	adapt(2, 1, 0);
	is_named("AMD EPYC");
	memcpy(&cpuid_find(table, 0, 0)->ebx, "Hygo", 4);
	memcpy(&cpuid_find(table, 0x80000002, 0)->eax, "Hygon C8", 9);
	adapt(2, 1, 0);
	is_named("Hygon C8");
}

static void test_no_leaf_is_promised_that_is_not_there(void **state)
{
	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	adapt(2, 1, 0);
	assert_int_equal(leaf(0, 0)->eax, 0x1f);	      /* KVM said 0x24 */
	assert_int_equal(leaf(0x40000000, 0)->eax, 0x40000001); /* and here 0 */
	assert_int_equal(leaf(0x40000000, 0)->ebx, 0x4b4d564b);
	assert_int_equal(leaf(0x80000000, 0)->eax, 0x80000008);
	cpuid_find(table, 0, 0)->eax = 0xd; /* a template may lower it */
	adapt(2, 1, 0);
	assert_int_equal(leaf(0, 0)->eax, 0xd);
	offer(amd, ARRAY_SIZE(amd));
	adapt(2, 1, 0);
	assert_int_equal(leaf(0, 0)->eax, 0xb);
	assert_int_equal(leaf(0x80000000, 0)->eax, 0x80000026);
}

/* Nothing of the machine's shape can be spoilt, whatever leaf is missing or full of nonsense. */
static void test_an_offer_of_nothing_and_one_of_nonsense(void **state)
{
	uint32_t n;

	(void)state;
	offer(intel, 0);
	adapt(32, 2, 31);
	assert_int_equal(table->nent, 0);
	assert_int_equal(cpuid_physical_address_bits(table), 36);
	offer(amd, ARRAY_SIZE(amd));
	for (uint32_t i = 0; i < table->nent; i++)
		memset(&table->entries[i].eax, 0xff, 16);
	assert_int_equal(cpuid_physical_address_bits(table), 52);
	cpuid_find(table, 0x80000008, 0)->eax = 48u << 16 | 48 << 8 | 52; /* guest's, virtual, physical */
	assert_int_equal(cpuid_physical_address_bits(table), 48);
	cpuid_find(table, 0x80000008, 0)->eax = 52u << 16 | 48 << 8 | 46;
	assert_int_equal(cpuid_physical_address_bits(table), 46);
	cpuid_find(table, 0x80000008, 0)->eax = UINT32_MAX;
	adapt(32, 2, 31);
	is_level(0xb, 1, 5, 32, 2, 31);
	offer(intel, ARRAY_SIZE(intel));
	for (n = table->nent; n < 256; n++)
		table->entries[n] = (struct kvm_cpuid_entry2){.function = 0x8000, .index = n, .flags = SUB};
	table->nent = n;
	adapt(32, 2, 31); /* full: it stays within */
	assert_int_equal(table->nent, 256);
	is_level(0xb, 0, 1, 2, 1, 31);
}

static void is_missed(const struct kvm_cpuid2 *shown, const char *name)
{
	struct error err = {0};

	assert_int_equal(cpuid_check_offered(shown, table, &err), -ENOTSUP);
	if (!strstr(err.message, name))
		fail_msg("%s, and not %s", err.message, name);
}

/* A guest that was saved goes on with a processor that has all it was shown; more is no harm. */
static void test_what_was_shown_and_is_not_offered(void **state)
{
	struct kvm_cpuid2 *shown;
	struct error err = {0};

	(void)state;
	offer(intel, ARRAY_SIZE(intel));
	adapt(2, 1, 1);
	shown = malloc(sizeof(*shown) + 256 * sizeof(shown->entries[0]));
	memcpy(shown, table, sizeof(*shown) + 256 * sizeof(shown->entries[0]));
	offer(intel, ARRAY_SIZE(intel));
	assert_int_equal(cpuid_check_offered(shown, table, &err), 0); /* TSC deadline and all */
	cpuid_find(shown, 1, 0)->ecx |= BIT(27);		       /* what its kernel has switched on */
	assert_int_equal(cpuid_check_offered(shown, table, &err), 0);
	cpuid_find(table, 7, 0)->ebx &= ~BIT(5);
	is_missed(shown, "with avx2, which");
	cpuid_find(table, 7, 0)->ebx |= BIT(5);
	cpuid_find(shown, 7, 1)->eax |= BIT(31);
	cpuid_find(table, 7, 1)->eax &= ~BIT(31);
	is_missed(shown, "bit 31 of CPUID leaf 0x7.1, EAX");
	offer(amd, ARRAY_SIZE(amd));
	is_missed(shown, "another maker");
	offer(intel, 0);
	is_missed(shown, "another maker");
	free(shown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_each_processor_has_its_own_number, teardown),
		cmocka_unit_test_teardown(test_one_processor_is_alone, teardown),
		cmocka_unit_test_teardown(test_caches_are_shared_as_far_as_the_machine_goes, teardown),
		cmocka_unit_test_teardown(test_what_is_not_offered, teardown),
		cmocka_unit_test_teardown(test_tiles_come_with_their_state_or_not_at_all, teardown),
		cmocka_unit_test_teardown(test_the_processors_name, teardown),
		cmocka_unit_test_teardown(test_no_leaf_is_promised_that_is_not_there, teardown),
		cmocka_unit_test_teardown(test_an_offer_of_nothing_and_one_of_nonsense, teardown),
		cmocka_unit_test_teardown(test_what_was_shown_and_is_not_offered, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
