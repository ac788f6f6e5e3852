/* Guest RAM: its mapping, and how pages go back to the host. */
#include "vmm/ram.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "vmm/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE_BYTES	4096u
#define HUGE_PAGE_BYTES (2u << 20)

/* Guest memory is not the host's promise: without NORESERVE a big, mostly unused machine could not start. 2 MiB pages are
 * reserved all the same, as a guest that runs out of them later would be killed. */
static int reserve_flag(const struct ram *ram)
{
	return ram->page_bytes == HUGE_PAGE_BYTES ? 0 : MAP_NORESERVE;
}

static int open_shared(struct ram *ram, struct error *err)
{
	bool huge = ram->page_bytes == HUGE_PAGE_BYTES;

	ram->fd = memfd_create("guest-ram", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	if (ram->fd < 0)
		return error_set_errno(
			err, errno, "the host gives no memory file%s", huge ? " of 2 MiB pages" : "");
	if (ftruncate(ram->fd, (off_t)(ram->plug_fd_offset + ram->plug_bytes)) < 0)
		return error_set_errno(err, errno, "the host cannot make a memory file of %llu MiB",
			(unsigned long long)(ram->size_bytes + ram->plug_bytes) >> 20);
	return MAP_SHARED;
}

/* A base that ends early would end the monitor with a SIGBUS. */
static int check_base(const struct ram *ram, int base_fd, struct error *err)
{
	struct stat base;

	if (fstat(base_fd, &base) < 0)
		return error_set_errno(err, errno, "what the memory is to be a copy of cannot be examined");
	if (base.st_size < 0 || (uint64_t)base.st_size < ram->size_bytes)
		return error_set(err, EINVAL, "what the memory is to be a copy of has %lld bytes, not %llu",
			(long long)base.st_size, (unsigned long long)ram->size_bytes);
	return MAP_PRIVATE;
}

/* The flags to map it with, or -errno with `err` set. */
static int open_memory(struct ram *ram, int base_fd, struct error *err)
{
	bool huge = ram->page_bytes == HUGE_PAGE_BYTES;

	if (ram->kind == RAM_SHARED)
		return open_shared(ram, err);
	if (base_fd >= 0)
		return check_base(ram, base_fd, err);
	return MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB | MAP_HUGE_2MB : 0);
}

void *ram_reserve_addresses(uint64_t size_bytes)
{
	uint8_t *at = mmap(NULL, size_bytes + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before;

	if (at == MAP_FAILED)
		return NULL;
	before = align_up((uintptr_t)at, HUGE_PAGE_BYTES) - (uintptr_t)at;
	if (before)
		munmap(at, before);
	munmap(at + before + size_bytes, HUGE_PAGE_BYTES - before);
	return at + before;
}

/* Guest memory at a multiple of 2 MiB, so that KVM and the processor map with one entry what the host backs with one page of that
 * size. NULL with errno set. */
static void *map_area(const struct ram_config *config, uint64_t size_bytes, int prot, int flags, int fd, uint64_t fd_offset)
{
	void *host = ram_reserve_addresses(size_bytes);
	int errnum;

	if (!host)
		return NULL;
	if (mmap(host, size_bytes, prot, flags | MAP_FIXED, fd, (off_t)fd_offset) == MAP_FAILED) {
		errnum = errno;
		munmap(host, size_bytes);
		errno = errnum;
		return NULL;
	}
	/* Where the host's policy is "never", which for shared memory it is by default, this has no effect, as documented. */
	if (config->pages == RAM_PAGES_TRANSPARENT_HUGE)
		madvise(host, size_bytes, MADV_HUGEPAGE);
	/* A core dump of the monitor is no place for its guest's secrets. */
	madvise(host, size_bytes, MADV_DONTDUMP);
	return host;
}

static int map(struct ram *ram, const struct ram_config *config, struct error *err)
{
	int flags = open_memory(ram, config->base_fd, err);

	if (flags < 0)
		return flags;
	ram->host = map_area(config, ram->size_bytes, PROT_READ | PROT_WRITE, flags | reserve_flag(ram),
		ram->kind == RAM_SHARED ? ram->fd : config->base_fd, 0);
	if (!ram->host)
		return error_set_errno(err, errno, "the host cannot map %llu MiB%s", (unsigned long long)ram->size_bytes >> 20,
			ram->page_bytes == HUGE_PAGE_BYTES ? " in 2 MiB pages" : "");
	return 0;
}

/* Whoever saves the memory has to know where its base has data. */
static int keep_base(struct ram *ram, const struct ram_config *config, struct error *err)
{
	if (ram->kind != RAM_COW || config->base_fd < 0)
		return 0;
	ram->base_fd = fcntl(config->base_fd, F_DUPFD_CLOEXEC, 0);
	return ram->base_fd < 0 ? error_set_errno(err, errno, "what the memory is to be a copy of cannot be kept open") : 0;
}

/* What is plugged later takes nothing yet, 2 MiB pages neither. */
static int map_plug(struct ram *ram, const struct ram_config *config, struct error *err)
{
	bool huge = ram->page_bytes == HUGE_PAGE_BYTES;
	int flags = ram->kind == RAM_SHARED ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB | MAP_HUGE_2MB : 0);

	if (!ram->plug_bytes)
		return 0;
	ram->plug_host = map_area(config, ram->plug_bytes, PROT_NONE, flags | MAP_NORESERVE, ram->fd, ram->plug_fd_offset);
	if (!ram->plug_host)
		return error_set_errno(err, errno, "the host cannot map %llu MiB to be plugged",
			(unsigned long long)ram->plug_bytes >> 20);
	return 0;
}

