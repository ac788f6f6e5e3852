/* Boot: what is loaded where, what the kernel is told, and that files that lie are refused by name. */
#include "vmm/boot.h"

#include "common/cleanup.h"
#include "tests/unit/test.h"
#include "vmm/layout.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define MIB	  0x100000ul
#define MEMORY	  (64 * MIB)
#define HIGH_RAM  (4 * MIB)
#define RSDP	  0xe0000
#define LOAD_ADDR 0x1000000ul

#define BZ_SETUP_BYTES (2 * 512)
#define BZ_CODE_BYTES  8192

#define KERNEL_FIELD "kernel_image_path"

struct fixture {
	struct gmem mem;
	uint8_t *low, *high;
	struct boot_config config;
	struct boot_entry entry;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->low = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	f->high = mmap(NULL, HIGH_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(gmem_add(&f->mem, 0, MEMORY, f->low), 0);
	assert_int_equal(gmem_add(&f->mem, LAYOUT_HIGH_RAM, HIGH_RAM, f->high), 0);
	f->config = (struct boot_config){-1, -1, -1, "console=ttyS0"};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_fd(f->config.kernel_fd);
	close_fd(f->config.initrd_fd);
	close_fd(f->config.initrd_append_fd);
	munmap(f->low, MEMORY);
	munmap(f->high, HIGH_RAM);
	free(f);
	return 0;
}

static int file_of(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, data, len, 0), len);
	return fd;
}

/* A sparse file of `len` bytes. */
static int file_of_size(uint64_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	return fd;
}

struct bzimage {
	uint8_t bytes[BZ_SETUP_BYTES + BZ_CODE_BYTES];
};

static struct setup_header *bz_header(struct bzimage *bz)
{
	return (struct setup_header *)(bz->bytes + 0x1f1);
}

static void bz_init(struct bzimage *bz)
{
	struct setup_header *hdr = bz_header(bz);

	memset(bz, 0, sizeof(*bz));
	memset(bz->bytes + BZ_SETUP_BYTES, 0xc3, BZ_CODE_BYTES);
	hdr->setup_sects = 1;
	hdr->syssize = BZ_CODE_BYTES / 16;
	hdr->boot_flag = 0xaa55;
	hdr->jump = 0x6aeb; /* jmp to 0x26c, the end of protocol 2.15's header */
	hdr->header = 0x53726448;
	hdr->version = 0x20f;
	hdr->loadflags = LOADED_HIGH;
	hdr->initrd_addr_max = 0x7fffffff;
	hdr->kernel_alignment = 0x200000;
	hdr->relocatable_kernel = 1;
	hdr->xloadflags = XLF_KERNEL_64;
	hdr->cmdline_size = 2047;
	hdr->pref_address = LOAD_ADDR;
	hdr->init_size = 4 * MIB;
}

struct elf {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[2];
	Elf64_Nhdr nh;
	char name[4];
	uint64_t entry;
	uint8_t code[64];
};

static void elf_init(struct elf *elf, bool pvh)
{
	memset(elf, 0, sizeof(*elf));
	memcpy(elf->eh.e_ident, ELFMAG, SELFMAG);
	elf->eh.e_ident[EI_CLASS] = ELFCLASS64;
	elf->eh.e_ident[EI_DATA] = ELFDATA2LSB;
	elf->eh.e_type = ET_EXEC;
	elf->eh.e_machine = EM_X86_64;
	elf->eh.e_entry = LOAD_ADDR + 4;
	elf->eh.e_phoff = offsetof(struct elf, ph);
	elf->eh.e_phentsize = sizeof(Elf64_Phdr);
	elf->eh.e_phnum = pvh ? 2 : 1;
	elf->ph[0] = (Elf64_Phdr){.p_type = PT_LOAD,
		.p_offset = offsetof(struct elf, code),
		.p_paddr = LOAD_ADDR,
		.p_filesz = sizeof(elf->code),
		.p_memsz = MIB};
	elf->ph[1] = (Elf64_Phdr){.p_type = PT_NOTE,
		.p_offset = offsetof(struct elf, nh),
		.p_filesz = sizeof(elf->nh) + sizeof(elf->name) + sizeof(elf->entry)};
	elf->nh = (Elf64_Nhdr){.n_namesz = 4, .n_descsz = 8, .n_type = 18};
	memcpy(elf->name, "Xen", 4);
	elf->entry = LOAD_ADDR + 8;
	memset(elf->code, 0xf4, sizeof(elf->code));
}

