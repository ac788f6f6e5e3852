/* A custom CPU template, applied to what this host's KVM offers. `template` may be NULL everywhere: no template. */
#ifndef HULL_VMM_CPU_TEMPLATE_H
#define HULL_VMM_CPU_TEMPLATE_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

struct config_cpu;
struct kvm_cpuid2;

/* True when the template says that this KVM capability is not to be asked for. */
bool cpu_template_waives(const struct config_cpu *template, uint32_t capability);
/* The capabilities that it asks for are there. 0, or -errno with `err` naming the field, as in all that follows. */
int cpu_template_check(const struct config_cpu *template, int kvm_fd, struct error *err);

/* To what cpuid_supported() gave, before cpuid_adapt(). Leaves that are not there cannot be changed. */
int cpu_template_apply(const struct config_cpu *template, struct kvm_cpuid2 *cpuid, struct error *err);

/* To a vCPU that has its CPUID and has not run: its MSRs are read, changed, and set. */
int cpu_template_set_msrs(const struct config_cpu *template, int vcpu_fd, struct error *err);

#endif
