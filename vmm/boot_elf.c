/* ELF vmlinux: its segments are read to where their physical addresses say. A note of Xen's names the 32-bit
 * PVH entry (Xen's include/public/elfnote.h); without it the ELF entry is taken, in 64-bit mode, as
 * Firecracker does. A note of Hull's (docs/interfaces.md) says that the kernel leaves most of its code as it is. */
#include "vmm/boot_image.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "vmm/layout.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define XEN_NOTE_NAME            "Xen"

#define HULL_ELFNOTE_CODE_STAYS 1
#define HULL_NOTE_NAME          "Hull"

#define SEGMENTS_MAX   64
#define NOTE_BYTES_MAX 65536

/* What a vmlinux was linked for (CONFIG_PHYSICAL_ALIGN is at most this); only a relocating decompressor reads
 * it. */
#define ELF_KERNEL_ALIGNMENT 0x1000000

struct elf_file {
	const struct boot_source *src;
	Elf64_Ehdr header;
	Elf64_Phdr segments[SEGMENTS_MAX];
	bool has_pvh;
	uint32_t pvh_entry;
	bool code_stays;
};

static int refuse(struct error *err, const char *why)
{
	return error_set_field(err, ENOEXEC, BOOT_FIELD_KERNEL, "%s", why);
}

static int read_headers(struct elf_file *elf, struct error *err)
{
	const Elf64_Ehdr *eh = &elf->header;
	uint64_t size_bytes;
	int r;

	if (elf->src->size_bytes < sizeof(*eh))
		return refuse(err, "is cut off within its ELF header");
	r = boot_read_file(elf->src, 0, &elf->header, sizeof(elf->header), err);
	if (r < 0)
		return r;
	if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB ||
		eh->e_machine != EM_X86_64)
		return refuse(err, "is an ELF file for another processor than x86-64");
	if (eh->e_type != ET_EXEC)
		return refuse(err, "is an ELF file but not an executable (ET_EXEC)");
	if (eh->e_phentsize != sizeof(Elf64_Phdr) || !eh->e_phnum || eh->e_phnum > SEGMENTS_MAX)
		return refuse(err, "has no program headers, or too many");
	size_bytes = (uint64_t)eh->e_phnum * sizeof(Elf64_Phdr);
	if (!range_fits(eh->e_phoff, size_bytes, elf->src->size_bytes))
		return refuse(err, "is cut off: its program headers lie beyond its end");
	return boot_read_file(elf->src, eh->e_phoff, elf->segments, size_bytes, err);
}

static bool is_note(const Elf64_Nhdr *nh, const uint8_t *name, uint32_t type, const char *owner)
{
	return nh->n_type == type && nh->n_namesz == strlen(owner) + 1 && !memcmp(name, owner, nh->n_namesz);
}

/* One note of `left` bytes and more at `note`. Its whole size, or 0 when it does not fit. */
static size_t read_note(struct elf_file *elf, const uint8_t *note, size_t left)
{
	Elf64_Nhdr nh;
	uint64_t name_bytes, total;
	const uint8_t *name = note + sizeof(nh);

	if (left < sizeof(nh))
		return 0;
	memcpy(&nh, note, sizeof(nh));
	/* Both sizes have 32 bits: the sum cannot wrap. Linux pads its notes to 4 bytes in ELF64, too. */
	name_bytes = align_up(nh.n_namesz, 4);
	total = sizeof(nh) + name_bytes + nh.n_descsz;
	if (total > left)
		return 0;
	if (is_note(&nh, name, XEN_ELFNOTE_PHYS32_ENTRY, XEN_NOTE_NAME) && nh.n_descsz >= sizeof(elf->pvh_entry)) {
		memcpy(&elf->pvh_entry, name + name_bytes, sizeof(elf->pvh_entry));
		elf->has_pvh = true;
	}
	if (is_note(&nh, name, HULL_ELFNOTE_CODE_STAYS, HULL_NOTE_NAME))
		elf->code_stays = true;
	total = align_up(total, 4);
	return total < left ? total : left;
}

