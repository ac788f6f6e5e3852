/* The processor as a guest that wants trouble finds it: what CPUID tells of it, what it refuses, and its timers. Each in a
 * payload of microseconds, as nothing of a kernel's stands between it and the instruction. */
#include "guest-kernel/payloads/payload.h"

#define BIT(n) (UINT32_C(1) << (n))
#define VECTOR 40

/* What may not be offered (SECURITY.md): nested virtualization and performance counters. And what must. */
static void look_at_cpuid(void)
{
	struct cpuid basic = cpuid(1, 0), kvm = cpuid(0x40000000, 0);

	FAIL_UNLESS(basic.ecx & BIT(24)); /* TSC deadline */
	FAIL_UNLESS(basic.ecx & BIT(31)); /* a hypervisor */
	FAIL_UNLESS(!(basic.ecx & BIT(5))); /* VMX */
	FAIL_UNLESS(!(cpuid(0x80000001, 0).ecx & BIT(2))); /* SVM */
	FAIL_UNLESS(kvm.ebx == 0x4b4d564b && kvm.ecx == 0x564b4d56 && kvm.edx == 0x4d);
	if (cpuid(0, 0).eax >= 0xa)
		FAIL_UNLESS((cpuid(0xa, 0).eax & 0xff) == 0); /* the version of the performance counters */
}

static void refuse_msrs(void)
{
	static const uint32_t refused[] = {
		0xc1, 0x186, 0x38f,	  /* performance counters */
		0x480, 0xc0010114, 0xc0010117, /* VMX, SVM */
		0x9e,			  /* system management */
		0x1c8, 0x570,		  /* branch records, processor trace */
		0x40000000, 0x40000001,	  /* Hyper-V */
		0xc0010000, 0xc0010200,	  /* AMD's counters */
		0x4b564d7f, 0xdeadbeef,
	};
	uint64_t value;

	for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		if (msr_read(refused[i], &value) != FAULT_PROTECTION)
			fail("MSR 0x%x can be read", refused[i]);
		if (msr_write(refused[i], 0) != FAULT_PROTECTION)
			fail("MSR 0x%x can be written", refused[i]);
	}
	FAIL_UNLESS(msr_read(0x10, &value) == NO_FAULT); /* the time-stamp counter */
	FAIL_UNLESS(msr_read(0x1b, &value) == NO_FAULT && (value & BIT(11))); /* APIC base, switched on */
	FAIL_UNLESS(msr_write(0x277, 0xff) == FAULT_PROTECTION); /* PAT: no such memory type */
	FAIL_UNLESS(msr_write(0xc0000080, ~UINT64_C(0)) == FAULT_PROTECTION); /* EFER's reserved bits */
}

static void undefined(uint64_t argument)
{
	(void)argument;
	__asm__ volatile("ud2");
}

static void breakpoint(uint64_t argument)
{
	(void)argument;
	__asm__ volatile("int3");
}

static void divide(uint64_t argument)
{
	__asm__ volatile("xorl %%edx, %%edx; divl %k0" : : "r"(argument), "a"(1) : "edx");
}

static void touch(uint64_t address)
{
	read8(address);
}

static void set_cr4(uint64_t value)
{
	__asm__ volatile("mov %0, %%cr4" : : "r"(value));
}

static void set_xcr0(uint64_t value)
{
	__asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static void fault(void)
{
	FAIL_UNLESS(fault_of(undefined, 0) == FAULT_UNDEFINED);
	FAIL_UNLESS(fault_of(breakpoint, 0) == FAULT_BREAKPOINT);
	FAIL_UNLESS(fault_of(divide, 0) == FAULT_DIVIDE);
	FAIL_UNLESS(fault_of(divide, 1) == NO_FAULT);
	FAIL_UNLESS(fault_of(touch, UINT64_C(1) << 40) == FAULT_PAGE);
	FAIL_UNLESS(fault_of(touch, UINT64_C(1) << 63) == FAULT_PROTECTION); /* not canonical */
	FAIL_UNLESS(fault_of(set_cr4, UINT64_C(1) << 63) == FAULT_PROTECTION);
	FAIL_UNLESS(fault_of(set_xcr0, 0) == FAULT_UNDEFINED); /* without CR4.OSXSAVE */
}

static void wait_for_timers(void)
{
	uint64_t begin = tsc();

	lapic_enable();
	lapic_timer_at(begin + 100000, VECTOR);
	FAIL_UNLESS(interrupt_wait(VECTOR));
	FAIL_UNLESS(tsc() - begin >= 100000);
	lapic_timer_after(10000, VECTOR + 1);
	FAIL_UNLESS(interrupt_wait(VECTOR + 1));
	FAIL_UNLESS(interrupts[VECTOR] == 1 && interrupts[VECTOR + 1] == 1);
}

void run(void)
{
	look_at_cpuid();
	say("cpuid: as it should be");
	refuse_msrs();
	say("msrs: refused");
	fault();
	say("exceptions: each its own");
	wait_for_timers();
	say("timers: fired");
}
