/* Which model-specific registers a guest reaches. */
#ifndef HULL_VMM_MSR_FILTER_H
#define HULL_VMM_MSR_FILTER_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

/* Of a machine in KVM, before it has vCPUs. From then on each access to another MSR, or to one that KVM does not know, leaves
 * KVM_RUN (KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR), to be answered by an error: the guest gets #GP. 0, or -errno with `err`
 * set. */
int msr_filter_install(int vm_fd, struct error *err);

/* Whether it is let through to KVM, which may still refuse it: by the bitmaps that KVM is given. For tests. */
bool msr_filter_allows(uint32_t msr);

#endif
