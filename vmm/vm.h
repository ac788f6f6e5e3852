/* The virtual machine as KVM sees it: its descriptor, interrupt controllers, memory slots, doorbells and
 * interrupts. */
#ifndef HULL_VMM_VM_H
#define HULL_VMM_VM_H

#include "common/error.h"
#include "devices/gmem.h"

#include <stdbool.h>

struct kvm_cpuid2;

struct vm {
	int kvm_fd, fd;        /* owned; -1 when absent */
	size_t run_size_bytes; /* of a vCPU's shared page(s) */
	unsigned max_vcpus;
	bool has_tsc_deadline;    /* KVM emulates the TSC-deadline timer */
	struct kvm_cpuid2 *cpuid; /* owned: what KVM can give a vCPU, unadapted */
};

/* Opens /dev/kvm, checks what it can do, and makes a machine with an interrupt controller, without memory or
 * vCPUs. 0, or -errno with `err` set and `ret` as vm_done() leaves it. */
int vm_init(struct vm *ret, struct error *err);
/* vCPU descriptors must be closed and their threads joined. */
void vm_done(struct vm *vm);

/* One slot a region. The memory must stay mapped until vm_done(). 0, or -errno with `err` set (no field). */
int vm_add_memory(struct vm *vm, const struct gmem *mem, struct error *err);

/* Writing `value` (4 bytes) at guest-physical `address` makes the eventfd `fd` readable, without leaving the
 * kernel. */
int vm_add_doorbell(struct vm *vm, gpa_t address, uint32_t value, int fd, struct error *err);
/* Each write to the eventfd `fd` is one edge on the interrupt line `gsi`. */
int vm_add_interrupt(struct vm *vm, uint32_t gsi, int fd, struct error *err);
/* One edge on `gsi`, now. Any thread. For devices too slow to deserve an eventfd. */
void vm_pulse(const struct vm *vm, uint32_t gsi);

#endif
