/* CPUID: KVM's offer, with the leaves that describe the topology rewritten. (Intel SDM volume 2A, CPUID; AMD
 * APM volume 3, appendix E.)
 *
 * Theory of operation. KVM's offer is what the host's processor and KVM can both do, and, where KVM does not look, what the
 * host's processor says of itself. A template (vmm/cpu_template.h) may change any of it. This comes last, for each vCPU, and
 * overwrites what has to be right for a machine of this shape; so a template that was made of a whole processor's CPUID, with
 * that processor's APIC id in it, does no harm. Everything here may be done twice. */
#include "vmm/cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define ENTRIES_MAX 256

#define ADDRESS_BITS_MAX 52 /* of the architecture; a template may say what it likes */

#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_EDX_HTT          (1u << 28)
#define AMD1_ECX_CMP_LEGACY    (1u << 1)
#define AMD1_ECX_TOPOEXT       (1u << 22)
#define CACHE_LINE_BYTES       64

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

struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid2 *cpuid, uint32_t leaf, uint32_t subleaf)
{
	const struct kvm_cpuid_entry2 *e = cpuid->entries;

	for (uint32_t i = 0; i < cpuid->nent; i++, e++) {
		bool has_subleaves = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

		if (e->function == leaf && (has_subleaves ? e->index : 0) == subleaf)
			return (struct kvm_cpuid_entry2 *)e;
	}
	return NULL;
}

unsigned cpuid_physical_address_bits(const struct kvm_cpuid2 *cpuid)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, 0x80000008, 0);

	unsigned bits, mapped;

	if (!e)
		return 36;
	bits = e->eax & 0xff;
	mapped = e->eax >> 16 & 0xff; /* what nested page tables of this host reach; 0: all */
	if (mapped && mapped < bits)
		bits = mapped;
	return bits < ADDRESS_BITS_MAX ? bits : ADDRESS_BITS_MAX;
}

/* By the first four letters of its name. */
enum cpuid_vendor cpuid_vendor(const struct kvm_cpuid2 *cpuid)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, CPUID_BASIC, 0);

	switch (e ? e->ebx : 0) {
	case 0x756e6547: /* Genu */
		return CPUID_INTEL;
	case 0x68747541: /* Auth */
		return CPUID_AMD;
	case 0x6f677948: /* Hygo: AMD's licensee */
		return CPUID_HYGON;
	default:
		return CPUID_OTHER;
	}
}

/* Leaves 0x80000001 and 0x80000008 then speak of the topology too. */
static bool is_amd(const struct kvm_cpuid2 *cpuid)
{
	enum cpuid_vendor vendor = cpuid_vendor(cpuid);

	return vendor == CPUID_AMD || vendor == CPUID_HYGON;
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
	e->ebx = set_bits(e->ebx, 8, 8, CACHE_LINE_BYTES / 8); /* what CLFLUSH flushes */
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

/* Leaves 0xb and 0x1f: threads, then cores. 0x1f would have dies and modules too; with none to tell of, it says what 0xb
 * says. */
static void adapt_extended_topology(
	struct kvm_cpuid_entry2 *e, const struct cpuid_topology *t, unsigned apic_id)
{
	enum { LEVEL_NONE, LEVEL_THREAD, LEVEL_CORE };

	e->eax = e->ebx = 0;
	e->ecx = e->index;
	e->edx = apic_id;
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

/* KVM offers a single entry; a guest asks for two, and one that ends the list. */
static void complete_extended_topology(struct kvm_cpuid2 *cpuid, uint32_t leaf)
{
	struct kvm_cpuid_entry2 *first = cpuid_find(cpuid, leaf, 0);

	if (!first)
		return;
	first->flags |= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	for (uint32_t index = 1; index < 3; index++)
		if (!cpuid_find(cpuid, leaf, index) && cpuid->nent < ENTRIES_MAX)
			cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
				.function = leaf, .index = index, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
}

static void adapt_amd_sizes(const struct kvm_cpuid2 *cpuid, struct kvm_cpuid_entry2 *e, const struct cpuid_topology *t)
{
	if (e->function == 0x80000001) {
		e->ecx = set_flag(e->ecx, AMD1_ECX_CMP_LEGACY, t->n_vcpus > 1);
		e->ecx = set_flag(e->ecx, AMD1_ECX_TOPOEXT, cpuid_find(cpuid, 0x8000001e, 0));
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

	complete_extended_topology(cpuid, 0xb);
	complete_extended_topology(cpuid, 0x1f);
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
		case 0xb:
		case 0x1f:
			adapt_extended_topology(e, t, index);
			break;
		case 0x80000001:
		case 0x80000008:
			if (amd)
				adapt_amd_sizes(cpuid, e, t);
			break;
		case 0x8000001e:
			adapt_amd_topology(e, t, index);
			break;
		default:
			break;
		}
	}
	cpuid_restrict(cpuid);
}
