/* What all payloads share: the serial port, exceptions, interrupts, the end. */
#include "guest-kernel/payloads/payload.h"

#include "guest-kernel/hull_guest.h"

#include <stdarg.h>
#include <stddef.h>

#define PORT_UART	0x3f8
#define PORT_SLEEP	0x600
#define PORT_PIC_MASK	0x21
#define PORT_PIC2_MASK	0xa1
#define SLEEP_OFF	0x34 /* ACPI: SLP_EN, SLP_TYP 5 */

#define LAPIC		0xfee00000u
#define LAPIC_EOI	0xb0
#define LAPIC_SPURIOUS	0xf0
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_INITIAL	0x380
#define LAPIC_DIVIDE	0x3e0
#define LAPIC_SOFTWARE_ENABLE 0x100
#define TIMER_DEADLINE	0x40000
#define DIVIDE_BY_1	0xb
#define MSR_TSC_DEADLINE 0x6e0

#define IOAPIC_SELECT	0xfec00000u
#define IOAPIC_WINDOW	0xfec00010u
#define IOAPIC_TABLE	0x10

#define LINE_BYTES	256

struct gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_middle;
	uint32_t offset_high, reserved;
};

/* As vector_common (entry.c) and the processor leave it. */
struct frame {
	uint64_t rbx, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

extern const char vector_stubs[][16], fault_return[];
int fault_call(void (*act)(uint64_t argument), uint64_t argument);
_Noreturn void payload_main(void);
void vector_entry(struct frame *frame);
void *memset(void *to, int value, size_t n);
void *memcpy(void *to, const void *from, size_t n);

uint64_t tsc_at_entry;
uint64_t fault_stack; /* of entry.c: not 0 where a fault is asked for */
volatile uint32_t interrupts[VECTORS];
static struct gate gates[VECTORS];

/* What the compiler may call. */
void *memset(void *to, int value, size_t n)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(value) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
	return to;
}

/* ---- what it says ---- */

struct line {
	char text[LINE_BYTES];
	size_t n;
};

static void put(struct line *line, char c)
{
	if (line->n < LINE_BYTES - 1) /* one for the line's end */
		line->text[line->n++] = c;
}

static void put_text(struct line *line, const char *text)
{
	while (*text)
		put(line, *text++);
}

static void put_number(struct line *line, uint64_t value, unsigned base)
{
	char digits[20];
	size_t n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (n)
		put(line, digits[--n]);
}

static void say_list(const char *format, va_list arguments)
{
	struct line line;

	line.n = 0;
	put_text(&line, "payload: ");
	for (; *format; format++) {
		bool is_long = format[0] == '%' && format[1] == 'l';

		if (*format != '%') {
			put(&line, *format);
			continue;
		}
		format += 1 + is_long;
		if (*format == 's')
			put_text(&line, va_arg(arguments, const char *));
		else
			put_number(&line, is_long ? va_arg(arguments, uint64_t) : va_arg(arguments, uint32_t),
				*format == 'x' ? 16 : 10);
	}
	line.text[line.n++] = '\n';
	__asm__ volatile("rep outsb" : : "S"(line.text), "c"(line.n), "d"((uint16_t)PORT_UART) : "memory");
}

void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say_list(format, arguments);
	va_end(arguments);
}

static _Noreturn void power_off(uint8_t status)
{
	out32(HULL_EXIT_PORT, HULL_EXIT_MAGIC | status);
	out8(PORT_SLEEP, SLEEP_OFF);
	for (;;)
		__asm__ volatile("cli; hlt");
}

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say_list(format, arguments);
	va_end(arguments);
	power_off(1);
}

/* ---- exceptions and interrupts ---- */

