/* The MSRs that a guest reaches: a list of what is allowed, in one table.
 *
 * Why a list of what is allowed. KVM emulates some five hundred MSRs, and more with each release; a guest of this monitor,
 * which offers no performance counters, no nested virtualization, no Hyper-V and no Xen, has use for these. What is left out
 * is code of the host's kernel that a guest does not reach, whatever the host's kernel is: the performance counters (leaks,
 * and a history of faults), Hyper-V's (0x40000000 and up, theirs whenever a guest asks), VMX's and SVM's, the trace and
 * branch-record ones, system management. It is the same on every host, so a guest that runs here runs there.
 *
 * Why KVM does the refusing. The filter is a bitmap that KVM looks at before it emulates; what is allowed costs no exit, and
 * the MSRs that the processor itself serves still do not leave the guest. What is refused comes to user space, to be counted
 * and, a few times, logged; the guest gets the #GP that a processor without the register would give, which kernels expect.
 * Without the exit KVM would give the same #GP, untold.
 *
 * Reading and writing are one: an MSR that may be read only is KVM's own business, as are a register's bits. The x2APIC's
 * (0x800 to 0x8ff) are never filtered by KVM. (KVM's documentation, KVM_X86_SET_MSR_FILTER; numbers: Intel SDM volume 4; AMD
 * APM volume 2, appendix A; Linux' asm/msr-index.h and asm/kvm_para.h.) */
#include "vmm/msr_filter.h"

#include "common/checked.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

static const struct {
	uint32_t first, last;
} allowed[] = {
	/* Both vendors. */
	{0x10, 0x12},		    /* TSC; KVM's clocks by their old numbers */
	{0x17, 0x17},		    /* platform id */
	{0x1b, 0x1b},		    /* APIC base */
	{0x2a, 0x2a},		    /* power-on configuration */
	{0x3a, 0x3b},		    /* feature control; TSC adjust */
	{0x48, 0x49},		    /* SPEC_CTRL, PRED_CMD */
	{0x79, 0x79},		    /* microcode update, which KVM ignores */
	{0x8b, 0x8b},		    /* microcode revision */
	{0xce, 0xcf},		    /* platform info, core capabilities */
	{0xfe, 0xfe},		    /* MTRR capabilities */
	{0x10a, 0x10b},		    /* ARCH_CAPABILITIES, FLUSH_CMD */
	{0x11e, 0x11e},		    /* level-2 cache control, constant */
	{0x122, 0x122},		    /* TSX control */
	{0x140, 0x140},		    /* features enabled (CPUID faulting) */
	{0x174, 0x176},		    /* SYSENTER */
	{0x179, 0x17b},		    /* machine check, global */
	{0x198, 0x199},		    /* performance state and control, constant */
	{0x1a0, 0x1a0},		    /* MISC_ENABLE */
	{0x1c4, 0x1c5},		    /* extended feature disable (XFD) */
	{0x1cc, 0x1d4},		    /* FRED */
	{0x1d9, 0x1d9},		    /* DEBUGCTL */
	{0x200, 0x20f},		    /* MTRRs, variable */
	{0x250, 0x250},		    /* … and fixed */
	{0x258, 0x259},
	{0x268, 0x26f},
	{0x277, 0x277},		    /* PAT */
	{0x280, 0x29f},		    /* machine check banks, control 2 */
	{0x2ff, 0x2ff},		    /* MTRR default type */
	{0x400, 0x47f},		    /* machine check banks */
	{0x6a0, 0x6a0},		    /* control-flow enforcement (CET) */
	{0x6a2, 0x6a2},
	{0x6a4, 0x6a8},
	{0x6e0, 0x6e0},		    /* TSC deadline */
	{0xd90, 0xd90},		    /* bounds (MPX) */
	{0xda0, 0xda0},		    /* XSS */
	{0x4b564d00, 0x4b564d08},   /* KVM's own: clocks, asynchronous faults, stolen time, EOI, polling, migration */
	{0xc0000080, 0xc0000084},   /* EFER, STAR, LSTAR, CSTAR, SFMASK */
	{0xc0000100, 0xc0000103},   /* FS, GS and kernel GS base, TSC_AUX */
	/* AMD */
	{0xc0010010, 0xc0010010},   /* SYSCFG */
	{0xc0010015, 0xc0010015},   /* hardware configuration */
	{0xc001001f, 0xc0010020},   /* north bridge configuration; microcode loader, which KVM ignores */
	{0xc0010055, 0xc0010055},   /* pending interrupt message */
	{0xc0010058, 0xc0010058},   /* where PCI's configuration is mapped */
	{0xc0010112, 0xc0010113},   /* system management's memory, constant */
	{0xc001011f, 0xc001011f},   /* VIRT_SPEC_CTRL */
	{0xc0010140, 0xc0010141},   /* errata (OSVW) */
	{0xc0011021, 0xc0011023},   /* instruction and data cache, table walker configuration, constant */
	{0xc0011029, 0xc001102a},   /* decoder configuration (LFENCE serializes), bus unit configuration */
};

/* Between them lie all of the above; KVM takes 16 of at most 12,288 bits. */
static const struct {
	uint32_t first, n;
} windows[] = {
	{0, 0x1000},
	{0x4b564d00, 0x10},
	{0xc0000000, 0x200},
	{0xc0010000, 0x1100},
};

#define WINDOW_BYTES_MAX (0x1100 / 8)

/* A bit for each MSR that a window has. By what is allowed, which is little: asking for each of 9,000 MSRs took two million
 * instructions. */
static void fill_window(size_t i, uint8_t bits[WINDOW_BYTES_MAX])
{
	for (size_t k = 0; k < ARRAY_SIZE(allowed); k++)
		for (uint32_t msr = allowed[k].first; msr <= allowed[k].last; msr++) {
			uint32_t index = msr - windows[i].first;

			if (index < windows[i].n)
				bits[index / 8] |= (uint8_t)(1u << index % 8);
		}
}

bool msr_filter_allows(uint32_t msr)
{
	for (size_t i = 0; i < ARRAY_SIZE(windows); i++) {
		uint8_t bits[WINDOW_BYTES_MAX] = {0};
		uint32_t index = msr - windows[i].first;

		if (index >= windows[i].n)
			continue;
		fill_window(i, bits);
		return bits[index / 8] >> index % 8 & 1;
	}
	return false;
}

static int set_filter(int vm_fd)
{
	uint8_t bits[ARRAY_SIZE(windows)][WINDOW_BYTES_MAX] = {0};
	struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};

	for (size_t i = 0; i < ARRAY_SIZE(windows); i++) {
		fill_window(i, bits[i]);
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			.nmsrs = windows[i].n,
			.base = windows[i].first,
			.bitmap = bits[i],
		};
	}
	return ioctl(vm_fd, KVM_X86_SET_MSR_FILTER, &filter);
}

int msr_filter_install(int vm_fd, struct error *err)
{
	struct kvm_enable_cap exits = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = {KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN},
	};

	if (ioctl(vm_fd, KVM_ENABLE_CAP, &exits) < 0 || set_filter(vm_fd) < 0)
		return error_set_errno(err, errno, "KVM does not filter MSRs");
	return 0;
}
