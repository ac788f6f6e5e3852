/* Guest memory to boot into, and honest kernels to spoil: a bzImage and an ELF file. */
#ifndef HULL_TESTS_UNIT_BOOT_FIXTURE_H
#define HULL_TESTS_UNIT_BOOT_FIXTURE_H

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

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline int file_of(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, data, len, 0), len);
	return fd;
}

/* A sparse file of `len` bytes. */
static inline int file_of_size(uint64_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	return fd;
}

struct bzimage {
	uint8_t bytes[BZ_SETUP_BYTES + BZ_CODE_BYTES];
};

static inline struct setup_header *bz_header(struct bzimage *bz)
{
	return (struct setup_header *)(bz->bytes + 0x1f1);
}

static inline void bz_init(struct bzimage *bz)
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

static inline void elf_init(struct elf *elf, bool pvh)
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

static inline void load(struct fixture *f)
{
	char line[512];
	int r = boot_load(&f->config, &f->mem, RSDP, &f->entry, &f->err);

	if (r)
		fail_msg("%s", error_line(&f->err, line, sizeof(line)));
}

static inline void refused(struct fixture *f, int errnum, const char *field, const char *why)
{
	assert_int_equal(boot_load(&f->config, &f->mem, RSDP, &f->entry, &f->err), -errnum);
	assert_string_equal(f->err.field, field);
	if (!strstr(f->err.message, why))
		fail_msg("\"%s\" does not say \"%s\"", f->err.message, why);
}

static inline void bz_refused(struct fixture *f, const struct bzimage *bz, const char *why)
{
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of(bz, sizeof(*bz));
	refused(f, ENOEXEC, KERNEL_FIELD, why);
}

static inline void elf_refused(struct fixture *f, const struct elf *elf, int errnum, const char *why)
{
	close_fd(f->config.kernel_fd);
	f->config.kernel_fd = file_of(elf, sizeof(*elf));
	refused(f, errnum, KERNEL_FIELD, why);
}

static inline void use_bzimage(struct fixture *f)
{
	struct bzimage bz;

	bz_init(&bz);
	f->config.kernel_fd = file_of(&bz, sizeof(bz));
}

static inline void use_elf(struct fixture *f, bool pvh)
{
	struct elf elf;

	elf_init(&elf, pvh);
	f->config.kernel_fd = file_of(&elf, sizeof(elf));
}

static inline const struct boot_params *zero_page(const struct fixture *f)
{
	return (const struct boot_params *)(f->low + LAYOUT_ZERO_PAGE);
}

#endif
