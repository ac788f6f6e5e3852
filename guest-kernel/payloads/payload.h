/* What a payload has: a guest of one C file, without a kernel, whose only program is run(). It is entered by PVH in well under a
 * virtual millisecond, in 64-bit mode with 8 GiB mapped as they are, one processor, and interrupts off until it asks for one.
 *
 * A payload says lines on the serial port and ends the machine: by returning (power off), or by FAIL_UNLESS. An exception that it
 * did not ask for is said, and ends it as a failure. */
#ifndef HULL_PAYLOADS_PAYLOAD_H
#define HULL_PAYLOADS_PAYLOAD_H

#include <stdbool.h>
#include <stdint.h>

/* The payload's own. Returning powers the machine off, with 0 as the workload's exit status. */
void run(void);

/* A line on the serial port, "payload: " before it; %s, %u, %x, and %lu and %lx for 64 bits. One exit to the monitor, however long. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Says it, and powers off with 1 as the exit status. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define FAIL_UNLESS(what)                                                        \
	do {                                                                     \
		if (!(what))                                                     \
			fail("%s:%u: not so: %s", __FILE__, __LINE__, #what); \
	} while (0)

/* The time-stamp counter at the guest's first instruction, and now. */
extern uint64_t tsc_at_entry;
static inline uint64_t tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* Long enough for whatever is waited for on a slow host: some seconds of any counter. */
#define PATIENCE UINT64_C(30000000000)

static inline void barrier(void)
{
	__asm__ volatile("mfence" : : : "memory");
}

/* ---- ports and memory-mapped registers ---- */

static inline void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

#define DEFINE_MMIO(bits)                                                                       \
	static inline uint##bits##_t read##bits(uint64_t address)                               \
	{                                                                                       \
		uint##bits##_t value;                                                           \
		__asm__ volatile("mov (%1), %0" : "=r"(value) : "r"(address) : "memory");       \
		return value;                                                                   \
	}                                                                                       \
	static inline void write##bits(uint64_t address, uint##bits##_t value)                  \
	{                                                                                       \
		__asm__ volatile("mov %0, (%1)" : : "r"(value), "r"(address) : "memory");       \
	}
DEFINE_MMIO(8)
DEFINE_MMIO(16)
DEFINE_MMIO(32)
DEFINE_MMIO(64)

/* ---- the processor ---- */

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};
struct cpuid cpuid(uint32_t leaf, uint32_t subleaf);

/* Exceptions by their vectors. */
enum { NO_FAULT = -1, FAULT_DIVIDE = 0, FAULT_BREAKPOINT = 3, FAULT_UNDEFINED = 6, FAULT_PROTECTION = 13, FAULT_PAGE = 14 };

/* Runs `act`, which is left where it faults: the exception's vector, or NO_FAULT. */
int fault_of(void (*act)(uint64_t argument), uint64_t argument);

/* The MSR's value into `ret`, or from `value`: NO_FAULT or the exception. */
int msr_read(uint32_t msr, uint64_t *ret);
int msr_write(uint32_t msr, uint64_t value);

/* ---- interrupts ---- */

#define VECTOR_FIRST 32
#define VECTORS	     64

/* How often each vector came since it was last set to 0. */
extern volatile uint32_t interrupts[VECTORS];

/* Switches the local APIC on, and the older controllers off. Interrupts then come inside interrupt_wait() only. */
void lapic_enable(void);
/* The timer interrupts once: at a value of the time-stamp counter, or after so many ticks of the APIC's clock. */
void lapic_timer_at(uint64_t when_tsc, uint8_t vector);
void lapic_timer_after(uint32_t ticks, uint8_t vector);
/* The line's edges come as the vector. */
void ioapic_route(unsigned line, uint8_t vector);
/* Until `vector` came, when it has not yet: whether it did within PATIENCE. */
bool interrupt_wait(uint8_t vector);

#endif
