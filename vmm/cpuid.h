/* What the guest's processors say of themselves. */
#ifndef HULL_VMM_CPUID_H
#define HULL_VMM_CPUID_H

#include "common/error.h"

#include <stdbool.h>

#include <stdint.h>

struct kvm_cpuid2;
struct kvm_cpuid_entry2;

#define CPUID_BASIC	 0u
#define CPUID_HYPERVISOR 0x40000000u
#define CPUID_EXTENDED	 0x80000000u

struct cpuid_topology {
	unsigned n_vcpus;          /* all in one package; APIC ids 0..n_vcpus-1 */
	unsigned threads_per_core; /* 1 or 2 */
	bool tsc_deadline;         /* KVM emulates the TSC-deadline timer */
};

/* Everything this host's KVM can offer. To be freed; NULL with `err` set. */
struct kvm_cpuid2 *cpuid_supported(int kvm_fd, struct error *err);

/* What a guest's addresses may have: MAXPHYADDR, 52 at most, or less where KVM says that it maps no more; 36 where the processor
 * does not say. */
unsigned cpuid_physical_address_bits(const struct kvm_cpuid2 *cpuid);

/* The entry of a leaf, borrowed, or NULL. Where a leaf has no subleaves there is an entry for subleaf 0 alone. */
struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid2 *cpuid, uint32_t leaf, uint32_t subleaf);

enum cpuid_vendor { CPUID_OTHER, CPUID_INTEL, CPUID_AMD, CPUID_HYGON };
enum cpuid_vendor cpuid_vendor(const struct kvm_cpuid2 *cpuid);

/* Turns what cpuid_supported() gave, a template applied or not, into vCPU `index`'s own. May be called again for the next
 * vCPU. The table must have come from cpuid_supported(), or have room for ten entries more. */
void cpuid_adapt(struct kvm_cpuid2 *cpuid, const struct cpuid_topology *topology, unsigned index);

/* The part of it that is the same for all vCPUs, vmm/cpuid_features.c: what is not offered is taken out, the processor's
 * name is one of a kind, and no leaf is promised that is not there. */
void cpuid_restrict(struct kvm_cpuid2 *cpuid);

/* vmm/cpuid_check.c: whether a guest that was `shown` one processor, when it was saved, finds each of its features in what is `offered`
 * here. 0, or -ENOTSUP with `err` naming the first that it would miss (no field). */
int cpuid_check_offered(const struct kvm_cpuid2 *shown, const struct kvm_cpuid2 *offered, struct error *err);

#endif
