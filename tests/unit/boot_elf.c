/* Boot of ELF kernels: what is loaded where, by which protocol, and that files that lie are refused by name. */
#include "tests/unit/boot_fixture.h"

#include <sys/prctl.h>

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

	/* Where the mapping happens to lie so that pages of 2 MiB fit, a hole would be there with its neighbours. */
	assert_int_equal(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
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
	assert_int_equal(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
}

/* What a linker left out for alignment, with a little in it: its pages of 2 MiB are not given for that. */
static void holes_with_little_in_them_are_not_cleared(void **state)
{
	static unsigned char resident[6 * MIB / 4096];
	struct fixture *f = *state;
	size_t n = 0;
	struct elf elf;

	elf_init(&elf, false);
	elf.ph[0].p_offset = 0;
	elf.ph[0].p_filesz = elf.ph[0].p_memsz = 10 * MIB;
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
	assert_int_equal(ftruncate(f->config.kernel_fd, 10 * MIB), 0);
	assert_int_equal(pwrite(f->config.kernel_fd, "entry", 5, 5 * MIB), 5);
	assert_int_equal(pwrite(f->config.kernel_fd, "end", 3, 10 * MIB - 3), 3);
	load(f);
	assert_memory_equal(f->low + LOAD_ADDR, ELFMAG, 4);
	assert_memory_equal(f->low + LOAD_ADDR + 5 * MIB, "entry", 5);
	assert_memory_equal(f->low + LOAD_ADDR + 10 * MIB - 3, "end", 3);
	/* The first 2 MiB of it may be the page that the beginning lies in. */
	assert_int_equal(mincore(f->low + LOAD_ADDR + 2 * MIB, 6 * MIB, resident), 0);
	for (size_t i = 0; i < sizeof(resident); i++)
		n += resident[i] & 1;
	assert_in_range(n, 1, 16);
}

#define CODE_BYTES (3 * 4096 + 100)

/* A kernel that says that its code stays as it is, of three pages and a bit. */
static void use_staying_code(struct fixture *f, uint32_t flags, uint64_t offset)
{
	uint8_t code[CODE_BYTES];
	struct elf elf;

	elf_init(&elf, true);
	elf.nh = (Elf64_Nhdr){.n_namesz = 5, .n_descsz = 4, .n_type = 1};
	memcpy(elf.name, "Hull", 4);
	elf.entry = 0; /* the name's end, and what the note says */
	elf.ph[0].p_flags = flags;
	elf.ph[0].p_offset = offset;
	elf.ph[0].p_filesz = CODE_BYTES;
	memset(code, 0xcc, sizeof(code));
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
	f->config.may_map = true;
	assert_int_equal(pwrite(f->config.kernel_fd, code, sizeof(code), (off_t)offset), sizeof(code));
}

/* Whether the page is the file's own: what is written there shows. */
static bool shows_file(const struct fixture *f, gpa_t gpa, uint64_t offset)
{
	uint8_t before = f->low[gpa], other = (uint8_t)~before;
	bool shown;

	assert_int_equal(pwrite(f->config.kernel_fd, &other, 1, (off_t)offset), 1);
	shown = f->low[gpa] == other;
	assert_int_equal(pwrite(f->config.kernel_fd, &before, 1, (off_t)offset), 1);
	return shown;
}

static void code_that_stays_is_the_files_own_pages(void **state)
{
	struct fixture *f = *state;
	uint8_t in_file;

	use_staying_code(f, PF_R | PF_X, 8192);
	f->low[LOAD_ADDR + CODE_BYTES] = 0x55;
	load(f);
	for (size_t i = 0; i < CODE_BYTES; i++)
		assert_int_equal(f->low[LOAD_ADDR + i], 0xcc);
	assert_int_equal(f->low[LOAD_ADDR + CODE_BYTES], 0x55);
	assert_true(shows_file(f, LOAD_ADDR, 8192));
	assert_true(shows_file(f, LOAD_ADDR + 2 * 4096 + 4095, 8192 + 2 * 4096 + 4095));
	/* What shares a page with other memory is a copy. */
	assert_false(shows_file(f, LOAD_ADDR + 3 * 4096, 8192 + 3 * 4096));
	/* The guest's writes are its own. */
	f->low[LOAD_ADDR + 4096] = 0x90;
	assert_int_equal(pread(f->config.kernel_fd, &in_file, 1, 8192 + 4096), 1);
	assert_int_equal(in_file, 0xcc);
	assert_false(shows_file(f, LOAD_ADDR + 4096, 8192 + 4096));
}

static void assert_copied(struct fixture *f, uint64_t offset)
{
	load(f);
	assert_int_equal(f->low[LOAD_ADDR], 0xcc);
	assert_int_equal(f->low[LOAD_ADDR + CODE_BYTES - 1], 0xcc);
	assert_false(shows_file(f, LOAD_ADDR, offset));
}

static void what_may_not_or_cannot_be_mapped_is_copied(void **state)
{
	struct fixture *f = *state;

	use_staying_code(f, PF_R | PF_X, 8192);
	f->config.may_map = false; /* others have this memory, too */
	assert_copied(f, 8192);
	use_staying_code(f, PF_R | PF_W, 8192);
	assert_copied(f, 8192);
	use_staying_code(f, PF_R | PF_X, 8192 + 16);
	assert_copied(f, 8192 + 16);
	use_staying_code(f, PF_R | PF_X, 8192);
	assert_int_equal(pwrite(f->config.kernel_fd, "Hell", 4, offsetof(struct elf, name)), 4);
	assert_copied(f, 8192);
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

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(elf_with_pvh_note_gets_start_info),
		CASE(holes_of_a_kernel_are_not_read),
		CASE(holes_with_little_in_them_are_not_cleared),
		CASE(code_that_stays_is_the_files_own_pages),
		CASE(what_may_not_or_cannot_be_mapped_is_copied),
		CASE(elf_without_note_gets_a_zero_page),
		CASE(lying_elf_headers_are_refused),
		CASE(lying_elf_segments_are_refused),
		CASE(broken_notes_are_passed_over),
	};

	return cmocka_run_group_tests_name("boot_elf", tests, NULL, NULL);
}
