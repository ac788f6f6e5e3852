/* Registers by KVM_GET_REGS, KVM_GET_SREGS and KVM_GET_XSAVE (KVM_GET_FPU knows no MXCSR), and back. */
#include "vmm/gdb_kvm.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

/* The XSAVE area's legacy region, and the header behind it (AMD64 manual, volume 2, 11.4.4.1 and 11.5.7). */
struct legacy_region {
	uint16_t control, status;
	uint8_t in_use, reserved; /* in_use: a bit a register of the FPU's */
	uint16_t opcode;
	uint64_t instruction, data;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16], xmm[16][16];
};
static_assert(sizeof(struct legacy_region) == 416, "as the processor has it");
#define XSTATE_BV_OFFSET  512
#define XSTATE_X87_AND_SSE 3u

struct state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	union {
		struct kvm_xsave xsave;
		struct legacy_region fpu;
	};
};

static int read_state(int fd, struct state *ret)
{
	if (ioctl(fd, KVM_GET_REGS, &ret->regs) < 0 || ioctl(fd, KVM_GET_SREGS, &ret->sregs) < 0 ||
		ioctl(fd, KVM_GET_XSAVE, &ret->xsave) < 0)
		return -errno;
	return 0;
}

/* What is 64 bits wide on both sides. */
static const struct {
	size_t gdb, kvm; /* offsets, in struct gdb_registers and struct state */
} wide[] = {
#define GENERAL(name) {offsetof(struct gdb_registers, name), offsetof(struct state, regs.name)}
#define SYSTEM(name)  {offsetof(struct gdb_registers, name), offsetof(struct state, sregs.name)}
	GENERAL(rax), GENERAL(rbx), GENERAL(rcx), GENERAL(rdx), GENERAL(rsi), GENERAL(rdi), GENERAL(rbp), GENERAL(rsp),
	GENERAL(r8), GENERAL(r9), GENERAL(r10), GENERAL(r11), GENERAL(r12), GENERAL(r13), GENERAL(r14), GENERAL(r15),
	GENERAL(rip), SYSTEM(cr0), SYSTEM(cr2), SYSTEM(cr3), SYSTEM(cr4), SYSTEM(cr8), SYSTEM(efer),
	{offsetof(struct gdb_registers, fs_base), offsetof(struct state, sregs.fs.base)},
	{offsetof(struct gdb_registers, gs_base), offsetof(struct state, sregs.gs.base)},
};

static const struct {
	size_t gdb, kvm;
} selectors[] = {
#define SELECTOR(name) {offsetof(struct gdb_registers, name), offsetof(struct state, sregs.name.selector)}
	SELECTOR(cs), SELECTOR(ss), SELECTOR(ds), SELECTOR(es), SELECTOR(fs), SELECTOR(gs),
};

/* Two bits a register, 3: empty, where the area has one. What is in use is called valid, whatever it is. */
static uint32_t long_tag(uint8_t in_use)
{
	uint32_t tag = 0;

	for (unsigned i = 0; i < 8; i++)
		if (!(in_use >> i & 1))
			tag |= 3u << 2 * i;
	return tag;
}

static uint8_t short_tag(uint32_t tag)
{
	unsigned in_use = 0;

	for (unsigned i = 0; i < 8; i++)
		if ((tag >> 2 * i & 3) != 3)
			in_use |= 1u << i;
	return (uint8_t)in_use;
}

static void fpu_to_gdb(const struct legacy_region *fpu, struct gdb_registers *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(ret->st); i++)
		memcpy(ret->st[i], fpu->st[i], sizeof(ret->st[i]));
	memcpy(ret->xmm, fpu->xmm, sizeof(ret->xmm));
	ret->fctrl = fpu->control;
	ret->fstat = fpu->status;
	ret->ftag = long_tag(fpu->in_use);
	ret->fop = fpu->opcode;
	ret->fioff = (uint32_t)fpu->instruction;
	ret->fiseg = (uint32_t)(fpu->instruction >> 32);
	ret->fooff = (uint32_t)fpu->data;
	ret->foseg = (uint32_t)(fpu->data >> 32);
	ret->mxcsr = fpu->mxcsr;
}

