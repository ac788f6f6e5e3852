/* What a vCPU, and KVM's part of a machine, were at when they were saved: as KVM tells it, in a section of saved state each. Here it
 * is only written and read again, and checked as far as that needs no KVM; vmm/kvm_state.h takes it from KVM and gives it back. */
#ifndef HULL_VMM_VCPU_STATE_H
#define HULL_VMM_VCPU_STATE_H

#include "common/cleanup.h"
#include "devices/state.h"

#include <linux/kvm.h>

#define VM_STATE_IRQCHIPS 3 /* two 8259s, which nobody uses, and the IOAPIC */

struct vm_state {
	struct kvm_clock_data clock; /* of which the flags are 0 or KVM_CLOCK_* as KVM had them */
	uint64_t realtime_ns;	     /* CLOCK_REALTIME at that instant */
	struct kvm_irqchip irqchips[VM_STATE_IRQCHIPS];
};

struct vcpu_state {
	uint32_t tsc_khz; /* 0: KVM did not say */
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_cpuid2 *cpuid; /* all owned: what the guest was shown */
	struct kvm_msrs *msrs;
	uint8_t *xsave;
	uint32_t xsave_bytes; /* at least sizeof(struct kvm_xsave) */
};

#define VCPU_STATE_CPUID_MAX 256
#define VCPU_STATE_MSRS_MAX  1024
#define VCPU_STATE_XSAVE_MAX (64u << 10)

void vm_state_write(const struct vm_state *state, struct state_writer *w);
int vm_state_read(struct vm_state *ret, struct state_reader *r, struct error *err);

void vcpu_state_write(const struct vcpu_state *state, struct state_writer *w);
/* 0; or -errno with `err` set and `ret` zeroed. */
int vcpu_state_read(struct vcpu_state *ret, struct state_reader *r, struct error *err);
void vcpu_state_done(struct vcpu_state *state); /* also of a zeroed one */

/* Room for `n`, of which none is there yet; NULL: no memory. */
struct kvm_cpuid2 *vcpu_state_new_cpuid(uint32_t n);
struct kvm_msrs *vcpu_state_new_msrs(uint32_t n);

/* The register of that number among those saved, or NULL. */
struct kvm_msr_entry *vcpu_state_find_msr(const struct vcpu_state *state, uint32_t index);

#endif
