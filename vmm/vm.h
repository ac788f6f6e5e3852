/* The virtual machine as KVM sees it: its descriptor, interrupt controllers, memory slots, doorbells and
 * interrupts. */
#ifndef HULL_VMM_VM_H
#define HULL_VMM_VM_H

#include "common/error.h"
#include "devices/gmem.h"

#include <pthread.h>
#include <stdbool.h>

struct config_cpu;
struct kvm_cpuid2;
struct gmem_region;
struct kvm_irq_routing;

struct vm {
	int kvm_fd, fd;        /* owned; -1 when absent */
	size_t run_size_bytes; /* of a vCPU's shared page(s) */
	unsigned max_vcpus;
	uint64_t *slots; /* owned: a bit for each memory slot, set while it is taken */
	unsigned max_slots;
	bool has_tsc_deadline;    /* KVM emulates the TSC-deadline timer */
	struct kvm_cpuid2 *cpuid; /* owned: what KVM can give a vCPU, the template applied, unadapted */
	pthread_mutex_t routing_lock;	 /* guards what follows; a leaf */
	struct kvm_irq_routing *routing; /* owned; NULL: as KVM made it */
};

/* Opens /dev/kvm, checks what it can do, and makes a machine with an interrupt controller, without memory or
 * vCPUs. `template` is of what processors, or NULL. 0, or -errno with `err` set and `ret` as vm_done() leaves it. */
int vm_init(struct vm *ret, const struct config_cpu *template, struct error *err);
/* vCPU descriptors must be closed and their threads joined. */
void vm_done(struct vm *vm);

/* A memory slot: from now on the guest sees [host, host + size_bytes) at `gpa`; of what is read-only, writes come as accesses
 * to registers that nobody has. Blocks play no part. The memory must stay mapped until the slot is removed, or vm_done(). The
 * slot's number; or -errno with `err` set (no field). Loop thread, also while vCPUs run. */
int vm_add_slot(struct vm *vm, const struct gmem_region *memory, struct error *err);
/* 0 when no vCPU reaches that memory any more; or -errno (KVM has no memory for its tables), and all is as it was. Likewise. */
int vm_remove_slot(struct vm *vm, int slot);
/* One slot for each region. 0, or -errno with `err` set (no field). */
int vm_add_memory(struct vm *vm, const struct gmem *mem, struct error *err);
/* Finds `size_bytes` of guest-physical addresses for a device's memory (vmm/layout.h), above all RAM and beside all other regions
 * of `mem`, at a multiple of `align`, a power of two, at least. 0, or -ENOMEM with `err` set (no field): the host's processor addresses no more. */
int vm_place(const struct vm *vm, const struct gmem *mem, uint64_t size_bytes, uint64_t align, gpa_t *ret,
	struct error *err);

/* Writing `value` (4 bytes) at guest-physical `address` makes the eventfd `fd` readable, without leaving the
 * kernel. */
int vm_add_doorbell(struct vm *vm, gpa_t address, uint32_t value, int fd, struct error *err);
/* The same for a write of any length and value; and the end of that. Any thread. */
int vm_connect_doorbell(struct vm *vm, gpa_t address, int fd);
void vm_disconnect_doorbell(struct vm *vm, gpa_t address, int fd);

/* Each write to the eventfd `fd` sends this message to the processors (MSI), by the line `gsi`, which is nobody else's and at
 * least LAYOUT_GSI_MSI; and the end of that. 0 or -errno. Any thread. */
int vm_connect_message(struct vm *vm, uint32_t gsi, int fd, uint64_t address, uint32_t data);
void vm_disconnect_message(struct vm *vm, uint32_t gsi, int fd);

/* Each write to the eventfd `fd` is one edge on the interrupt line `gsi`. */
int vm_add_interrupt(struct vm *vm, uint32_t gsi, int fd, struct error *err);
/* One edge on `gsi`, now. Any thread. For devices too slow to deserve an eventfd. */
void vm_pulse(const struct vm *vm, uint32_t gsi);

#endif
