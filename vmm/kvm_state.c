/* Saving and loading what KVM has of a machine.
 *
 * Theory of operation. The order matters to KVM. Saved: a vCPU's mp_state first, since asking for it lets KVM take in an INIT or
 * start-up interrupt that waits; the machine's clock last, so that it has come at least as far as any vCPU has read it. Loaded: CPUID
 * first, by which the rest is judged; special registers before the local APIC, whose mode they hold; the APIC before the MSRs, among
 * which is the deadline of its timer, and the TSC, by which that is measured, before all other MSRs; the IOAPIC when there are local ones
 * that keep what it delivers; the clock when all TSCs are set.
 *
 * Which MSRs: those that KVM says have to be saved, and those that a guest reaches besides (vmm/msr_filter.h), as far as this
 * host can tell them. One that cannot be set is only missed when it would have to have another value than it has. */
#include "vmm/kvm_state.h"

#include "common/checked.h"
#include "vmm/clock.h"
#include "vmm/cpuid.h"
#include "vmm/vcpu.h"
#include "vmm/vcpu_state.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#define MSR_TSC 0x10

#define TSS_BUSY 2 /* of a segment's type */

/* What Linux takes for the same frequency: two oscillators, or one that was measured twice. */
#define TSC_TOLERANCE_PPM 250

static const struct {
	const char *name;
	unsigned long get, set;
	size_t offset;
	bool last; /* loaded after the MSRs */
} parts[] = {
	{"run state", KVM_GET_MP_STATE, KVM_SET_MP_STATE, offsetof(struct vcpu_state, mp_state), false},
	{"registers", KVM_GET_REGS, KVM_SET_REGS, offsetof(struct vcpu_state, regs), false},
	{"special registers", KVM_GET_SREGS, KVM_SET_SREGS, offsetof(struct vcpu_state, sregs), false},
	{"extended control registers", KVM_GET_XCRS, KVM_SET_XCRS, offsetof(struct vcpu_state, xcrs), false},
	{"debug registers", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, offsetof(struct vcpu_state, debugregs), false},
	{"local APIC", KVM_GET_LAPIC, KVM_SET_LAPIC, offsetof(struct vcpu_state, lapic), false},
	{"events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, offsetof(struct vcpu_state, events), true},
};

/* That a guest reaches, and that KVM's list leaves out: memory types, machine check banks. */
static const struct {
	uint32_t first, last;
} more_msrs[] = {{0x200, 0x20f}, {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f}, {0x277, 0x277}, {0x280, 0x29f}, {0x2ff, 0x2ff},
	{0x400, 0x47f}};

static uint64_t realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- saving ---- */

static void want_msr(struct kvm_msrs *msrs, uint32_t index)
{
	for (uint32_t i = 0; i < msrs->nmsrs; i++)
		if (msrs->entries[i].index == index)
			return;
	if (msrs->nmsrs < VCPU_STATE_MSRS_MAX)
		msrs->entries[msrs->nmsrs++].index = index;
}

/* The numbers of all that may be there, the TSC's first. NULL with `err` set. */
static struct kvm_msrs *list_msrs(int kvm_fd, struct error *err)
{
	cleanup_free struct kvm_msr_list *known = calloc(1, sizeof(*known) + VCPU_STATE_MSRS_MAX * sizeof(known->indices[0]));
	struct kvm_msrs *msrs = vcpu_state_new_msrs(VCPU_STATE_MSRS_MAX);

	if (!known || !msrs) {
		error_set(err, ENOMEM, "out of memory");
		free(msrs);
		return NULL;
	}
	known->nmsrs = VCPU_STATE_MSRS_MAX;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, known) < 0) {
		error_set_errno(err, errno, "KVM does not say which MSRs there are");
		free(msrs);
		return NULL;
	}
	want_msr(msrs, MSR_TSC);
	for (uint32_t i = 0; i < known->nmsrs; i++)
		want_msr(msrs, known->indices[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more_msrs); i++)
		for (uint32_t index = more_msrs[i].first; index <= more_msrs[i].last; index++)
			want_msr(msrs, index);
	return msrs;
}

#define MSRS_AT_ONCE 128 /* KVM takes fewer than 256 */