static void fpu_from_gdb(const struct gdb_registers *registers, struct legacy_region *fpu)
{
	for (size_t i = 0; i < ARRAY_SIZE(registers->st); i++)
		memcpy(fpu->st[i], registers->st[i], sizeof(registers->st[i]));
	memcpy(fpu->xmm, registers->xmm, sizeof(registers->xmm));
	fpu->control = (uint16_t)registers->fctrl;
	fpu->status = (uint16_t)registers->fstat;
	fpu->in_use = short_tag(registers->ftag);
	fpu->opcode = (uint16_t)registers->fop;
	fpu->instruction = (uint64_t)registers->fiseg << 32 | registers->fioff;
	fpu->data = (uint64_t)registers->foseg << 32 | registers->fooff;
	fpu->mxcsr = registers->mxcsr;
}

/* What is not marked as present would be taken as initial. */
static int write_fpu(int fd, struct state *state)
{
	uint64_t present;

	memcpy(&present, (uint8_t *)&state->xsave + XSTATE_BV_OFFSET, sizeof(present));
	present |= XSTATE_X87_AND_SSE;
	memcpy((uint8_t *)&state->xsave + XSTATE_BV_OFFSET, &present, sizeof(present));
	return ioctl(fd, KVM_SET_XSAVE, &state->xsave) < 0 ? -errno : 0;
}

int gdb_kvm_read(int vcpu_fd, struct gdb_registers *ret)
{
	struct state state;
	int r = read_state(vcpu_fd, &state);

	if (r < 0)
		return r;
	*ret = (struct gdb_registers){.eflags = (uint32_t)state.regs.rflags};
	for (size_t i = 0; i < ARRAY_SIZE(wide); i++)
		memcpy((uint8_t *)ret + wide[i].gdb, (uint8_t *)&state + wide[i].kvm, sizeof(uint64_t));
	for (size_t i = 0; i < ARRAY_SIZE(selectors); i++) /* the upper half is zero */
		memcpy((uint8_t *)ret + selectors[i].gdb, (uint8_t *)&state + selectors[i].kvm, sizeof(uint16_t));
	fpu_to_gdb(&state.fpu, ret);
	return 0;
}

static int check_selectors(const struct gdb_registers *registers, const struct state *state)
{
	for (size_t i = 0; i < ARRAY_SIZE(selectors); i++) {
		uint32_t wanted;
		uint16_t is;

		memcpy(&wanted, (const uint8_t *)registers + selectors[i].gdb, sizeof(wanted));
		memcpy(&is, (const uint8_t *)state + selectors[i].kvm, sizeof(is));
		if (wanted != is)
			return -EINVAL;
	}
	return 0;
}

int gdb_kvm_write(int vcpu_fd, const struct gdb_registers *registers)
{
	struct state before, state;
	int r = read_state(vcpu_fd, &before);

	if (r == 0)
		r = check_selectors(registers, &before);
	if (r < 0)
		return r;
	state = before;
	for (size_t i = 0; i < ARRAY_SIZE(wide); i++)
		memcpy((uint8_t *)&state + wide[i].kvm, (const uint8_t *)registers + wide[i].gdb, sizeof(uint64_t));
	state.regs.rflags = registers->eflags;
	fpu_from_gdb(registers, &state.fpu);
	/* Only what is to be another is set at all: an interrupt that waits in sregs would be queued once more. */
	if (memcmp(&before.fpu, &state.fpu, sizeof(state.fpu)) != 0)
		r = write_fpu(vcpu_fd, &state);
	if (r == 0 && memcmp(&before.sregs, &state.sregs, sizeof(state.sregs)) != 0 &&
		ioctl(vcpu_fd, KVM_SET_SREGS, &state.sregs) < 0)
		r = -errno;
	if (r == 0 && ioctl(vcpu_fd, KVM_SET_REGS, &state.regs) < 0)
		r = -errno;
	return r;
}
