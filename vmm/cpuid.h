/* What the guest's processors say of themselves. */
#ifndef HULL_VMM_CPUID_H
#define HULL_VMM_CPUID_H

#include "common/error.h"

#include <stdbool.h>

struct kvm_cpuid2;

struct cpuid_topology {
	unsigned n_vcpus;          /* all in one package; APIC ids 0..n_vcpus-1 */
	unsigned threads_per_core; /* 1 or 2 */
	bool tsc_deadline;         /* KVM emulates the TSC-deadline timer */
};

/* Everything this host's KVM can offer. To be freed; NULL with `err` set. */
struct kvm_cpuid2 *cpuid_supported(int kvm_fd, struct error *err);

/* MAXPHYADDR; 36 where the processor does not say. */
unsigned cpuid_physical_address_bits(const struct kvm_cpuid2 *cpuid);

/* Turns a copy of cpuid_supported() into vCPU `index`'s own. May be called again for the next vCPU. */
void cpuid_adapt(struct kvm_cpuid2 *cpuid, const struct cpuid_topology *topology, unsigned index);

#endif