/* KVM_GET_MSRS or KVM_SET_MSRS for all of them from the `*from`th on. 0 with `*from` at the first that KVM does not do, or at their end; or
 * -errno. */
static int transfer_msrs(const struct vcpu *vcpu, unsigned long request, const struct kvm_msrs *msrs, uint32_t *from)
{
	cleanup_free struct kvm_msrs *some = vcpu_state_new_msrs(MSRS_AT_ONCE);
	int done;

	if (!some)
		return -ENOMEM;
	do {
		uint32_t left = msrs->nmsrs - *from;

		some->nmsrs = left < MSRS_AT_ONCE ? left : MSRS_AT_ONCE;
		memcpy(some->entries, msrs->entries + *from, some->nmsrs * sizeof(some->entries[0]));
		done = ioctl(vcpu->fd, request, some);
		if (done < 0)
			return -errno;
		if (request == KVM_GET_MSRS)
			memcpy((void *)(msrs->entries + *from), some->entries, (size_t)done * sizeof(some->entries[0]));
		*from += (uint32_t)done;
	} while (done && *from < msrs->nmsrs);
	return 0;
}

/* What cannot be read, or what this vCPU has not, drops out. */
static int save_msrs(const struct vcpu *vcpu, struct kvm_msrs *msrs, struct error *err)
{
	for (uint32_t from = 0; from < msrs->nmsrs;) {
		int r = transfer_msrs(vcpu, KVM_GET_MSRS, msrs, &from);

		if (r < 0)
			return error_set_errno(err, -r, "KVM does not give vCPU %u's MSRs", vcpu->index);
		if (from == msrs->nmsrs)
			break;
		msrs->nmsrs--;
		memmove(msrs->entries + from, msrs->entries + from + 1, (msrs->nmsrs - from) * sizeof(msrs->entries[0]));
	}
	return 0;
}

/* How many bytes a vCPU's extended state has here. */
static uint32_t xsave_bytes(const struct vm *vm)
{
	int size = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	return size > (int)sizeof(struct kvm_xsave) && size <= (int)VCPU_STATE_XSAVE_MAX ? (uint32_t)size : sizeof(struct kvm_xsave);
}

static int save_xsave(const struct vm *vm, const struct vcpu *vcpu, struct vcpu_state *state, struct error *err)
{
	state->xsave_bytes = xsave_bytes(vm);
	state->xsave = calloc(1, state->xsave_bytes);
	if (!state->xsave)
		return error_set(err, ENOMEM, "out of memory");
	if (ioctl(vcpu->fd, state->xsave_bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, state->xsave) < 0)
		return error_set_errno(err, errno, "KVM does not give vCPU %u's extended state", vcpu->index);
	return 0;
}

static int save_cpuid(const struct vcpu *vcpu, struct vcpu_state *state, struct error *err)
{
	state->cpuid = vcpu_state_new_cpuid(VCPU_STATE_CPUID_MAX);
	if (!state->cpuid)
		return error_set(err, ENOMEM, "out of memory");
	state->cpuid->nent = VCPU_STATE_CPUID_MAX;
	if (ioctl(vcpu->fd, KVM_GET_CPUID2, state->cpuid) < 0)
		return error_set_errno(err, errno, "KVM does not give vCPU %u's CPUID", vcpu->index);
	return 0;
}

static int take_vcpu(const struct vm *vm, const struct vcpu *vcpu, struct vcpu_state *state, struct error *err)
{
	int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ), r = 0;

	state->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (ioctl(vcpu->fd, parts[i].get, (char *)state + parts[i].offset) < 0)
			return error_set_errno(err, errno, "KVM does not give vCPU %u's %s", vcpu->index, parts[i].name);
	state->msrs = list_msrs(vm->kvm_fd, err);
	if (!state->msrs)
		return -EIO;
	r = save_msrs(vcpu, state->msrs, err);
	if (r == 0)
		r = save_xsave(vm, vcpu, state, err);
	return r == 0 ? save_cpuid(vcpu, state, err) : r;
}