static void load(struct fixture *f)
{
	char line[512];
	int r = boot_load(&f->config, &f->mem, RSDP, &f->entry, &f->err);

	if (r)
		fail_msg("%s", error_line(&f->err, line, sizeof(line)));
}

static void refused(struct fixture *f, int errnum, const char *field, const char *why)
{
	assert_int_equal(boot_load(&f->config, &f->mem, RSDP, &f->entry, &f->err), -errnum);
	assert_string_equal(f->err.field, field);
	if (!strstr(f->err.message, why))
		fail_msg("\"%s\" does not say \"%s\"", f->err.message, why);
}

static void bz_refused(struct fixture *f, const struct bzimage *bz, const char *why)
{
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of(bz, sizeof(*bz));
	refused(f, ENOEXEC, KERNEL_FIELD, why);
}

static void elf_refused(struct fixture *f, const struct elf *elf, int errnum, const char *why)
{
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of(elf, sizeof(*elf));
	refused(f, errnum, KERNEL_FIELD, why);
}

static void use_bzimage(struct fixture *f)
{
	struct bzimage bz;

	bz_init(&bz);
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
}

static void use_elf(struct fixture *f, bool pvh)
{
	struct elf elf;

	elf_init(&elf, pvh);
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
}

static const struct boot_params *zero_page(const struct fixture *f)
{
	return (const struct boot_params *)(f->low + LAYOUT_ZERO_PAGE);
}

static void bzimage_is_loaded_and_told_all(void **state)
{
	struct fixture *f = *state;
	const struct boot_params *params = zero_page(f);

	use_bzimage(f);
	load(f);
	assert_int_equal(f->entry.protocol, BOOT_LINUX64);
	assert_int_equal(f->entry.rip, LOAD_ADDR + 0x200);
	assert_int_equal(f->entry.info, LAYOUT_ZERO_PAGE);
	assert_int_equal(f->low[LOAD_ADDR], 0xc3);
	assert_int_equal(f->low[LOAD_ADDR + BZ_CODE_BYTES - 1], 0xc3);
	assert_int_equal(f->low[LOAD_ADDR + BZ_CODE_BYTES], 0);
	assert_int_equal(params->hdr.header, 0x53726448);
	assert_int_equal(params->hdr.type_of_loader, 0xff);
	assert_int_equal(params->hdr.cmd_line_ptr, LAYOUT_CMDLINE);
	assert_string_equal(f->low + LAYOUT_CMDLINE, "console=ttyS0");
	assert_int_equal(params->hdr.ramdisk_size, 0);
	assert_int_equal(params->acpi_rsdp_addr, RSDP);
	assert_int_equal(params->sentinel, 0);
}

static void code_behind_the_setup_header_stays_out_of_the_zero_page(void **state)
{
	struct fixture *f = *state;
	struct bzimage bz;

	bz_init(&bz);
	bz_header(&bz)->jump = 0x62eb; /* ends at 0x264: before handover_offset */
	bz_header(&bz)->handover_offset = 0x90909090;
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
	load(f);
	assert_int_equal(zero_page(f)->hdr.init_size, 4 * MIB);
	assert_int_equal(zero_page(f)->hdr.handover_offset, 0);
}

