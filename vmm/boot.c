/* Boot: recognises the kernel, places the initrd and the command line, and writes what the kernel is told at
 * its entry (zero page or PVH start info). The formats are in boot_bzimage.c and boot_elf.c, the processor's
 * state in boot_entry.c. */
#include "vmm/boot.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "vmm/boot_image.h"
#include "vmm/layout.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mman.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIELD_INITRD        "initrd_path"
#define FIELD_INITRD_APPEND "initrd_append_path"
#define FIELD_CMDLINE       "boot_args"
#define FIELD_MEMORY        "mem_size_mib"

#define MIB 0x100000ul

#define PAGE_BYTES 4096ul

#define LINUX_EARLY_BYTES (3 * MIB)

#define SPARSE_BYTES (LARGE_PAGE_BYTES / 32) /* by pages of 4 KiB they cost less than clearing 2 MiB does */

#define HOLE_BYTES (128 * 1024ul) /* what is smaller is read as fast as it is found */

#define STAT_BLOCK_BYTES 512 /* of st_blocks, whatever the file system */

#define INITRD_ALIGNMENT  4096 /* Linux frees it by pages */
#define ARCHIVE_ALIGNMENT 4    /* init/initramfs.c skips zero bytes up to here between archives */

/* KVM's own pages under the top of the 32-bit space: the identity map and three of TSS. */
#define KVM_PAGES_BYTES 0x4000ul

/* E820 and PVH's memory map number these alike. */
#define MEMORY_RAM      1
#define MEMORY_RESERVED 2
#define MEMORY_MAP_MAX  (GMEM_REGIONS_MAX + 4)

#define LOADER_TYPE_UNDEFINED 0xff

/* Xen's include/public/arch-x86/hvm/start_info.h */
#define PVH_MAGIC   0x336ec578u
#define PVH_VERSION 1

struct pvh_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};

struct pvh_module {
	uint64_t paddr, size, cmdline_paddr, reserved;
};

struct pvh_memory {
	uint64_t addr, size;
	uint32_t type, reserved;
};

/* One page at LAYOUT_PVH_INFO. */
struct pvh_page {
	struct pvh_start_info info;
	struct pvh_module module;
	struct pvh_memory memory[MEMORY_MAP_MAX];
};
_Static_assert(
	sizeof(struct pvh_page) <= LAYOUT_ZERO_PAGE - LAYOUT_PVH_INFO, "PVH info overlaps the zero page");
_Static_assert(sizeof(struct boot_params) == 4096, "boot_params is the zero page");

struct memory_map {
	struct pvh_memory entries[MEMORY_MAP_MAX];
	uint32_t n;
};

struct ramdisk {
	gpa_t gpa;
	uint64_t size_bytes; /* 0: none */
};

/* What became of reading `len` bytes of the kernel. */
static int read_whole(ssize_t n, uint64_t len, struct error *err)
{
	if (n < 0)
		return error_set_field(
			err, (int)-n, BOOT_FIELD_KERNEL, "cannot be read: %s", strerror((int)-n));
	if ((uint64_t)n != len)
		return error_set_field(err, ENODATA, BOOT_FIELD_KERNEL, "became shorter while it was read");
	return 0;
}

int boot_read_file(const struct boot_source *src, uint64_t offset, void *ret, size_t len, struct error *err)
{
	return read_whole(pread_full(src->fd, ret, len, offset), len, err);
}

static bool has_holes(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 || st.st_blocks < st.st_size / STAT_BLOCK_BYTES;
}

struct file_range {
	uint64_t begin, end;
};

/* The first piece of a file within `in` that is no hole of HOLE_BYTES or more; all of it, where the file system knows no holes.
 * False: there is none. Where data ends is found by steps: SEEK_HOLE alone can take longer than reading up to the hole does, as it
 * goes through a memory file page by page. */
static bool next_data(int fd, struct file_range in, struct file_range *ret)
{
	off_t data = lseek(fd, (off_t)in.begin, SEEK_DATA), hole;
	uint64_t known, probe;

	if (data < 0 && errno == ENXIO) /* nothing but a hole to the end of the file */
		return false;
	*ret = in;
	if (data < 0)
		return in.begin < in.end;
	if ((uint64_t)data >= in.end)
		return false;
	ret->begin = known = (uint64_t)data;
	while (in.end - known > HOLE_BYTES) {
		probe = known + HOLE_BYTES;
		if (lseek(fd, (off_t)probe, SEEK_DATA) != (off_t)probe) {
			hole = lseek(fd, (off_t)known, SEEK_HOLE);
			ret->end = hole >= 0 && (uint64_t)hole < probe ? (uint64_t)hole : probe;
			break;
		}
		known = probe;
	}
	return true;
}

