/* Boot: what is loaded where, what the kernel is told, and that files that lie are refused by name. */
#include "tests/unit/boot_fixture.h"

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
		CASE(memory_without_room_is_refused),
		CASE(pvh_entry_is_flat_32_bit),
		CASE(linux_entry_is_64_bit_and_identity_mapped),
	};

	return cmocka_run_group_tests_name("boot", tests, NULL, NULL);
}