static void memory_map_lists_ram_and_leaves_out_the_rest(void **state)
{
	static const struct boot_e820_entry expected[] = {
		{0, 0x9fc00, 1},
		{0x9fc00, 0x60400, 2},
		{MIB, MEMORY - MIB, 1},
		{0xfffbc000, 0x4000, 2},
		{LAYOUT_HIGH_RAM, HIGH_RAM, 1},
	};
	struct fixture *f = *state;

	use_bzimage(f);
	load(f);
	assert_int_equal(zero_page(f)->e820_entries, 5);
	assert_memory_equal(zero_page(f)->e820_table, expected, sizeof(expected));
}

static void lying_bzimages_are_refused(void **state)
{
	struct fixture *f = *state;
	struct bzimage bz;
	struct setup_header *hdr = bz_header(&bz);

	bz_init(&bz);
	hdr->header = 0;
	bz_refused(f, &bz, "neither an ELF kernel nor a bzImage");
	bz_init(&bz);
	hdr->boot_flag = 0;
	bz_refused(f, &bz, "neither an ELF kernel nor a bzImage");
	bz_init(&bz);
	hdr->version = 0x20b;
	bz_refused(f, &bz, "boot protocol 2.11; 2.12");
	bz_init(&bz);
	hdr->loadflags = 0;
	bz_refused(f, &bz, "zImage");
	bz_init(&bz);
	hdr->xloadflags = 0;
	bz_refused(f, &bz, "64-bit entry");
	bz_init(&bz);
	hdr->kernel_alignment = 0;
	bz_refused(f, &bz, "alignment");
	bz_init(&bz);
	hdr->pref_address = LOAD_ADDR + 1;
	bz_refused(f, &bz, "alignment");
	bz_init(&bz);
	hdr->pref_address = 0;
	bz_refused(f, &bz, "below 1 MiB");
	bz_init(&bz);
	hdr->syssize = 0xffffffff;
	bz_refused(f, &bz, "is cut off");
	bz_init(&bz);
	hdr->setup_sects = 255;
	bz_refused(f, &bz, "is cut off");
	bz_init(&bz);
	hdr->syssize = 0x20;
	bz_refused(f, &bz, "contradicts itself");
	bz_init(&bz);
	hdr->init_size = BZ_CODE_BYTES - 16;
	bz_refused(f, &bz, "contradicts itself");
}

static void kernels_larger_than_memory_are_refused(void **state)
{
	struct fixture *f = *state;
	struct bzimage bz;

	bz_init(&bz);
	bz_header(&bz)->init_size = MEMORY - LOAD_ADDR;
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
	load(f);
	close_fd(f->config.kernel_fd);
	bz_header(&bz)->init_size += 1;
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
	refused(f, ENOMEM, KERNEL_FIELD, "needs 49 MiB at 0x1000000, and low memory ends at 64 MiB");
	close_fd(f->config.kernel_fd);
	bz_header(&bz)->pref_address = UINT64_MAX - 0x1fffff;
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
	refused(f, ENOMEM, KERNEL_FIELD, "does not fit");
}

static void files_that_are_no_kernel_are_refused(void **state)
{
	struct fixture *f = *state;
	struct bzimage bz;

	f->config.kernel_fd = file_of("", 0);
	refused(f, EINVAL, KERNEL_FIELD, "is empty");
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of("abc", 3);
	refused(f, ENOEXEC, KERNEL_FIELD, "too short");
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of("#!/bin/sh\n", 10);
	refused(f, ENOEXEC, KERNEL_FIELD, "too short");
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of_size(MIB);
	refused(f, ENOEXEC, KERNEL_FIELD, "neither an ELF kernel nor a bzImage");
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of(ELFMAG, 4);
	refused(f, ENOEXEC, KERNEL_FIELD, "within its ELF header");
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = open("/", O_RDONLY | O_CLOEXEC);
	refused(f, EINVAL, KERNEL_FIELD, "not a regular file");

	/* Every shorter file is refused, wherever it is cut. */
	bz_init(&bz);
	for (size_t len = 0; len < sizeof(bz) - 15; len += 97) {
		close_fd(f->config.kernel_fd);
		f->config.kernel_fd = file_of(&bz, len);
		assert_int_not_equal(boot_load(&f->config, &f->mem, RSDP, &f->entry, &f->err), 0);
		assert_string_equal(f->err.field, KERNEL_FIELD);
	}
}

