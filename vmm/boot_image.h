/* What the kernel formats (boot_bzimage.c, boot_elf.c), the entry (boot_entry.c) and boot.c tell each other. Private to these four. */
#ifndef HULL_VMM_BOOT_IMAGE_H
#define HULL_VMM_BOOT_IMAGE_H

#include "vmm/boot.h"

#include <asm/bootparam.h>
#include <stdbool.h>

#define BOOT_FIELD_KERNEL "kernel_image_path"

#define BOOT_SETUP_MAGIC  0x53726448u /* "HdrS" */
#define BOOT_SECTOR_MAGIC 0xaa55

#define LARGE_PAGE_BYTES 0x200000ul /* of the processor's */

/* A kernel file and the RAM it may use. */
struct boot_source {
	int fd;              /* borrowed */
	uint64_t size_bytes; /* of the file */
	const struct gmem *mem;
	gpa_t ram_end; /* of the RAM that begins at 0 and that a kernel may be loaded into */
	bool may_map;  /* as in struct boot_config */
};

/* A kernel that lies in guest memory. */
struct boot_image {
	enum boot_protocol protocol;
	gpa_t entry;
	gpa_t end;                  /* of all it needs until it has its own memory management, bss included */
	gpa_t initrd_end_max;       /* the initrd must end at or below this */
	uint32_t cmdline_max;       /* bytes without the NUL */
	struct setup_header header; /* LINUX64: goes into the zero page */
};

/* Each loads the file's kernel and fills `ret`; 0 or -errno with `err` set, field BOOT_FIELD_KERNEL. */
int boot_load_bzimage(const struct boot_source *src, struct boot_image *ret, struct error *err);
int boot_load_elf(const struct boot_source *src, struct boot_image *ret, struct error *err);

/* Reads exactly `len` bytes at `offset` of the file, which must have them. */
int boot_read_file(const struct boot_source *src, uint64_t offset, void *ret, size_t len, struct error *err);
/* The same, straight into guest memory; and says when [gpa, gpa + size) is not all RAM that may be used.
 * `len` <= `size`. */
int boot_read_segment(const struct boot_source *src, uint64_t offset, gpa_t gpa, uint64_t len, uint64_t size,
	struct error *err);
/* The same, for what the guest hardly ever writes to: where it may be and can be, whole pages are the file's own, of which the guest's
 * are copies from its first write on. */
int boot_map_segment(const struct boot_source *src, uint64_t offset, gpa_t gpa, uint64_t len, uint64_t size,
	struct error *err);

/* Writes the descriptor table and, for 64-bit entry, the page tables that boot_registers() points to. 0 or
 * -EFAULT. */
int boot_write_tables(enum boot_protocol protocol, const struct gmem *mem);

#endif
