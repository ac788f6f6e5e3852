/* Saved processors and interrupt controllers, as sections. */
#include "vmm/vcpu_state.h"

#include "common/checked.h"

#include <errno.h>
#include <string.h>

#define VM_SECTION   "vm"
#define VCPU_SECTION "vcpu"
#define SECTION_VERSION 1

/* What KVM has as structures of a fixed size, which are its ABI and so the format. */
#define PART(type, member) {offsetof(type, member), sizeof(((type *)0)->member)}
struct part {
	size_t offset, size;
};

static const struct part vm_parts[] = {
	PART(struct vm_state, clock),
	PART(struct vm_state, irqchips),
};

static const struct part vcpu_parts[] = {
	PART(struct vcpu_state, mp_state),
	PART(struct vcpu_state, regs),
	PART(struct vcpu_state, sregs),
	PART(struct vcpu_state, xcrs),
	PART(struct vcpu_state, debugregs),
	PART(struct vcpu_state, lapic),
	PART(struct vcpu_state, events),
};

static void write_parts(const void *object, const struct part *parts, size_t n, struct state_writer *w)
{
	for (size_t i = 0; i < n; i++)
		state_put_bytes(w, (const char *)object + parts[i].offset, (uint32_t)parts[i].size);
}

/* A part of another size fails the section. */
static void read_parts(void *object, const struct part *parts, size_t n, struct state_reader *r)
{
	for (size_t i = 0; i < n; i++) {
		const uint8_t *bytes;
		uint32_t len = state_get_bytes(r, &bytes);

		if (len == parts[i].size)
			memcpy((char *)object + parts[i].offset, bytes, len);
		else
			r->failed = true;
	}
}

void vm_state_write(const struct vm_state *state, struct state_writer *w)
{
	state_begin(w, VM_SECTION, SECTION_VERSION);
	write_parts(state, vm_parts, ARRAY_SIZE(vm_parts), w);
	state_put_u64(w, state->realtime_ns);
	state_end(w);
}

int vm_state_read(struct vm_state *ret, struct state_reader *r, struct error *err)
{
	int result = state_begin_section(r, VM_SECTION, SECTION_VERSION, err);

	if (result < 0)
		return result;
	read_parts(ret, vm_parts, ARRAY_SIZE(vm_parts), r);
	ret->realtime_ns = state_get_u64(r);
	for (uint32_t i = 0; i < VM_STATE_IRQCHIPS; i++)
		ret->irqchips[i].chip_id = i;
	return state_end_section(r, err);
}

void vcpu_state_write(const struct vcpu_state *state, struct state_writer *w)
{
	state_begin(w, VCPU_SECTION, SECTION_VERSION);
	state_put_u32(w, state->tsc_khz);
	write_parts(state, vcpu_parts, ARRAY_SIZE(vcpu_parts), w);
	state_put_bytes(w, state->cpuid->entries, (uint32_t)(state->cpuid->nent * sizeof(state->cpuid->entries[0])));
	state_put_bytes(w, state->msrs->entries, (uint32_t)(state->msrs->nmsrs * sizeof(state->msrs->entries[0])));
	state_put_bytes(w, state->xsave, state->xsave_bytes);
	state_end(w);
}

struct kvm_cpuid2 *vcpu_state_new_cpuid(uint32_t n)
{
	return calloc(1, sizeof(struct kvm_cpuid2) + n * sizeof(struct kvm_cpuid_entry2));
}

struct kvm_msrs *vcpu_state_new_msrs(uint32_t n)
{
	return calloc(1, sizeof(struct kvm_msrs) + n * sizeof(struct kvm_msr_entry));
}

/* The number of items of `size` bytes in the bytes that come next; 0, and the section fails, when there are none, too many or a part of one. */
static uint32_t read_items(struct state_reader *r, size_t size, uint32_t max, const uint8_t **ret)
{
	uint32_t len = state_get_bytes(r, ret);

	if (len == 0 || len % size || len / size > max)
		r->failed = true;
	return r->failed ? 0 : (uint32_t)(len / size);
}

/* False: no memory. */
static bool read_lists(struct vcpu_state *state, struct state_reader *r)
{
	const uint8_t *cpuid, *msrs, *xsave;
	uint32_t n_cpuid = read_items(r, sizeof(struct kvm_cpuid_entry2), VCPU_STATE_CPUID_MAX, &cpuid);
	uint32_t n_msrs = read_items(r, sizeof(struct kvm_msr_entry), VCPU_STATE_MSRS_MAX, &msrs);
	uint32_t xsave_bytes = read_items(r, 1, VCPU_STATE_XSAVE_MAX, &xsave);

	if (xsave_bytes < sizeof(struct kvm_xsave))
		r->failed = true;
	if (r->failed)
		return true;
	state->cpuid = vcpu_state_new_cpuid(n_cpuid);
	state->msrs = vcpu_state_new_msrs(n_msrs);
	state->xsave = malloc(xsave_bytes);
	if (!state->cpuid || !state->msrs || !state->xsave)
		return false;
	state->cpuid->nent = n_cpuid;
	memcpy(state->cpuid->entries, cpuid, n_cpuid * sizeof(state->cpuid->entries[0]));
	state->msrs->nmsrs = n_msrs;
	memcpy(state->msrs->entries, msrs, n_msrs * sizeof(state->msrs->entries[0]));
	state->xsave_bytes = xsave_bytes;
	memcpy(state->xsave, xsave, xsave_bytes);
	return true;
}

int vcpu_state_read(struct vcpu_state *ret, struct state_reader *r, struct error *err)
{
	struct vcpu_state state = {0};
	int result = state_begin_section(r, VCPU_SECTION, SECTION_VERSION, err);

	*ret = (struct vcpu_state){0};
	if (result < 0)
		return result;
	state.tsc_khz = state_get_u32(r);
	read_parts(&state, vcpu_parts, ARRAY_SIZE(vcpu_parts), r);
	result = read_lists(&state, r) ? state_end_section(r, err) : error_set(err, ENOMEM, "out of memory");
	if (result == 0)
		*ret = state;
	else
		vcpu_state_done(&state);
	return result;
}

void vcpu_state_done(struct vcpu_state *state)
{
	free(state->cpuid);
	free(state->msrs);
	free(state->xsave);
	*state = (struct vcpu_state){0};
}

struct kvm_msr_entry *vcpu_state_find_msr(const struct vcpu_state *state, uint32_t index)
{
	for (uint32_t i = 0; i < state->msrs->nmsrs; i++)
		if (state->msrs->entries[i].index == index)
			return &state->msrs->entries[i];
	return NULL;
}