static void command_line_is_bounded_by_kernel_and_layout(void **state)
{
	struct fixture *f = *state;
	struct bzimage bz;
	char long_line[LAYOUT_CMDLINE_MAX + 1];

	memset(long_line, 'x', sizeof(long_line));
	long_line[LAYOUT_CMDLINE_MAX - 1] = '\0';
	f->config.cmdline = long_line;
	use_bzimage(f);
	load(f);
	assert_string_equal(f->low + LAYOUT_CMDLINE, long_line);

	long_line[LAYOUT_CMDLINE_MAX - 1] = 'x';
	long_line[LAYOUT_CMDLINE_MAX] = '\0';
	refused(f, E2BIG, "boot_args", "has 2048 bytes; this kernel takes 2047 at most");

	bz_init(&bz);
	bz_header(&bz)->cmdline_size = 12;
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
	f->config.cmdline = "console=ttyS0";
	refused(f, E2BIG, "boot_args", "has 13 bytes; this kernel takes 12 at most");
}

static void initrd_and_archive_are_one_ramdisk(void **state)
{
	struct fixture *f = *state;
	const struct setup_header *hdr = &zero_page(f)->hdr;

	/* Whatever was there before, the gap between the two is zero. */
	memset(f->low + MEMORY - 4096, 0xee, 4096);
	use_bzimage(f);
	f->config.initrd_fd = file_of("first", 5);
	f->config.initrd_append_fd = file_of("second", 6);
	load(f);
	assert_int_equal(hdr->ramdisk_image, MEMORY - 4096);
	assert_int_equal(hdr->ramdisk_size, 14);
	assert_memory_equal(f->low + hdr->ramdisk_image, "first\0\0\0second", 14);
}

static void initrd_or_archive_may_come_alone(void **state)
{
	struct fixture *f = *state;
	const struct setup_header *hdr = &zero_page(f)->hdr;

	use_bzimage(f);
	f->config.initrd_append_fd = file_of("second", 6);
	load(f);
	assert_int_equal(hdr->ramdisk_size, 6);
	assert_memory_equal(f->low + hdr->ramdisk_image, "second", 6);
	f->config.initrd_fd = f->config.initrd_append_fd;
	f->config.initrd_append_fd = -1;
	load(f);
	assert_int_equal(hdr->ramdisk_size, 6);
}

static void initrd_stays_below_what_the_kernel_allows(void **state)
{
	struct fixture *f = *state;
	struct bzimage bz;

	bz_init(&bz);
	bz_header(&bz)->initrd_addr_max = 0x1ffffff;
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
	f->config.initrd_fd = file_of_size(5000);
	load(f);
	assert_int_equal(zero_page(f)->hdr.ramdisk_image, 0x2000000 - 8192);
}

static void initrds_that_do_not_fit_are_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t room = MEMORY - LOAD_ADDR - 4 * MIB;

	use_bzimage(f);
	f->config.initrd_fd = file_of_size(room);
	load(f);
	assert_int_equal(ftruncate(f->config.initrd_fd, (off_t)room + 1), 0);
	refused(f, ENOMEM, "initrd_path", "44 MiB are left between the kernel's end at 20 MiB and 64 MiB");
	assert_int_equal(ftruncate(f->config.initrd_fd, INT64_MAX), 0);
	refused(f, ENOMEM, "initrd_path", "does not fit");
	f->config.initrd_append_fd = file_of_size(INT64_MAX);
	refused(f, ENOMEM, "initrd_path", "does not fit");
	assert_int_equal(ftruncate(f->config.initrd_append_fd, 0), 0);
	refused(f, EINVAL, "initrd_append_path", "is empty");
	assert_int_equal(ftruncate(f->config.initrd_fd, 0), 0);
	refused(f, EINVAL, "initrd_path", "is empty");
}