static void set_gates(void)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr = {sizeof(gates) - 1, (uintptr_t)gates};

	for (unsigned i = 0; i < VECTORS; i++) {
		uint64_t stub = (uintptr_t)vector_stubs[i];

		gates[i] = (struct gate){.offset_low = (uint16_t)stub,
			.selector = 8,
			.type = 0x8e, /* present, interrupt gate */
			.offset_middle = (uint16_t)(stub >> 16),
			.offset_high = (uint32_t)(stub >> 32)};
	}
	__asm__ volatile("lidt %0" : : "m"(idtr));
}

void vector_entry(struct frame *frame)
{
	uint64_t address;

	if (frame->vector >= VECTOR_FIRST) {
		interrupts[frame->vector]++;
		write32(LAPIC + LAPIC_EOI, 0);
		return;
	}
	if (fault_stack) {
		frame->rip = (uintptr_t)fault_return;
		frame->rax = frame->vector;
		return;
	}
	__asm__ volatile("mov %%cr2, %0" : "=r"(address));
	fail("exception %lu, code 0x%lx, at 0x%lx, cr2 0x%lx", frame->vector, frame->error, frame->rip, address);
}

int fault_of(void (*act)(uint64_t argument), uint64_t argument)
{
	return fault_call(act, argument);
}

struct msr_access {
	uint32_t msr;
	uint64_t value;
};

static void read_it(uint64_t argument)
{
	struct msr_access *access = (struct msr_access *)argument;
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(access->msr));
	access->value = (uint64_t)high << 32 | low;
}

static void write_it(uint64_t argument)
{
	const struct msr_access *access = (const struct msr_access *)argument;

	__asm__ volatile("wrmsr"
			 :
			 : "c"(access->msr), "a"((uint32_t)access->value), "d"((uint32_t)(access->value >> 32))
			 : "memory");
}

int msr_read(uint32_t msr, uint64_t *ret)
{
	struct msr_access access = {.msr = msr};
	int fault = fault_of(read_it, (uintptr_t)&access);

	if (fault == NO_FAULT)
		*ret = access.value;
	return fault;
}

int msr_write(uint32_t msr, uint64_t value)
{
	struct msr_access access = {msr, value};

	return fault_of(write_it, (uintptr_t)&access);
}

struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
	return r;
}

void lapic_enable(void)
{
	/* The lines are wired to the two older controllers, too. */
	out8(PORT_PIC_MASK, 0xff);
	out8(PORT_PIC2_MASK, 0xff);
	write32(LAPIC + LAPIC_SPURIOUS, LAPIC_SOFTWARE_ENABLE | (VECTORS - 1));
	write32(LAPIC + LAPIC_DIVIDE, DIVIDE_BY_1);
}

void lapic_timer_at(uint64_t when_tsc, uint8_t vector)
{
	write32(LAPIC + LAPIC_LVT_TIMER, TIMER_DEADLINE | vector);
	barrier(); /* Intel SDM volume 3, 11.5.4.1: the mode before the deadline */
	FAIL_UNLESS(msr_write(MSR_TSC_DEADLINE, when_tsc) == NO_FAULT);
}

void lapic_timer_after(uint32_t ticks, uint8_t vector)
{
	write32(LAPIC + LAPIC_LVT_TIMER, vector);
	write32(LAPIC + LAPIC_INITIAL, ticks);
}

static void ioapic_write(uint32_t index, uint32_t value)
{
	write32(IOAPIC_SELECT, index);
	write32(IOAPIC_WINDOW, value);
}

void ioapic_route(unsigned line, uint8_t vector)
{
	ioapic_write(IOAPIC_TABLE + 2 * line + 1, 0); /* to the processor with APIC id 0 */
	ioapic_write(IOAPIC_TABLE + 2 * line, vector); /* fixed, edge, active high */
}

bool interrupt_wait(uint8_t vector)
{
	uint64_t begin = tsc();

	while (!interrupts[vector] && tsc() - begin < PATIENCE)
		__asm__ volatile("sti; pause; cli" : : : "memory");
	return interrupts[vector];
}

/* ---- from entry.c ---- */

void payload_main(void)
{
	set_gates();
	run();
	power_off(0);
}