static int take_vm(const struct vm *vm, struct vm_state *state, struct error *err)
{
	for (uint32_t i = 0; i < VM_STATE_IRQCHIPS; i++) {
		state->irqchips[i].chip_id = i;
		if (ioctl(vm->fd, KVM_GET_IRQCHIP, &state->irqchips[i]) < 0)
			return error_set_errno(err, errno, "KVM does not give the interrupt controllers");
	}
	if (ioctl(vm->fd, KVM_GET_CLOCK, &state->clock) < 0)
		return error_set_errno(err, errno, "KVM does not give the clock");
	state->realtime_ns = realtime_ns();
	return 0;
}

int kvm_state_save(const struct vm *vm, const struct vcpus *vcpus, struct state_writer *w, struct error *err)
{
	struct vm_state machine = {0};
	int r = 0;

	for (unsigned i = 0; i < vcpus->n && r == 0; i++) {
		struct vcpu_state state = {0};

		r = take_vcpu(vm, &vcpus->items[i], &state, err);
		if (r == 0)
			vcpu_state_write(&state, w);
		vcpu_state_done(&state);
	}
	if (r == 0)
		r = take_vm(vm, &machine, err);
	if (r == 0)
		vm_state_write(&machine, w);
	return r;
}

/* ---- loading ---- */

/* The guest goes on by the frequency it has measured. */
static int set_tsc_khz(const struct vcpu *vcpu, uint32_t wanted, struct error *err)
{
	int has = ioctl(vcpu->fd, KVM_GET_TSC_KHZ);
	uint64_t tolerated = (uint64_t)wanted * TSC_TOLERANCE_PPM / 1000000;

	if (!wanted || has <= 0 || ((uint64_t)has + tolerated >= wanted && (uint64_t)has <= wanted + tolerated))
		return 0;
	if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)wanted) < 0)
		return error_set(err, ENOTSUP, "the guest's TSC has %u kHz, and this host's processor, with %d kHz, cannot count so", wanted,
			has);
	return 0;
}

/* Whether the MSR has the value already. */
static bool has_msr(const struct vcpu *vcpu, const struct kvm_msr_entry *entry)
{
	cleanup_free struct kvm_msrs *one = vcpu_state_new_msrs(1);

	if (!one)
		return false;
	one->nmsrs = 1;
	one->entries[0].index = entry->index;
	return ioctl(vcpu->fd, KVM_GET_MSRS, one) == 1 && one->entries[0].data == entry->data;
}

static int load_msrs(const struct vcpu *vcpu, const struct kvm_msrs *msrs, struct error *err)
{
	for (uint32_t from = 0; from < msrs->nmsrs; from++) {
		int r = transfer_msrs(vcpu, KVM_SET_MSRS, msrs, &from);

		if (r < 0)
			return error_set_errno(err, -r, "KVM does not take vCPU %u's MSRs", vcpu->index);
		if (from < msrs->nmsrs && !has_msr(vcpu, &msrs->entries[from]))
			return error_set(err, ENOTSUP, "this host's KVM does not take vCPU %u's MSR %#x", vcpu->index,
				msrs->entries[from].index);
	}
	return 0;
}

/* KVM says of an AMD processor's task register that it is busy, whatever the processor has there, which is mostly that it is not. A real one
 * runs with either; QEMU's, on which kvmhost stands, gives a program the ports it was permitted only with the latter. */
static void settle_task_register(struct vcpu_state *state)
{
	enum cpuid_vendor vendor = cpuid_vendor(state->cpuid);

	if (vendor == CPUID_AMD || vendor == CPUID_HYGON)
		state->sregs.tr.type &= (uint8_t)~TSS_BUSY;
}

static int load_parts(const struct vcpu *vcpu, const struct vcpu_state *state, bool last, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (parts[i].last == last && ioctl(vcpu->fd, parts[i].set, (const char *)state + parts[i].offset) < 0)
			return error_set_errno(err, errno, "KVM does not take vCPU %u's %s", vcpu->index, parts[i].name);
	return 0;
}