static int read_notes(struct elf_file *elf, const Elf64_Phdr *ph, struct boot_image *image, struct error *err)
{
	cleanup_free uint8_t *notes = NULL;
	size_t size, step;
	int r;

	(void)image;
	/* A kernel has a few hundred bytes of notes; what is larger holds none that we look for. */
	if (!ph->p_filesz || ph->p_filesz > NOTE_BYTES_MAX)
		return 0;
	if (!range_fits(ph->p_offset, ph->p_filesz, elf->src->size_bytes))
		return refuse(err, "is cut off: its notes lie beyond its end");
	notes = malloc(ph->p_filesz);
	if (!notes)
		return error_set(err, ENOMEM, "no memory for the kernel's notes");
	r = boot_read_file(elf->src, ph->p_offset, notes, ph->p_filesz, err);
	if (r < 0)
		return r;
	for (size_t pos = 0; pos < ph->p_filesz; pos += step) {
		size = ph->p_filesz - pos;
		step = read_note(elf, notes + pos, size);
		if (!step)
			break;
	}
	return 0;
}

static int load_segment(
	struct elf_file *elf, const Elf64_Phdr *ph, struct boot_image *image, struct error *err)
{
	int r;

	if (ph->p_filesz > ph->p_memsz)
		return refuse(err, "has a segment that is larger in the file than in memory");
	if (!ph->p_memsz)
		return 0;
	if (!range_fits(ph->p_offset, ph->p_filesz, elf->src->size_bytes))
		return refuse(err, "is cut off: a segment lies beyond its end");
	if (elf->code_stays && !(ph->p_flags & PF_W))
		r = boot_map_segment(elf->src, ph->p_offset, ph->p_paddr, ph->p_filesz, ph->p_memsz, err);
	else
		r = boot_read_segment(elf->src, ph->p_offset, ph->p_paddr, ph->p_filesz, ph->p_memsz, err);
	if (r < 0)
		return r;
	if (ph->p_paddr + ph->p_memsz > image->end)
		image->end = ph->p_paddr + ph->p_memsz;
	return 0;
}

typedef int elf_segment_fn(struct elf_file *elf, const Elf64_Phdr *ph, struct boot_image *image, struct error *err);

static int for_each_segment(
	struct elf_file *elf, uint32_t type, elf_segment_fn *fn, struct boot_image *image, struct error *err)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < elf->header.e_phnum; i++)
		if (elf->segments[i].p_type == type)
			r = fn(elf, &elf->segments[i], image, err);
	return r;
}

/* Whether `entry` is inside what was read from the file. */
static bool is_loaded(const struct elf_file *elf, uint64_t entry)
{
	for (size_t i = 0; i < elf->header.e_phnum; i++) {
		const Elf64_Phdr *ph = &elf->segments[i];

		if (ph->p_type == PT_LOAD && entry >= ph->p_paddr && entry - ph->p_paddr < ph->p_filesz)
			return true;
	}
	return false;
}

int boot_load_elf(const struct boot_source *src, struct boot_image *ret, struct error *err)
{
	struct elf_file elf = {.src = src};
	struct boot_image image = {.initrd_end_max = src->ram_end, .cmdline_max = LAYOUT_CMDLINE_MAX - 1};
	int r;

	r = read_headers(&elf, err);
	if (r >= 0)
		r = for_each_segment(&elf, PT_NOTE, read_notes, &image, err);
	if (r >= 0)
		r = for_each_segment(&elf, PT_LOAD, load_segment, &image, err);
	if (r < 0)
		return r;

	image.protocol = elf.has_pvh ? BOOT_PVH : BOOT_LINUX64;
	image.entry = elf.has_pvh ? elf.pvh_entry : elf.header.e_entry;
	if (!is_loaded(&elf, image.entry))
		return refuse(err, "has its entry point outside its segments");
	image.header.boot_flag = BOOT_SECTOR_MAGIC;
	image.header.header = BOOT_SETUP_MAGIC;
	image.header.kernel_alignment = ELF_KERNEL_ALIGNMENT;
	*ret = image;
	return 0;
}