static void elf_with_pvh_note_gets_start_info(void **state)
{
	struct fixture *f = *state;
	struct {
		uint32_t magic, version, flags, nr_modules;
		uint64_t modlist, cmdline, rsdp, memmap;
		uint32_t memmap_entries, reserved;
	} info;
	uint64_t module[2], first_entry[2];

	use_elf(f, true);
	f->config.initrd_fd = file_of("initrd", 6);
	load(f);
	assert_int_equal(f->entry.protocol, BOOT_PVH);
	assert_int_equal(f->entry.rip, LOAD_ADDR + 8);
	assert_int_equal(f->low[LOAD_ADDR + 63], 0xf4);
	assert_int_equal(f->low[LOAD_ADDR + 64], 0);
	memcpy(&info, f->low + f->entry.info, sizeof(info));
	assert_int_equal(info.magic, 0x336ec578);
	assert_int_equal(info.version, 1);
	assert_int_equal(info.nr_modules, 1);
	assert_string_equal(f->low + info.cmdline, "console=ttyS0");
	assert_int_equal(info.rsdp, RSDP);
	assert_int_equal(info.memmap_entries, 5);
	memcpy(first_entry, f->low + info.memmap, sizeof(first_entry));
	assert_int_equal(first_entry[1], 0x9fc00);
	memcpy(module, f->low + info.modlist, sizeof(module));
	assert_int_equal(module[1], 6);
	assert_memory_equal(f->low + module[0], "initrd", 6);
}

static void holes_of_a_kernel_are_not_read(void **state)
{
	struct fixture *f = *state;
	unsigned char resident[64];
	struct elf elf;

	/* Data, a hole of 64 pages, data. */
	elf_init(&elf, false);
	elf.ph[0].p_offset = 0;
	elf.ph[0].p_filesz = 66 * 4096;
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
	assert_int_equal(pwrite(f->config.kernel_fd, "end", 3, 66 * 4096 - 3), 3);
	load(f);
	assert_memory_equal(f->low + LOAD_ADDR, ELFMAG, 4);
	assert_memory_equal(f->low + LOAD_ADDR + 66 * 4096 - 3, "end", 3);
	assert_int_equal(mincore(f->low + LOAD_ADDR + 4096, 64 * 4096, resident), 0);
	for (size_t i = 0; i < sizeof(resident); i++)
		assert_int_equal(resident[i] & 1, 0);
	/* A hole at the end. */
	assert_int_equal(ftruncate(f->config.kernel_fd, 4096), 0);
	assert_int_equal(ftruncate(f->config.kernel_fd, 66 * 4096), 0);
	load(f);
	assert_memory_equal(f->low + LOAD_ADDR, ELFMAG, 4);
}

static void elf_without_note_gets_a_zero_page(void **state)
{
	struct fixture *f = *state;

	use_elf(f, false);
	load(f);
	assert_int_equal(f->entry.protocol, BOOT_LINUX64);
	assert_int_equal(f->entry.rip, LOAD_ADDR + 4);
	assert_int_equal(zero_page(f)->hdr.header, 0x53726448);
	assert_int_equal(zero_page(f)->acpi_rsdp_addr, RSDP);
}