/* Reads straight into guest memory, but for the file's large holes: there it is zero already, and stays
 * unallocated. Bytes dealt with: less than `len` when the file ends before; or -errno. */
static ssize_t read_sparse(int fd, uint8_t *host, uint64_t len, uint64_t offset)
{
	struct file_range left = {.begin = offset, .end = offset + len}, data;
	ssize_t n;

	if (!has_holes(fd))
		return pread_full(fd, host, len, offset);
	while (next_data(fd, left, &data)) {
		n = pread_full(fd, host + (data.begin - offset), data.end - data.begin, data.begin);
		if (n < 0)
			return n;
		left.begin = data.begin + (uint64_t)n;
		if (left.begin != data.end)
			return (ssize_t)(left.begin - offset);
	}
	return (ssize_t)len;
}

/* Pages of 2 MiB of which the file has next to nothing, as before and behind Linux' entry code, are not worth their clearing. */
static void use_small_pages_in_holes(int fd, uint8_t *host, uint64_t len, uint64_t offset)
{
	uint64_t first = (uint64_t)(-(uintptr_t)host % LARGE_PAGE_BYTES), data_bytes;
	struct file_range left, data;

	if (!has_holes(fd))
		return;
	for (uint64_t pos = first; pos < len && len - pos >= LARGE_PAGE_BYTES; pos += LARGE_PAGE_BYTES) {
		data_bytes = 0;
		left = (struct file_range){.begin = offset + pos, .end = offset + pos + LARGE_PAGE_BYTES};
		for (; data_bytes <= SPARSE_BYTES && next_data(fd, left, &data); left.begin = data.end)
			data_bytes += data.end - data.begin;
		if (data_bytes <= SPARSE_BYTES)
			madvise(host + pos, LARGE_PAGE_BYTES, MADV_NOHUGEPAGE);
	}
}

/* Memory of this process's own is not in a file of its own, whose pages follow another policy. */
static bool is_own(const struct gmem *mem)
{
	return gmem_next(mem, NULL)->fd < 0;
}

/* RAM that the guest writes to all over before it runs a program, and that the host so gives in pages of 2 MiB: each page of 4 KiB
 * is an exit when the guest first touches it, thousands for a boot. Where the host cannot or will not, it stays as it was. Memory
 * of this process's own comes so when it is touched, unless the host's policy is "never". For a memory file it mostly is that;
 * MADV_COLLAPSE (Linux 6.1) does not ask for it, but wants to find a page in each 2 MiB, which a look at it leaves there. */
static void use_large_pages(const struct gmem *mem, gpa_t begin, gpa_t end, gpa_t ram_end)
{
	volatile const uint8_t *host;

	begin = align_down(begin, LARGE_PAGE_BYTES);
	end = align_up(end, LARGE_PAGE_BYTES);
	if (end > ram_end)
		end = align_down(ram_end, LARGE_PAGE_BYTES);
	host = begin < end ? gmem_span(mem, begin, end - begin) : NULL;
	if (!host)
		return;
	for (gpa_t offset = 0; offset < end - begin && !is_own(mem); offset += LARGE_PAGE_BYTES)
		(void)host[offset];
	madvise((void *)host, end - begin, is_own(mem) ? MADV_HUGEPAGE : MADV_COLLAPSE);
}

/* Linux takes its first memory from the top down, below the ramdisk that begins at `top`: 64 bytes for each page of 4 KiB there is,
 * and a few MiB more. With memory above 4 GiB it does so there: nothing is done where there is more than one region. */
static void use_large_pages_at_top(const struct gmem *mem, gpa_t kernel_end, gpa_t top, gpa_t ram_end)
{
	uint64_t early = ram_end / 64 + LINUX_EARLY_BYTES;

	if (gmem_next(mem, gmem_next(mem, NULL)) || top - kernel_end < early)
		return;
	use_large_pages(mem, top - early, ram_end, ram_end);
}

