/* A guest that is nothing but a driver of virtio-mem with bad manners: it plugs, unplugs what it goes on using, has another device
 * write there, and at last touches it itself. What it finds it says on the serial port. Boots by PVH; the machine has two virtio-mmio
 * devices, virtio-mem and virtio-rng. A guest of tests/system/test_memory.py:
 *
 *	cc -ffreestanding -nostdlib -static -no-pie -fno-pie -mgeneral-regs-only -fcf-protection=none -O1 -Wl,-Ttext-segment=0x100000 */
#include <stdint.h>

/* From the 32-bit entry (PVH) into long mode, the first 8 GiB mapped as they are. */
__asm__(".section .note.pvh, \"a\", @note\n"
	"	.long 4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	"	.asciz \"Xen\"\n"
	"	.long entry32\n"
	".text\n"
	".code32\n"
	".globl _start\n"
	"_start:\n"
	"entry32:\n"
	"	xorl %ecx, %ecx\n"
	"1:	movl %ecx, %eax\n" /* 4096 large pages of 2 MiB */
	"	shll $21, %eax\n"
	"	orl $0x83, %eax\n"
	"	movl %eax, directories(, %ecx, 8)\n"
	"	movl %ecx, %eax\n"
	"	shrl $11, %eax\n"
	"	movl %eax, directories + 4(, %ecx, 8)\n"
	"	incl %ecx\n"
	"	cmpl $4096, %ecx\n"
	"	jb 1b\n"
	"	xorl %ecx, %ecx\n"
	"2:	movl %ecx, %eax\n"
	"	shll $12, %eax\n"
	"	addl $directories + 3, %eax\n"
	"	movl %eax, pointers(, %ecx, 8)\n"
	"	incl %ecx\n"
	"	cmpl $8, %ecx\n"
	"	jb 2b\n"
	"	movl $pointers + 3, %eax\n"
	"	movl %eax, top\n"
	"	movl $top, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl %cr4, %eax\n"
	"	orl $0x20, %eax\n" /* PAE */
	"	movl %eax, %cr4\n"
	"	movl $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	orl $0x100, %eax\n" /* EFER.LME */
	"	wrmsr\n"
	"	movl %cr0, %eax\n"
	"	orl $0x80000001, %eax\n"
	"	movl %eax, %cr0\n"
	"	lgdt gdt_pointer\n"
	"	ljmp $8, $entry64\n"
	".code64\n"
	"entry64:\n"
	"	movl $16, %eax\n"
	"	movl %eax, %ds\n"
	"	movl %eax, %es\n"
	"	movl %eax, %ss\n"
	"	movq $stack + 16384, %rsp\n"
	"	call run\n"
	"3:	hlt\n"
	"	jmp 3b\n"
	".data\n"
	".balign 8\n"
	"gdt:	.quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff\n"
	"gdt_pointer:\n"
	"	.word 23\n"
	"	.long gdt\n"
	".bss\n"
	".balign 4096\n"
	"top:	.skip 4096\n"
	"pointers: .skip 4096\n"
	"directories: .skip 8 * 4096\n"
	"stack:	.skip 16384\n"
	".text\n");

#define BLOCK UINT64_C(0x200000)

enum { PLUG, UNPLUG, UNPLUG_ALL, STATE };
enum { NEXT = 1, WRITE = 2, NEEDS_RESET = 64 };

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct device {
	volatile uint32_t *registers;
	struct desc desc[4] __attribute__((aligned(16)));
	volatile struct {
		uint16_t flags, idx, ring[4], event;
	} avail;
	volatile struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[4];
		uint16_t event;
	} used __attribute__((aligned(4)));
};

static struct device mem = {.registers = (volatile uint32_t *)0xd0000000}, rng = {.registers = (volatile uint32_t *)0xd0001000};

static void say(const char *text)
{
	for (; *text; text++)
		__asm__ volatile("outb %0, %1" : : "a"(*text), "d"((uint16_t)0x3f8));
}

