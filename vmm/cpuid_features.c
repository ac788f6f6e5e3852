/* CPUID: what is not offered though KVM or the processor would, the processor's name, and how far the leaves go. */
#include "vmm/cpuid.h"

#include "common/checked.h"

#include <ctype.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

#define BIT(n) (1u << (n))
#define ALL    UINT32_MAX

/* Every entry is here for one of three reasons.
 *  - The neighbours' sake: performance counters, traces and branch records tell of whoever shares the processor; user-mode
 *    waiting puts a shared processor to sleep. KVM is told to keep its counters to itself too (vmm/vm.c).
 *  - The host's sake: nested virtualization, SGX and SEV are large parts of KVM that no guest here is served by. Their MSRs are
 *    not let through either (vmm/msr_filter.c).
 *  - Truth: leaves that KVM copies from the host, and that speak of the host's shape or of what only the host has. */
static const struct {
	uint32_t leaf, subleaf;
	uint32_t eax, ebx, ecx, edx; /* bits to be cleared */
	bool all_subleaves;
} hidden[] = {
	/* DTES64, DS_CPL, VMX, PDCM; DS */
	{0x1, 0, .ecx = BIT(2) | BIT(4) | BIT(5) | BIT(15), .edx = BIT(21)},
	/* Thermal and power management, but for an APIC timer that never stops (ARAT) */
	{0x6, 0, .eax = ~BIT(2), .ebx = ALL, .ecx = ALL, .edx = ALL},
	/* SGX, processor trace; WAITPKG, SGX launch control; SGX keys, architectural branch records */
	{0x7, 0, .ebx = BIT(2) | BIT(25), .ecx = BIT(5) | BIT(30), .edx = BIT(1) | BIT(19)},
	{0xa, 0, ALL, ALL, ALL, ALL, true},	   /* performance counters */
	{0x12, 0, ALL, ALL, ALL, ALL, true},	   /* SGX */
	{0x14, 0, ALL, ALL, ALL, ALL, true},	   /* processor trace */
	{0x1c, 0, ALL, ALL, ALL, ALL, true},	   /* branch records */
	{0x23, 0, ALL, ALL, ALL, ALL, true},	   /* performance counters, extended */
	{0x80000001, 0, .ecx = BIT(2) | BIT(10) | BIT(12) | BIT(23) | BIT(24) | BIT(27) | BIT(28)},
	/* … SVM, sampling (IBS), SKINIT, counters of core, north bridge, time and last-level cache */
	{0x8000000a, 0, ALL, ALL, ALL, ALL, true}, /* SVM */
	{0x8000001b, 0, ALL, ALL, ALL, ALL, true}, /* sampling */
	{0x8000001f, 0, ALL, ALL, ALL, ALL, true}, /* SEV: a kernel that reads of it reads an MSR that is not there */
	{0x80000022, 0, ALL, ALL, ALL, ALL, true}, /* performance counters, version 2 */
	{0x80000026, 0, ALL, ALL, ALL, ALL, true}, /* the host's topology; 0xb is the guest's */
};

static void clear(struct kvm_cpuid_entry2 *e, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	e->eax &= ~eax;
	e->ebx &= ~ebx;
	e->ecx &= ~ecx;
	e->edx &= ~edx;
}

static void hide(struct kvm_cpuid2 *cpuid)
{
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		for (size_t j = 0; j < ARRAY_SIZE(hidden); j++)
			if (e->function == hidden[j].leaf && (hidden[j].all_subleaves || e->index == hidden[j].subleaf))
				clear(e, hidden[j].eax, hidden[j].ebx, hidden[j].ecx, hidden[j].edx);
	}
}

/* KVM offers tile registers (AMX) whenever the processor has them, but their state (leaf 0xd, bits 17 and 18 of XCR0) only to a
 * monitor that has asked Linux for it: instructions without state are none. */
