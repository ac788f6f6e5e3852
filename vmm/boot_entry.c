/* The processor's state at the kernel's first instruction: descriptor table, page tables, registers. */
#include "vmm/boot_image.h"

#include "common/checked.h"
#include "vmm/layout.h"

#include <linux/kvm.h>

#define CR0_PE   (1u << 0)
#define CR0_ET   (1u << 4)
#define CR0_PG   (1u << 31)
#define CR4_PAE  (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)

#define RFLAGS_RESERVED 0x2

#define PTE_PRESENT  (1u << 0)
#define PTE_WRITABLE (1u << 1)
#define PTE_LARGE    (1u << 7)

#define PAGE_BYTES    0x1000ul
#define TABLE_ENTRIES 512ul

/* One PML4, one directory pointer table, and a directory for each of the first 4 GiB. */
#define DIRECTORIES     4ul
#define PDPT            (LAYOUT_PAGE_TABLES + PAGE_BYTES)
#define FIRST_DIRECTORY (LAYOUT_PAGE_TABLES + 2 * PAGE_BYTES)
#define PAGE_TABLES_END (FIRST_DIRECTORY + DIRECTORIES * PAGE_BYTES)
_Static_assert(PAGE_TABLES_END <= LAYOUT_CMDLINE, "the page tables reach into the command line");

/* A small stack between the zero page and the page tables. Linux sets up its own; other ELF kernels may be
 * glad of it. */
#define STACK_TOP (LAYOUT_PAGE_TABLES - 16)

/* Descriptor table: selectors 0x10 and 0x18 are the ones boot.rst asks for (__BOOT_CS, __BOOT_DS). */
#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TSS  0x20
#define GDT_ENTRIES   5

#define SEGMENT_CODE     0xb /* execute, read, accessed */
#define SEGMENT_DATA     0x3 /* read, write, accessed */
#define SEGMENT_TSS_BUSY 0xb /* of a system segment */

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool long_mode)
{
	return (struct kvm_segment){.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.db = !long_mode,
		.l = long_mode,
		.g = 1};
}

static struct kvm_segment tss_segment(void)
{
	/* PVH: "tr: a 32-bit TSS (active) with base 0 and limit 0x67"; VMX and SVM want one in long mode,
	 * too. */
	return (struct kvm_segment){
		.limit = 0x67, .selector = SELECTOR_TSS, .type = SEGMENT_TSS_BUSY, .present = 1};
}

/* Segment descriptor, AMD64 vol. 2, section 4.7: base 0 throughout. */
static uint64_t encode_descriptor(const struct kvm_segment *seg)
{
	uint64_t limit = seg->g ? seg->limit >> 12 : seg->limit;

	return (limit & 0xffff) | (uint64_t)seg->type << 40 | (uint64_t)seg->s << 44 |
	       (uint64_t)seg->present << 47 | (limit >> 16 & 0xf) << 48 | (uint64_t)seg->l << 53 |
	       (uint64_t)seg->db << 54 | (uint64_t)seg->g << 55;
}

static int write_gdt(enum boot_protocol protocol, const struct gmem *mem)
{
	struct kvm_segment code = flat_segment(SELECTOR_CODE, SEGMENT_CODE, protocol == BOOT_LINUX64);
	struct kvm_segment data = flat_segment(SELECTOR_DATA, SEGMENT_DATA, false);
	struct kvm_segment tss = tss_segment();
	uint64_t gdt[GDT_ENTRIES] = {
		[SELECTOR_CODE / 8] = encode_descriptor(&code),
		[SELECTOR_DATA / 8] = encode_descriptor(&data),
		[SELECTOR_TSS / 8] = encode_descriptor(&tss),
	};

	return gmem_write(mem, LAYOUT_GDT, gdt, sizeof(gdt));
}

/* The first 4 GiB, mapped to themselves: boot.rst wants the kernel, the zero page and the command line in it. */
static int write_page_tables(const struct gmem *mem)
{
	const uint64_t table_flags = PTE_PRESENT | PTE_WRITABLE;
	uint64_t pml4 = PDPT | table_flags;
	uint64_t pdpt[DIRECTORIES], directory[TABLE_ENTRIES];
	int r;

	r = gmem_write(mem, LAYOUT_PAGE_TABLES, &pml4, sizeof(pml4));
	for (uint64_t i = 0; r >= 0 && i < DIRECTORIES; i++) {
		pdpt[i] = (FIRST_DIRECTORY + i * PAGE_BYTES) | table_flags;
		for (uint64_t j = 0; j < TABLE_ENTRIES; j++)
			directory[j] = (i * TABLE_ENTRIES + j) * LARGE_PAGE_BYTES | table_flags | PTE_LARGE;
		r = gmem_write(mem, FIRST_DIRECTORY + i * PAGE_BYTES, directory, sizeof(directory));
	}
	if (r >= 0)
		r = gmem_write(mem, PDPT, pdpt, sizeof(pdpt));
	return r;
}

int boot_write_tables(enum boot_protocol protocol, const struct gmem *mem)
{
	int r = write_gdt(protocol, mem);

	if (r >= 0 && protocol == BOOT_LINUX64)
		r = write_page_tables(mem);
	return r;
}

void boot_registers(const struct boot_entry *entry, struct kvm_regs *regs, struct kvm_sregs *sregs)
{
	bool long_mode = entry->protocol == BOOT_LINUX64;
	struct kvm_segment data = flat_segment(SELECTOR_DATA, SEGMENT_DATA, false);

	sregs->cs = flat_segment(SELECTOR_CODE, SEGMENT_CODE, long_mode);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = tss_segment();
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = GDT_ENTRIES * 8 - 1;
	sregs->idt.base = 0;
	sregs->idt.limit =
		0; /* nobody handles anything yet: an exception is a triple fault, which the monitor sees */

	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr3 = 0;
	sregs->cr4 = 0;
	sregs->efer = 0;
	if (long_mode) {
		sregs->cr0 |= CR0_PG;
		sregs->cr3 = LAYOUT_PAGE_TABLES;
		sregs->cr4 = CR4_PAE;
		sregs->efer = EFER_LME | EFER_LMA;
	}

	*regs = (struct kvm_regs){.rip = entry->rip, .rflags = RFLAGS_RESERVED, .rsp = STACK_TOP};
	if (long_mode)
		regs->rsi = entry->info;
	else
		regs->rbx = entry->info;
}
