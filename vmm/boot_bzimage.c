/* bzImage: the kernel that decompresses itself (Documentation/arch/x86/boot.rst).
 *
 *	0                  0x1f1          (setup_sects + 1) * 512             + syssize * 16
 *	+------------------+--------------+------------------------------------+-----------+
 *	| boot sector      | setup header | protected-mode kernel              | signature |
 *	+------------------+--------------+------------------------------------+-----------+
 *	                                    ^ load address; 64-bit entry at + 0x200
 *
 * The real-mode part is not run: of it only the setup header is used. */
#include "vmm/boot_image.h"

#include "common/checked.h"
#include "vmm/layout.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define HEADER_OFFSET       0x1f1
#define ENTRY_64_OFFSET     0x200
#define VERSION_MIN         0x020c /* xloadflags; pref_address and init_size came with 2.10 */
#define SETUP_SECTS_DEFAULT 4      /* what 0 means */
#define SECTOR_BYTES        512u
#define PARAGRAPH_BYTES     16u

static int refuse(struct error *err, const char *why)
{
	return error_set_field(err, ENOEXEC, BOOT_FIELD_KERNEL, "%s", why);
}

static bool is_power_of_two(uint64_t value)
{
	return value && !(value & (value - 1));
}

static int check_header(const struct setup_header *hdr, struct error *err)
{
	if (hdr->boot_flag != BOOT_SECTOR_MAGIC || hdr->header != BOOT_SETUP_MAGIC)
		return refuse(err, "is neither an ELF kernel nor a bzImage");
	if (hdr->version < VERSION_MIN)
		return error_set_field(err, ENOEXEC, BOOT_FIELD_KERNEL,
			"is a kernel of boot protocol %u.%02u; 2.12 or later is needed", hdr->version >> 8,
			hdr->version & 0xff);
	if (!(hdr->loadflags & LOADED_HIGH))
		return refuse(err, "is a zImage; a bzImage is needed");
	if (!(hdr->xloadflags & XLF_KERNEL_64))
		return refuse(err, "has no 64-bit entry point");
	if (!is_power_of_two(hdr->kernel_alignment) || hdr->pref_address & (hdr->kernel_alignment - 1))
		return refuse(err, "prefers an address that breaks its own alignment");
	if (hdr->pref_address < LAYOUT_KERNEL)
		return refuse(err, "wants to be loaded below 1 MiB");
	return 0;
}

/* The jump at 0x200 leaps over the header: its offset says where this kernel's header ends (boot.rst, "64-bit
 * boot protocol"). What lies behind is code and must not get into the zero page. */
static void cut_header(struct setup_header *hdr)
{
	size_t end = 0x202 + (hdr->jump >> 8), known = HEADER_OFFSET + sizeof(*hdr);

	if (end < known)
		memset((uint8_t *)hdr + (end - HEADER_OFFSET), 0, known - end);
}

int boot_load_bzimage(const struct boot_source *src, struct boot_image *ret, struct error *err)
{
	struct boot_image image = {.protocol = BOOT_LINUX64};
	struct setup_header *hdr = &image.header;
	uint64_t setup_bytes, code_bytes, file_code_bytes;
	int r;

	if (src->size_bytes < HEADER_OFFSET + sizeof(*hdr))
		return refuse(err, "is too short to be a kernel");
	r = boot_read_file(src, HEADER_OFFSET, hdr, sizeof(*hdr), err);
	if (r < 0)
		return r;
	cut_header(hdr);
	r = check_header(hdr, err);
	if (r < 0)
		return r;

	setup_bytes = ((hdr->setup_sects ? hdr->setup_sects : SETUP_SECTS_DEFAULT) + 1) * SECTOR_BYTES;
	code_bytes = (uint64_t)hdr->syssize * PARAGRAPH_BYTES;
	file_code_bytes = src->size_bytes > setup_bytes ? src->size_bytes - setup_bytes : 0;
	/* syssize is rounded up; the file need not be. */
	if (code_bytes > file_code_bytes + PARAGRAPH_BYTES - 1)
		return error_set_field(err, ENOEXEC, BOOT_FIELD_KERNEL,
			"is cut off: %" PRIu64 " bytes of %" PRIu64, src->size_bytes,
			setup_bytes + code_bytes);
	if (code_bytes > file_code_bytes)
		code_bytes = file_code_bytes;
	if (code_bytes <= ENTRY_64_OFFSET || code_bytes > hdr->init_size)
		return refuse(err, "contradicts itself about its size");

	r = boot_read_segment(src, setup_bytes, hdr->pref_address, code_bytes, hdr->init_size, err);
	if (r < 0)
		return r;
	image.entry = hdr->pref_address + ENTRY_64_OFFSET;
	image.end = hdr->pref_address + hdr->init_size;
	image.initrd_end_max = (uint64_t)hdr->initrd_addr_max + 1;
	image.cmdline_max = hdr->cmdline_size;
	*ret = image;
	return 0;
}