/* Where [gpa, gpa + size) is, when all of it is RAM that a kernel may have. */
static int find_room(const struct boot_source *src, gpa_t gpa, uint64_t size, uint8_t **ret, struct error *err)
{
	if (gpa < LAYOUT_KERNEL)
		return error_set_field(
			err, ENOEXEC, BOOT_FIELD_KERNEL, "wants to be loaded below 1 MiB, at %#" PRIx64, gpa);
	if (!range_fits(gpa, size, src->ram_end))
		return error_set_field(err, ENOMEM, BOOT_FIELD_KERNEL,
			"does not fit: it needs %" PRIu64 " MiB at %#" PRIx64
			", and low memory ends at %" PRIu64 " MiB",
			size / MIB + !!(size % MIB), gpa, src->ram_end / MIB);
	*ret = gmem_span(src->mem, gpa, size);
	if (!*ret)
		return error_set_field(err, EFAULT, BOOT_FIELD_KERNEL, "wants memory that is not there");
	return 0;
}

int boot_read_segment(const struct boot_source *src, uint64_t offset, gpa_t gpa, uint64_t len, uint64_t size,
	struct error *err)
{
	uint8_t *host;
	int r = find_room(src, gpa, size, &host, err);

	if (r < 0)
		return r;
	/* Linux allocates from below itself, and from its bss, but not at once all of it: what is a wish only may say so. */
	if (is_own(src->mem)) {
		use_large_pages(src->mem, 0, gpa + size, src->ram_end);
		use_small_pages_in_holes(src->fd, host, len, offset);
	} else {
		use_large_pages(src->mem, gpa, gpa + len, src->ram_end); /* len <= size: it fits */
	}
	return read_whole(read_sparse(src->fd, host, len, offset), len, err);
}

int boot_map_segment(const struct boot_source *src, uint64_t offset, gpa_t gpa, uint64_t len, uint64_t size,
	struct error *err)
{
	uint64_t mapped = align_down(len, PAGE_BYTES);
	uint8_t *host;
	int r = find_room(src, gpa, size, &host, err);

	if (r < 0)
		return r;
	if (!src->may_map || (uintptr_t)host % PAGE_BYTES || offset % PAGE_BYTES || !mapped ||
		mmap(host, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, src->fd, (off_t)offset) == MAP_FAILED)
		return boot_read_segment(src, offset, gpa, len, size, err);
	madvise(host, mapped, MADV_DONTDUMP);
	use_large_pages(src->mem, 0, gpa, src->ram_end);
	return read_whole(pread_full(src->fd, host + mapped, len - mapped, offset + mapped), len - mapped, err);
}

