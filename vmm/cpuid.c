/* CPUID: KVM's offer, with the leaves that describe the topology rewritten. (Intel SDM volume 2A, CPUID; AMD
 * APM volume 3, appendix E.) */
#include "vmm/cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define ENTRIES_MAX 256

#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_EDX_HTT          (1u << 28)
#define AMD1_ECX_CMP_LEGACY    (1u << 1)

struct kvm_cpuid2 *cpuid_supported(int kvm_fd, struct error *err)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES_MAX * sizeof(cpuid->entries[0]));

	if (!cpuid) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	cpuid->nent = ENTRIES_MAX;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
		error_set_errno(err, errno, "KVM does not say what processors it offers");
		free(cpuid);
		return NULL;
	}
	return cpuid;
}

unsigned cpuid_physical_address_bits(const struct kvm_cpuid2 *cpuid)
{
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 0x80000008)
			return cpuid->entries[i].eax & 0xff;
	return 36;
}

/* AMD and its licensee: leaves 0x80000001 and 0x80000008 then speak of the topology too. */
static bool is_amd(const struct kvm_cpuid2 *cpuid)
{
	enum { AUTH = 0x68747541, HYGO = 0x6f677948 };

	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 0)
			return cpuid->entries[i].ebx == AUTH || cpuid->entries[i].ebx == HYGO;
	return false;
}

static uint32_t set_bits(uint32_t word, unsigned shift, unsigned width, uint32_t value)
{
	uint32_t mask = ((1u << width) - 1) << shift;

	return (word & ~mask) | (value << shift & mask);
}

static uint32_t set_flag(uint32_t word, uint32_t flag, bool on)
{
	return on ? word | flag : word & ~flag;
}

/* Bits of an APIC id that tell `n` of something apart. */
static unsigned id_bits(unsigned n)
{
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

static void adapt_features(struct kvm_cpuid_entry2 *e, const struct cpuid_topology *t, unsigned apic_id)
{
	e->ebx = set_bits(e->ebx, 24, 8, apic_id);
	e->ebx = set_bits(e->ebx, 16, 8, t->n_vcpus);
	e->ecx = set_flag(e->ecx, LEAF1_ECX_TSC_DEADLINE, t->tsc_deadline);
	e->ecx |= LEAF1_ECX_HYPERVISOR;
	e->edx = set_flag(e->edx, LEAF1_EDX_HTT, t->n_vcpus > 1);
}

/* Leaf 4 (Intel) and 0x8000001d (AMD): a core has level 1 and 2 for itself, the package shares level 3. */
static void adapt_cache(struct kvm_cpuid_entry2 *e, const struct cpuid_topology *t)
{
	uint32_t type = e->eax & 0x1f, level = e->eax >> 5 & 7;

	if (type == 0)
		return;
	e->eax = set_bits(e->eax, 14, 12, (level < 3 ? t->threads_per_core : t->n_vcpus) - 1);
	if (e->function == 4)
		e->eax = set_bits(e->eax, 26, 6, t->n_vcpus / t->threads_per_core - 1);
}

/* Leaf 0xb: threads, then cores. 0x1f (dies and modules) stays empty: with nothing to add, 0xb is the
 * authority. */
static void adapt_extended_topology(
	struct kvm_cpuid_entry2 *e, const struct cpuid_topology *t, unsigned apic_id)
{
	enum { LEVEL_NONE, LEVEL_THREAD, LEVEL_CORE };

	e->eax = e->ebx = 0;
	e->ecx = e->index;
	e->edx = apic_id;
	if (e->function == 0x1f)
		return;
	if (e->index == 0) {
		e->eax = id_bits(t->threads_per_core);
		e->ebx = t->threads_per_core;
		e->ecx |= LEVEL_THREAD << 8;
	} else if (e->index == 1) {
		e->eax = id_bits(t->n_vcpus);
		e->ebx = t->n_vcpus;
		e->ecx |= LEVEL_CORE << 8;
	}
}

/* KVM offers a single entry of leaf 0xb; a guest asks for two, and one that ends the list. */
static void complete_extended_topology(struct kvm_cpuid2 *cpuid)
{
	bool seen[3] = {false}, any = false;

	for (uint32_t i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == 0xb) {
			any = true;
			if (cpuid->entries[i].index < 3)
				seen[cpuid->entries[i].index] = true;
		}
	}
	for (uint32_t index = 0; any && index < 3 && cpuid->nent < ENTRIES_MAX; index++)
		if (!seen[index])
			cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
				.function = 0xb, .index = index, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
}

static void adapt_amd_sizes(struct kvm_cpuid_entry2 *e, const struct cpuid_topology *t)
{
	if (e->function == 0x80000001) {
		e->ecx = set_flag(e->ecx, AMD1_ECX_CMP_LEGACY, t->n_vcpus > 1);
	} else {
		e->ecx = set_bits(e->ecx, 0, 8, t->n_vcpus - 1);
		e->ecx = set_bits(e->ecx, 12, 4, id_bits(t->n_vcpus));
	}
}

static void adapt_amd_topology(struct kvm_cpuid_entry2 *e, const struct cpuid_topology *t, unsigned apic_id)
{
	e->eax = apic_id;
	e->ebx = (t->threads_per_core - 1) << 8 | apic_id / t->threads_per_core;
	e->ecx = 0; /* one node */
	e->edx = 0;
}

void cpuid_adapt(struct kvm_cpuid2 *cpuid, const struct cpuid_topology *t, unsigned index)
{
	bool amd = is_amd(cpuid);

	complete_extended_topology(cpuid);
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		switch (e->function) {
		case 0x1:
			adapt_features(e, t, index);
			break;
		case 0x4:
		case 0x8000001d:
			adapt_cache(e, t);
			break;
		case 0xa: /* no performance counters: they leak what the neighbours do, and cost each boot its
			     probing */
			e->eax = e->ebx = e->ecx = e->edx = 0;
			break;
		case 0xb:
		case 0x1f:
			adapt_extended_topology(e, t, index);
			break;
		case 0x80000001:
		case 0x80000008:
			if (amd)
				adapt_amd_sizes(e, t);
			break;
		case 0x8000001e:
			adapt_amd_topology(e, t, index);
			break;
		default:
			break;
		}
	}
}