/* KVM reads as many bytes as it would write, whatever the host was that saved. */
static int load_xsave(const struct vm *vm, const struct vcpu *vcpu, const struct vcpu_state *state, struct error *err)
{
	uint32_t size = xsave_bytes(vm);
	cleanup_free uint8_t *area = calloc(1, size);

	if (!area)
		return error_set(err, ENOMEM, "out of memory");
	if (state->xsave_bytes > size)
		return error_set(err, ENOTSUP, "vCPU %u has %u bytes of extended state, and this host's processor %u", vcpu->index,
			state->xsave_bytes, size);
	memcpy(area, state->xsave, state->xsave_bytes);
	if (ioctl(vcpu->fd, KVM_SET_XSAVE, area) < 0)
		return error_set_errno(err, errno, "KVM does not take vCPU %u's extended state", vcpu->index);
	return 0;
}

static int give_vcpu(const struct vm *vm, const struct vcpu *vcpu, const struct vcpu_state *state, struct error *err)
{
	int r = cpuid_check_offered(state->cpuid, vm->cpuid, err);

	if (r == 0 && ioctl(vcpu->fd, KVM_SET_CPUID2, state->cpuid) < 0)
		r = error_set_errno(err, errno, "KVM does not take vCPU %u's CPUID", vcpu->index);
	if (r == 0)
		r = set_tsc_khz(vcpu, state->tsc_khz, err);
	if (r == 0)
		r = load_parts(vcpu, state, false, err);
	if (r == 0)
		r = load_xsave(vm, vcpu, state, err);
	if (r == 0)
		r = load_msrs(vcpu, state->msrs, err);
	return r == 0 ? load_parts(vcpu, state, true, err) : r;
}

/* What time has passed; a clock that was set back has none pass. */
static uint64_t passed_ns(const struct vm_state *machine)
{
	uint64_t now_ns = realtime_ns();

	return now_ns > machine->realtime_ns ? now_ns - machine->realtime_ns : 0;
}

static int give_vm(const struct vm *vm, const struct vm_state *state, struct error *err)
{
	for (uint32_t i = 0; i < VM_STATE_IRQCHIPS; i++)
		if (ioctl(vm->fd, KVM_SET_IRQCHIP, &state->irqchips[i]) < 0)
			return error_set_errno(err, errno, "KVM does not take the interrupt controllers");
	return 0;
}

/* Both clocks of the guest's (vmm/clock.c), together. */
static int set_clocks(const struct vm *vm, const struct vcpus *vcpus, const struct vm_state *machine, uint64_t ahead_ns, struct error *err)
{
	struct kvm_clock_data clock = {.clock = machine->clock.clock + ahead_ns};
	int r = clock_align(vcpus, err);

	if (r == 0 && ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0)
		r = error_set_errno(err, errno, "KVM does not take the clock");
	return r;
}

static void advance_tsc(struct vcpu_state *state, uint64_t ahead_ns)
{
	struct kvm_msr_entry *tsc = vcpu_state_find_msr(state, MSR_TSC);

	if (tsc)
		tsc->data += (uint64_t)((unsigned __int128)ahead_ns * state->tsc_khz / 1000000);
}

static int read_vcpus(struct vcpu_state *states, unsigned n, struct state_reader *r, struct error *err)
{
	int result = 0;

	for (unsigned i = 0; i < n && result == 0; i++)
		result = vcpu_state_read(&states[i], r, err);
	return result;
}

int kvm_state_load(const struct vm *vm, const struct vcpus *vcpus, bool catch_up, struct state_reader *r, struct error *err)
{
	struct vcpu_state *states = calloc(vcpus->n, sizeof(*states));
	struct vm_state machine = {0};
	uint64_t ahead_ns = 0;
	int result = states ? read_vcpus(states, vcpus->n, r, err) : error_set(err, ENOMEM, "out of memory");

	if (result == 0)
		result = vm_state_read(&machine, r, err);
	if (result == 0 && catch_up)
		ahead_ns = passed_ns(&machine);
	for (unsigned i = 0; i < vcpus->n && result == 0; i++) {
		advance_tsc(&states[i], ahead_ns);
		settle_task_register(&states[i]);
		result = give_vcpu(vm, &vcpus->items[i], &states[i], err);
	}
	if (result == 0)
		result = give_vm(vm, &machine, err);
	if (result == 0)
		result = set_clocks(vm, vcpus, &machine, ahead_ns, err);
	for (unsigned i = 0; states && i < vcpus->n; i++)
		vcpu_state_done(&states[i]);
	free(states);
	return result;
}