/* The size of the regular file behind `fd`. */
static int file_size(int fd, const char *field, uint64_t *ret, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set_field(err, errno, field, "cannot be read: %s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set_field(err, EINVAL, field, "is not a regular file");
	if (!st.st_size)
		return error_set_field(err, EINVAL, field, "is empty");
	*ret = (uint64_t)st.st_size;
	return 0;
}

static int load_kernel(const struct boot_config *config, const struct gmem *mem, gpa_t ram_end, struct boot_image *ret,
	struct error *err)
{
	struct boot_source src = {.fd = config->kernel_fd, .mem = mem, .ram_end = ram_end, .may_map = config->may_map};
	char magic[SELFMAG];
	int r;

	r = file_size(src.fd, BOOT_FIELD_KERNEL, &src.size_bytes, err);
	if (r < 0)
		return r;
	if (src.size_bytes < sizeof(magic))
		return error_set_field(err, ENOEXEC, BOOT_FIELD_KERNEL, "is too short to be a kernel");
	r = boot_read_file(&src, 0, magic, sizeof(magic), err);
	if (r < 0)
		return r;
	return memcmp(magic, ELFMAG, SELFMAG) ? boot_load_bzimage(&src, ret, err)
					      : boot_load_elf(&src, ret, err);
}

static int load_archive(
	int fd, const char *field, const struct gmem *mem, gpa_t gpa, uint64_t size_bytes, struct error *err)
{
	void *host = gmem_span(mem, gpa, size_bytes);
	ssize_t n;

	if (!host)
		return error_set_field(err, ENOMEM, field, "does not fit into memory");
	n = pread_full(fd, host, size_bytes, 0);
	if (n < 0)
		return error_set_field(err, (int)-n, field, "cannot be read: %s", strerror((int)-n));
	if ((uint64_t)n != size_bytes)
		return error_set_field(err, ENODATA, field, "became shorter while it was read");
	return 0;
}

/* The initrd and the archive behind it, as one ramdisk as high as kernel and memory allow. */
static int load_initrd(const struct boot_config *config, const struct gmem *mem,
	const struct boot_image *image, gpa_t ram_end, struct ramdisk *ret, struct error *err)
{
	const char *field = config->initrd_fd >= 0 ? FIELD_INITRD : FIELD_INITRD_APPEND;
	gpa_t top = ram_end < image->initrd_end_max ? ram_end : image->initrd_end_max;
	uint64_t first = 0, second = 0, gap_end, total;
	struct ramdisk ramdisk = {0};
	int r = 0;

	if (config->initrd_fd >= 0)
		r = file_size(config->initrd_fd, FIELD_INITRD, &first, err);
	if (r >= 0 && config->initrd_append_fd >= 0)
		r = file_size(config->initrd_append_fd, FIELD_INITRD_APPEND, &second, err);
	if (r < 0)
		return r;
	/* A file's size is at most 2^63 - 1, so only the second sum can wrap. */
	gap_end = second ? align_up(first, ARCHIVE_ALIGNMENT) : first;
	if (!checked_add(gap_end, second, &total) || image->end > top || total > top - image->end ||
		align_down(top - total, INITRD_ALIGNMENT) < image->end)
		return error_set_field(err, ENOMEM, field,
			"does not fit: %" PRIu64 " MiB are left between the kernel's end at %" PRIu64
			" MiB and %" PRIu64 " MiB",
			top > image->end ? (top - image->end) / MIB : 0, image->end / MIB, top / MIB);
	ramdisk.gpa = align_down(top - total, INITRD_ALIGNMENT);
	use_large_pages_at_top(mem, image->end, ramdisk.gpa, ram_end);
	if (!total)
		return 0;

	ramdisk.size_bytes = total;
	if (first)
		r = load_archive(config->initrd_fd, FIELD_INITRD, mem, ramdisk.gpa, first, err);
	if (r >= 0 && second)
		r = load_archive(config->initrd_append_fd, FIELD_INITRD_APPEND, mem, ramdisk.gpa + gap_end,
			second, err);
	if (r < 0)
		return r;
	if (gap_end > first)
		memset(gmem_span(mem, ramdisk.gpa + first, gap_end - first), 0, gap_end - first);
	*ret = ramdisk;
	return 0;
}

static int write_cmdline(
	const char *cmdline, const struct boot_image *image, const struct gmem *mem, struct error *err)
{
	size_t len = strlen(cmdline), max = LAYOUT_CMDLINE_MAX - 1;

	if (image->cmdline_max < max)
		max = image->cmdline_max;
	if (len > max)
		return error_set_field(
			err, E2BIG, FIELD_CMDLINE, "has %zu bytes; this kernel takes %zu at most", len, max);
	if (gmem_write(mem, LAYOUT_CMDLINE, cmdline, len + 1) < 0)
		return error_set_field(err, ENOMEM, FIELD_MEMORY, "leaves no room for the command line");
	return 0;
}

static void map_add(struct memory_map *map, gpa_t addr, uint64_t size, uint32_t type)
{
	if (size)
		map->entries[map->n++] = (struct pvh_memory){.addr = addr, .size = size, .type = type};
}

/* RAM as it is, but for the upper part of the first MiB, where the ACPI tables are; of what belongs to a device the kernel
 * learns from that. The first region begins at 0 and reaches beyond LAYOUT_KERNEL: boot_load() has seen to it. */
static void make_memory_map(const struct gmem *mem, struct memory_map *ret)
{
	const struct gmem_region *low = gmem_next(mem, NULL), *next = low;
	bool kvm_pages_listed = false;

	ret->n = 0;
	map_add(ret, 0, LAYOUT_LOW_MEMORY_END, MEMORY_RAM);
	map_add(ret, LAYOUT_LOW_MEMORY_END, LAYOUT_KERNEL - LAYOUT_LOW_MEMORY_END, MEMORY_RESERVED);
	map_add(ret, LAYOUT_KERNEL, low->size_bytes - LAYOUT_KERNEL, MEMORY_RAM);
	while ((next = gmem_next(mem, next))) {
		if (next->kind != GMEM_RAM)
			continue;
		if (!kvm_pages_listed && next->gpa > LAYOUT_IDENTITY_MAP) {
			map_add(ret, LAYOUT_IDENTITY_MAP, KVM_PAGES_BYTES, MEMORY_RESERVED);
			kvm_pages_listed = true;
		}
		map_add(ret, next->gpa, next->size_bytes, MEMORY_RAM);
	}
	if (!kvm_pages_listed)
		map_add(ret, LAYOUT_IDENTITY_MAP, KVM_PAGES_BYTES, MEMORY_RESERVED);
}

/* boot.rst, "The real-mode kernel header" and "64-bit boot protocol". */
static int write_zero_page(const struct boot_image *image, const struct ramdisk *ramdisk,
	const struct memory_map *map, gpa_t rsdp, const struct gmem *mem)
{
	struct boot_params params = {.hdr = image->header, .acpi_rsdp_addr = rsdp};

	params.hdr.type_of_loader = LOADER_TYPE_UNDEFINED;
	params.hdr.setup_data = 0;
	params.hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	/* Both lie below 4 GiB: the low RAM ends before. */
	params.hdr.ramdisk_image = (uint32_t)ramdisk->gpa;
	params.hdr.ramdisk_size = (uint32_t)ramdisk->size_bytes;
	params.e820_entries = (uint8_t)map->n;
	for (uint32_t i = 0; i < map->n; i++)
		params.e820_table[i] = (struct boot_e820_entry){.addr = map->entries[i].addr,
			.size = map->entries[i].size,
			.type = map->entries[i].type};
	return gmem_write(mem, LAYOUT_ZERO_PAGE, &params, sizeof(params));
}

static int write_pvh_info(
	const struct ramdisk *ramdisk, const struct memory_map *map, gpa_t rsdp, const struct gmem *mem)
{
	struct pvh_page page = {
		.info = {.magic = PVH_MAGIC,
			.version = PVH_VERSION,
			.nr_modules = ramdisk->size_bytes ? 1 : 0,
			.modlist_paddr = LAYOUT_PVH_INFO + offsetof(struct pvh_page, module),
			.cmdline_paddr = LAYOUT_CMDLINE,
			.rsdp_paddr = rsdp,
			.memmap_paddr = LAYOUT_PVH_INFO + offsetof(struct pvh_page, memory),
			.memmap_entries = map->n},
		.module = {.paddr = ramdisk->gpa, .size = ramdisk->size_bytes},
	};

	memcpy(page.memory, map->entries, map->n * sizeof(page.memory[0]));
	return gmem_write(mem, LAYOUT_PVH_INFO, &page, sizeof(page));
}

int boot_open_file(const char *path, const char *field, int *ret, struct error *err)
{
	cleanup_close int fd = -1;
	struct stat st;

	*ret = -1;
	if (!path)
		return 0;
	/* O_NONBLOCK: a FIFO is refused below, not waited for. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set_field(err, errno, field, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set_field(
			err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, field, "%s: not a regular file", path);
	*ret = steal_fd(&fd);
	return 0;
}

int boot_load(const struct boot_config *config, const struct gmem *mem, gpa_t rsdp, struct boot_entry *ret,
	struct error *err)
{
	struct boot_image image;
	struct ramdisk ramdisk = {0};
	struct memory_map map;
	const struct gmem_region *low = gmem_next(mem, NULL);
	gpa_t ram_end;
	int r;

	if (!low || low->gpa || low->size_bytes <= LAYOUT_KERNEL)
		return error_set_field(err, ENOMEM, FIELD_MEMORY, "is too small for a kernel");
	ram_end = low->size_bytes;
	if (ram_end > LAYOUT_LOW_RAM_END)
		ram_end = LAYOUT_LOW_RAM_END;

	use_large_pages(mem, 0, LAYOUT_KERNEL, ram_end); /* what is written below, and Linux' own below 1 MiB */
	r = load_kernel(config, mem, ram_end, &image, err);
	if (r < 0)
		return r;
	r = write_cmdline(config->cmdline, &image, mem, err);
	if (r < 0)
		return r;
	r = load_initrd(config, mem, &image, ram_end, &ramdisk, err);
	if (r < 0)
		return r;

	make_memory_map(mem, &map);
	r = image.protocol == BOOT_PVH ? write_pvh_info(&ramdisk, &map, rsdp, mem)
				       : write_zero_page(&image, &ramdisk, &map, rsdp, mem);
	if (r >= 0)
		r = boot_write_tables(image.protocol, mem);
	if (r < 0)
		return error_set_field(err, -r, FIELD_MEMORY, "leaves no room for the boot tables");

	ret->protocol = image.protocol;
	ret->rip = image.entry;
	ret->info = image.protocol == BOOT_PVH ? LAYOUT_PVH_INFO : LAYOUT_ZERO_PAGE;
	return 0;
}
