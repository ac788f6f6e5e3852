/* Puts a Linux kernel, its initrd and its command line into guest memory, and says how its first instruction is
 * reached. Called once per machine, before the first vCPU runs. Three kinds of kernel are known:
 *
 *	bzImage			64-bit boot protocol (Documentation/arch/x86/boot.rst), entered at load address + 0x200
 *	ELF with a PVH note	32-bit entry with a hvm_start_info (Xen's docs/misc/pvh.pandoc)
 *	ELF without one		64-bit entry at e_entry with a zero page
 *
 * Files are hostile: each size and offset is checked, and what is read goes straight into guest memory. */
#ifndef HULL_VMM_BOOT_H
#define HULL_VMM_BOOT_H

#include "common/error.h"
#include "devices/gmem.h"

struct kvm_regs;
struct kvm_sregs;

struct boot_config {
	int kernel_fd;        /* of a regular file; borrowed */
	int initrd_fd;        /* the same, or -1 */
	int initrd_append_fd; /* a further archive behind the initrd, at the next 4-byte boundary; or -1 */
	const char *cmdline;
	bool may_map; /* parts of memory may become private mappings of the kernel's file, which then must not be cut off
		       * or written to as long as the machine lives */
};

enum boot_protocol { BOOT_LINUX64, BOOT_PVH };

struct boot_entry {
	enum boot_protocol protocol;
	gpa_t rip;  /* where the first vCPU starts */
	gpa_t info; /* LINUX64: boot_params, in RSI; PVH: hvm_start_info, in EBX */
};

/* A file to boot from: `*ret` is its descriptor, to be closed, or -1 with 0 when `path` is NULL. -errno with `err` naming
 * `field`. */
int boot_open_file(const char *path, const char *field, int *ret, struct error *err);

/* Loads everything, and writes what the entry needs: GDT, page tables, zero page or start info. `rsdp` is
 * what acpi_build() returned. 0, or -errno with `err` naming "kernel_image_path", "initrd_path",
 * "initrd_append_path" or "boot_args"; what guest memory then holds is unspecified. `mem` must have RAM at 0
 * and be all zero. */
int boot_load(const struct boot_config *config, const struct gmem *mem, gpa_t rsdp, struct boot_entry *ret,
	struct error *err);

/* Changes `regs` and `sregs`, as KVM_GET_REGS and KVM_GET_SREGS gave them for the first vCPU, to the state
 * the protocol prescribes. */
void boot_registers(const struct boot_entry *entry, struct kvm_regs *regs, struct kvm_sregs *sregs);

#endif
