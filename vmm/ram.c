/* Guest RAM: the memfd and its mapping. */
#include "vmm/ram.h"

#include "common/cleanup.h"
#include "vmm/layout.h"

#include <errno.h>
#include <linux/memfd.h>
#include <sys/mman.h>

static int map(struct ram *ram, enum ram_pages pages, struct error *err)
{
	unsigned huge = pages == RAM_PAGES_2M ? MFD_HUGETLB | MFD_HUGE_2MB : 0;
	unsigned long long mib = ram->size_bytes >> 20;

	ram->fd = memfd_create("guest-ram", MFD_CLOEXEC | huge);
	if (ram->fd < 0)
		return error_set_errno(
			err, errno, "the host gives no memory file%s", huge ? " of 2 MiB pages" : "");
	if (ftruncate(ram->fd, (off_t)ram->size_bytes) < 0)
		return error_set_errno(err, errno, "the host cannot make a memory file of %llu MiB", mib);
	/* Guest memory is not the host's promise: without NORESERVE a big, mostly unused machine could not
	 * start. 2 MiB pages are reserved all the same, as a guest that runs out of them later would be
	 * killed. */
	ram->host = mmap(NULL, ram->size_bytes, PROT_READ | PROT_WRITE,
		MAP_SHARED | (huge ? 0 : MAP_NORESERVE), ram->fd, 0);
	if (ram->host == MAP_FAILED) {
		ram->host = NULL;
		return error_set_errno(
			err, errno, "the host cannot map %llu MiB%s", mib, huge ? " in 2 MiB pages" : "");
	}
	/* Where the host's policy for shared memory is "never", this has no effect, which is as documented. */
	if (pages == RAM_PAGES_TRANSPARENT_HUGE)
		madvise(ram->host, ram->size_bytes, MADV_HUGEPAGE);
	/* A core dump of the monitor is no place for its guest's secrets. */
	madvise(ram->host, ram->size_bytes, MADV_DONTDUMP);
	return 0;
}

int ram_init(struct ram *ret, uint64_t size_bytes, enum ram_pages pages, struct error *err)
{
	struct ram ram = {.fd = -1, .size_bytes = size_bytes};
	uint64_t low = size_bytes < LAYOUT_LOW_RAM_END ? size_bytes : LAYOUT_LOW_RAM_END;
	int r = map(&ram, pages, err);

	if (r == 0) {
		r = gmem_add(&ram.mem, 0, low, ram.host);
		if (r == 0 && low < size_bytes)
			r = gmem_add(&ram.mem, LAYOUT_HIGH_RAM, size_bytes - low, (uint8_t *)ram.host + low);
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
	close_fd(ram->fd);
	*ram = (struct ram){.fd = -1};
}