static void lying_elf_headers_are_refused(void **state)
{
	struct fixture *f = *state;
	struct elf elf;

	elf_init(&elf, true);
	elf.eh.e_machine = EM_AARCH64;
	elf_refused(f, &elf, ENOEXEC, "another processor");
	elf_init(&elf, true);
	elf.eh.e_ident[EI_CLASS] = ELFCLASS32;
	elf_refused(f, &elf, ENOEXEC, "another processor");
	elf_init(&elf, true);
	elf.eh.e_type = ET_REL;
	elf_refused(f, &elf, ENOEXEC, "not an executable");
	elf_init(&elf, true);
	elf.eh.e_phnum = 0;
	elf_refused(f, &elf, ENOEXEC, "program headers");
	elf_init(&elf, true);
	elf.eh.e_phnum = 0xffff;
	elf_refused(f, &elf, ENOEXEC, "program headers");
	elf_init(&elf, true);
	elf.eh.e_phoff = UINT64_MAX - 8;
	elf_refused(f, &elf, ENOEXEC, "beyond its end");
	elf_init(&elf, true);
	elf.ph[1].p_offset = UINT64_MAX;
	elf_refused(f, &elf, ENOEXEC, "notes lie beyond its end");
}

static void lying_elf_segments_are_refused(void **state)
{
	struct fixture *f = *state;
	struct elf elf;

	elf_init(&elf, true);
	elf.ph[0].p_offset = sizeof(elf) - 10;
	elf_refused(f, &elf, ENOEXEC, "segment lies beyond its end");
	elf_init(&elf, true);
	elf.ph[0].p_filesz = elf.ph[0].p_memsz + 1;
	elf_refused(f, &elf, ENOEXEC, "larger in the file");
	elf.ph[0].p_memsz = 0;
	elf_refused(f, &elf, ENOEXEC, "larger in the file");
	elf_init(&elf, true);
	elf.ph[0].p_paddr = LAYOUT_ZERO_PAGE;
	elf_refused(f, &elf, ENOEXEC, "below 1 MiB");
	elf_init(&elf, true);
	elf.ph[0].p_memsz = UINT64_MAX;
	elf_refused(f, &elf, ENOMEM, "does not fit");
	elf_init(&elf, true);
	elf.ph[0].p_paddr = UINT64_MAX - 16;
	elf_refused(f, &elf, ENOMEM, "does not fit");
	elf_init(&elf, true);
	elf.entry = LOAD_ADDR + 64;
	elf_refused(f, &elf, ENOEXEC, "entry point outside");
	elf_init(&elf, false);
	elf.eh.e_entry = 0;
	elf_refused(f, &elf, ENOEXEC, "entry point outside");
	elf_init(&elf, true);
	elf.ph[0].p_type = PT_NULL;
	elf_refused(f, &elf, ENOEXEC, "entry point outside");
}

static void broken_notes_are_passed_over(void **state)
{
	struct fixture *f = *state;
	struct elf elf;

	elf_init(&elf, true);
	elf.nh.n_descsz = 0xffffffff;
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
	load(f);
	assert_int_equal(f->entry.protocol, BOOT_LINUX64);
	close_fd(f->config.kernel_fd);
	elf_init(&elf, true);
	elf.nh.n_namesz = 0xfffffffd;
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
	load(f);
	assert_int_equal(f->entry.protocol, BOOT_LINUX64);
	close_fd(f->config.kernel_fd);
	elf_init(&elf, true);
	elf.nh.n_descsz = 2;
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
	load(f);
	assert_int_equal(f->entry.protocol, BOOT_LINUX64);
}

static void memory_without_room_is_refused(void **state)
{
	struct fixture *f = *state;

	use_bzimage(f);
	f->mem.regions[0].size_bytes = MIB;
	refused(f, ENOMEM, "mem_size_mib", "too small");
	f->mem.n_regions = 0;
	refused(f, ENOMEM, "mem_size_mib", "too small");
}