static void hide_tiles_without_state(struct kvm_cpuid2 *cpuid)
{
	static const struct {
		uint32_t leaf, subleaf;
		uint32_t eax, ebx, ecx, edx;
	} tiles[] = {
		{0x7, 0, 0, 0, 0, BIT(22) | BIT(24) | BIT(25)}, /* BF16, TILE, INT8 */
		{0x7, 1, BIT(21), 0, 0, BIT(8)},		/* FP16; COMPLEX */
		{0x1d, 0, ALL, ALL, ALL, ALL},
		{0x1d, 1, ALL, ALL, ALL, ALL},
		{0x1e, 0, ALL, ALL, ALL, ALL},
		{0x1e, 1, ALL, ALL, ALL, ALL},
	};
	const struct kvm_cpuid_entry2 *state = cpuid_find(cpuid, 0xd, 0);

	if (state && (state->eax & (BIT(17) | BIT(18))) == (BIT(17) | BIT(18)))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(tiles); i++) {
		struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, tiles[i].leaf, tiles[i].subleaf);

		if (e)
			clear(e, tiles[i].eax, tiles[i].ebx, tiles[i].ecx, tiles[i].edx);
	}
}

/* KVM emulates Intel's MSR of what a processor is immune to everywhere; AMD's processors have no such MSR, and kernels that
 * know that take the bit for a defect. */
static void hide_intels_msr(struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, 0x7, 0);

	if (e && cpuid_vendor(cpuid) != CPUID_INTEL)
		e->edx &= ~BIT(29);
}

#define BRAND_BYTES 48 /* in leaves 0x80000002 to 4, EAX first */

/* The frequency at the end of a name, as "2.50GHz": its beginning, or NULL. */
static const char *find_frequency(const char *brand)
{
	const char *end = strstr(brand, "GHz"), *begin;

	if (!end)
		end = strstr(brand, "MHz");
	if (!end)
		return NULL;
	for (begin = end; begin > brand && (isdigit((unsigned char)begin[-1]) || begin[-1] == '.'); begin--)
		;
	return begin < end ? begin : NULL;
}

/* Firecracker's names: a fleet's hosts look alike, and none is told apart. Intel's has a frequency, which software reads. */
static void generalize_brand(enum cpuid_vendor vendor, char brand[BRAND_BYTES + 1])
{
	char name[BRAND_BYTES + 1] = "AMD EPYC"; /* and zeroes behind it */
	const char *frequency = find_frequency(brand);

	if (vendor == CPUID_INTEL)
		snprintf(name, sizeof(name), "Intel(R) Xeon(R) Processor%s%.*s", frequency ? " @ " : "",
			frequency ? (int)strcspn(frequency, "z") + 1 : 0, frequency ? frequency : "");
	else if (vendor != CPUID_AMD)
		return;
	memcpy(brand, name, BRAND_BYTES);
}

static void rename_processor(struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid_entry2 *e[3];
	char brand[BRAND_BYTES + 1] = "";

	for (uint32_t i = 0; i < 3; i++) {
		e[i] = cpuid_find(cpuid, 0x80000002 + i, 0);
		if (!e[i])
			return;
		memcpy(brand + 16 * i, (uint32_t[]){e[i]->eax, e[i]->ebx, e[i]->ecx, e[i]->edx}, 16);
	}
	generalize_brand(cpuid_vendor(cpuid), brand);
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t words[4];

		memcpy(words, brand + 16 * i, 16);
		e[i]->eax = words[0];
		e[i]->ebx = words[1];
		e[i]->ecx = words[2];
		e[i]->edx = words[3];
	}
}

/* EAX of a range's first leaf is its last one. A guest that asks beyond gets, on Intel, that last leaf's words for the ones
 * it asked for; a guest that is promised more than there is, zeroes that may mean something. */
static void limit_leaves(struct kvm_cpuid2 *cpuid, uint32_t base)
{
	struct kvm_cpuid_entry2 *first = cpuid_find(cpuid, base, 0);
	uint32_t last = base;

	if (!first)
		return;
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function - base < 0x10000 && cpuid->entries[i].function > last)
			last = cpuid->entries[i].function;
	/* Of the hypervisor's own leaves, older KVM says 0, meaning one. */
	if (first->eax > last || first->eax < base)
		first->eax = last;
}

void cpuid_restrict(struct kvm_cpuid2 *cpuid)
{
	hide(cpuid);
	hide_tiles_without_state(cpuid);
	hide_intels_msr(cpuid);
	rename_processor(cpuid);
	limit_leaves(cpuid, CPUID_BASIC);
	limit_leaves(cpuid, CPUID_HYPERVISOR);
	limit_leaves(cpuid, CPUID_EXTENDED);
}