static void tell(const char *what, unsigned digit)
{
	char text[] = " 0\n";

	text[1] = (char)('0' + digit % 10);
	say("hostile: ");
	say(what);
	say(text);
}

/* Virtio 1.2, section 3.1.1 and 4.2. */
static void start(struct device *d, uint32_t features)
{
	volatile uint32_t *r = d->registers;

	r[0x70 / 4] = 0;
	r[0x70 / 4] = 1;
	r[0x70 / 4] = 3;
	r[0x24 / 4] = 0;
	r[0x20 / 4] = features;
	r[0x24 / 4] = 1;
	r[0x20 / 4] = 1; /* VERSION_1 */
	r[0x70 / 4] = 11;
	r[0x30 / 4] = 0;
	r[0x38 / 4] = 4;
	r[0x80 / 4] = (uint32_t)(uintptr_t)d->desc;
	r[0x90 / 4] = (uint32_t)(uintptr_t)&d->avail;
	r[0xa0 / 4] = (uint32_t)(uintptr_t)&d->used;
	r[0x44 / 4] = 1;
	r[0x70 / 4] = 15;
}

/* Makes the chain at descriptor 0 available, until it is completed or the device gives up: whether it did not. */
static int submit(struct device *d)
{
	d->avail.ring[d->avail.idx % 4] = 0;
	__asm__ volatile("" : : : "memory");
	d->avail.idx++;
	d->registers[0x50 / 4] = 0;
	while (d->used.idx != d->avail.idx)
		if (d->registers[0x70 / 4] & NEEDS_RESET)
			return 0;
	__asm__ volatile("" : : : "memory");
	return 1;
}

static uint64_t config(unsigned offset)
{
	return mem.registers[(0x100 + offset) / 4] | (uint64_t)mem.registers[(0x104 + offset) / 4] << 32;
}

static uint16_t ask(uint16_t type, uint64_t addr, uint16_t n, volatile uint16_t *response)
{
	static struct {
		uint16_t type, padding[3];
		uint64_t addr;
		uint16_t n, padding2[3];
	} request;

	request.type = type;
	request.addr = addr;
	request.n = n;
	mem.desc[0] = (struct desc){(uintptr_t)&request, 24, NEXT, 1};
	mem.desc[1] = (struct desc){(uintptr_t)response, 10, WRITE, 0};
	return submit(&mem) ? response[0] : 9;
}

/* Whether the entropy device writes there. */
static int fill(uint64_t addr)
{
	start(&rng, 0);
	rng.avail.idx = rng.used.idx = 0;
	rng.desc[0] = (struct desc){addr, 64, WRITE, 0};
	return submit(&rng);
}

void run(void);
void run(void)
{
	static volatile uint16_t response[5];
	volatile uint64_t *first;
	uint64_t addr;

	start(&mem, 2); /* UNPLUGGED_INACCESSIBLE */
	addr = config(16);
	first = (volatile uint64_t *)addr;
	tell("reads what is not there:", *first == UINT64_MAX);
	say("hostile: ready\n");
	while (config(48) < 2 * BLOCK)
		;
	tell("plug", ask(PLUG, addr, 1, response));
	tell("plug too much", ask(PLUG, addr + BLOCK, 2, response));
	for (unsigned i = 0; i < BLOCK / 8; i += 512)
		first[i] = i;
	tell("entropy", fill(addr + 4096));
	tell("unplug under the answer", ask(UNPLUG, addr, 1, (volatile uint16_t *)(addr + 64)));
	tell("it is all there:", first[1024] == 1024);
	tell("plug the next", ask(PLUG, addr + BLOCK, 1, response));
	tell("unplug", ask(UNPLUG, addr, 1, response));
	tell("entropy", fill(addr + 4096)); /* KVM's slot is there, for the next block */
	say("hostile: touches it\n");
	tell("it lives, and reads", *first & 7);
}