static void pvh_entry_is_flat_32_bit(void **state)
{
	struct boot_entry entry = {.protocol = BOOT_PVH, .rip = LOAD_ADDR, .info = LAYOUT_PVH_INFO};
	struct kvm_sregs sregs = {.cr0 = 0x60000010};
	struct kvm_regs regs;

	(void)state;
	boot_registers(&entry, &regs, &sregs);
	assert_int_equal(regs.rip, LOAD_ADDR);
	assert_int_equal(regs.rbx, LAYOUT_PVH_INFO);
	assert_int_equal(regs.rflags, 2);
	assert_int_equal(sregs.cr0 & 0x80000001, 1);
	assert_int_equal(sregs.cr4, 0);
	assert_int_equal(sregs.efer, 0);
	assert_true(sregs.cs.db && !sregs.cs.l && sregs.cs.base == 0 && sregs.cs.limit == 0xffffffff);
	assert_int_equal(sregs.tr.limit, 0x67);
}

/* Walks the page tables as the processor would: `address` must map to itself, by 2 MiB pages. */
static void assert_identity(const struct fixture *f, gpa_t root, uint64_t address)
{
	uint64_t entry = root;

	for (int shift = 39; shift >= 21; shift -= 9) {
		memcpy(&entry, f->low + (entry & ~0xffful) + (address >> shift & 511) * 8, sizeof(entry));
		assert_int_equal(entry & 3, 3);
	}
	assert_true(entry & 0x80);
	assert_int_equal(entry & ~0x1ffffful, address & ~0x1ffffful);
}

static void linux_entry_is_64_bit_and_identity_mapped(void **state)
{
	struct fixture *f = *state;
	struct kvm_sregs sregs = {0};
	struct kvm_regs regs;
	uint64_t gdt[5];

	use_bzimage(f);
	load(f);
	boot_registers(&f->entry, &regs, &sregs);
	assert_int_equal(regs.rsi, LAYOUT_ZERO_PAGE);
	assert_int_equal(sregs.cr0 & 0x80000001, 0x80000001);
	assert_int_equal(sregs.efer, 0x500);
	assert_true(sregs.cs.l && !sregs.cs.db);
	assert_int_equal(sregs.cs.selector, 0x10);
	assert_int_equal(sregs.ds.selector, 0x18);
	assert_identity(f, sregs.cr3, LOAD_ADDR + 0x200);
	assert_identity(f, sregs.cr3, LAYOUT_CMDLINE);
	assert_identity(f, sregs.cr3, 0xffffffff);
	/* What a reload of the segment registers would find. */
	memcpy(gdt, f->low + sregs.gdt.base, sizeof(gdt));
	assert_int_equal(gdt[2], 0x00af9b000000ffff);
	assert_int_equal(gdt[3], 0x00cf93000000ffff);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(bzimage_is_loaded_and_told_all),
		CASE(code_behind_the_setup_header_stays_out_of_the_zero_page),
		CASE(memory_map_lists_ram_and_leaves_out_the_rest),
		CASE(lying_bzimages_are_refused),
		CASE(kernels_larger_than_memory_are_refused),
		CASE(files_that_are_no_kernel_are_refused),
		CASE(command_line_is_bounded_by_kernel_and_layout),
		CASE(initrd_and_archive_are_one_ramdisk),
		CASE(initrd_or_archive_may_come_alone),
		CASE(initrd_stays_below_what_the_kernel_allows),
		CASE(initrds_that_do_not_fit_are_refused),
		CASE(elf_with_pvh_note_gets_start_info),
		CASE(holes_of_a_kernel_are_not_read),
		CASE(elf_without_note_gets_a_zero_page),
		CASE(lying_elf_headers_are_refused),
		CASE(lying_elf_segments_are_refused),
		CASE(broken_notes_are_passed_over),
		CASE(memory_without_room_is_refused),
		CASE(pvh_entry_is_flat_32_bit),
		CASE(linux_entry_is_64_bit_and_identity_mapped),
	};

	return cmocka_run_group_tests_name("boot", tests, NULL, NULL);
}