uint64_t ram_plug_fd_offset(uint64_t size_bytes)
{
	return align_up(size_bytes, HUGE_PAGE_BYTES);
}

int ram_init(struct ram *ret, const struct ram_config *config, struct error *err)
{
	struct ram ram = {
		.fd = -1,
		.kind = config->kind,
		.size_bytes = config->size_bytes,
		.page_bytes = config->pages == RAM_PAGES_2M ? HUGE_PAGE_BYTES : PAGE_BYTES,
		.plug_bytes = config->plug_bytes,
		.plug_fd_offset = ram_plug_fd_offset(config->size_bytes),
		.base_fd = -1,
	};
	uint64_t low = ram.size_bytes < LAYOUT_LOW_RAM_END ? ram.size_bytes : LAYOUT_LOW_RAM_END;
	int r = keep_base(&ram, config, err);

	if (r == 0)
		r = map(&ram, config, err);
	if (r == 0)
		r = map_plug(&ram, config, err);
	if (r == 0) {
		r = gmem_add_shared(&ram.mem, 0, low, ram.host, ram.fd, 0);
		if (r == 0 && low < ram.size_bytes)
			r = gmem_add_shared(&ram.mem, LAYOUT_HIGH_RAM, ram.size_bytes - low, (uint8_t *)ram.host + low,
				ram.fd, low);
		if (r < 0)
			error_set_errno(err, -r, "guest memory cannot be laid out");
	}
	if (r < 0)
		ram_done(&ram);
	*ret = ram;
	return r;
}

void ram_done(struct ram *ram)
{
	if (ram->host)
		munmap(ram->host, ram->size_bytes);
	if (ram->plug_host)
		munmap(ram->plug_host, ram->plug_bytes);
	close_fd(ram->fd);
	close_fd(ram->base_fd);
	*ram = (struct ram){.fd = -1, .base_fd = -1};
}

/* Whole pages of the area at `base`, which begins in the memory file at `fd_offset`. */
static int give_back(const struct ram *ram, uint8_t *base, uint64_t fd_offset, uint64_t offset, uint64_t len)
{
	uint64_t start = align_up(offset, ram->page_bytes), end = align_down(offset + len, ram->page_bytes);
	int r;

	if (start >= end)
		return 0;
	if (ram->kind == RAM_SHARED)
		r = fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(fd_offset + start),
			(off_t)(end - start));
	else
		r = madvise(base + start, end - start, MADV_DONTNEED);
	return r < 0 ? -errno : 0;
}

/* `len` bytes of one region. The mapping stays, so a pointer to what goes stays good; and a page that the kernel is writing
 * to at this instant, for a disk or by vhost, lives until it is done and is then nobody's. A guest that gives back what it
 * waits for loses the data, which is its own. */
static int discard_span(const struct ram *ram, const uint8_t *host, uint64_t len)
{
	uint64_t offset = (uintptr_t)host - (uintptr_t)ram->host;
	uint64_t plug_offset = (uintptr_t)host - (uintptr_t)ram->plug_host;

	if (range_fits(offset, len, ram->size_bytes))
		return give_back(ram, ram->host, 0, offset, len);
	if (range_fits(plug_offset, len, ram->plug_bytes))
		return give_back(ram, ram->plug_host, ram->plug_fd_offset, plug_offset, len);
	return -EFAULT; /* memory of another owner */
}

int ram_discard(const struct ram *ram, gpa_t gpa, uint64_t len)
{
	uint64_t n;
	int result = 0, r;

	for (; len > 0; gpa += n, len -= n) {
		const uint8_t *host = gmem_span_start(&ram->mem, gpa, len, &n);

		if (!host)
			return -EFAULT;
		r = discard_span(ram, host, n);
		if (r < 0)
			result = r;
	}
	return result;
}

int ram_plug(struct ram *ram, uint64_t offset, uint64_t len)
{
	uint8_t *host = ram->plug_host + offset;

	/* It is one more piece among the process's mappings, of which there can be so many. */
	if (mprotect(host, len, PROT_READ | PROT_WRITE) < 0)
		return -errno;
	/* 2 MiB pages that are not there when the guest wants them would be its end. */
	if (ram->page_bytes == HUGE_PAGE_BYTES && madvise(host, len, MADV_POPULATE_WRITE) < 0) {
		ram_unplug(ram, offset, len);
		return -ENOMEM;
	}
	return 0;
}

int ram_unplug(struct ram *ram, uint64_t offset, uint64_t len)
{
	uint8_t *host = ram->plug_host + offset;
	int r;

	if (mprotect(host, len, PROT_NONE) < 0) {
		r = -errno;
		mprotect(host, len, PROT_READ | PROT_WRITE); /* should it have come halfway */
		return r;
	}
	return give_back(ram, ram->plug_host, ram->plug_fd_offset, offset, len) < 0;
}
