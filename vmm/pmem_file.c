/* A file as the guest's memory. */
#include "vmm/pmem_file.h"

#include "common/checked.h"
#include "devices/blk_io.h"
#include "vmm/ram.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define FIELD "path_on_host"

/* What KVM maps at once when guest and host addresses agree to it, and what Linux wants of pmem at least. */
#define ALIGN	   UINT64_C(0x200000)
#define PAGE_BYTES 4096u

/* The file in the place of what was reserved, and zeroes behind it. */
static int map(struct pmem_file *file, bool read_only, const char *path, struct error *err)
{
	int prot = PROT_READ | (read_only ? 0 : PROT_WRITE);
	uint64_t file_end = align_up(file->file_bytes, PAGE_BYTES);

	file->host = ram_reserve_addresses(file->size_bytes);
	if (!file->host || mmap(file->host, file_end, prot, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file->fd, 0) == MAP_FAILED)
		return error_set_field(err, errno, FIELD, "%s: cannot be mapped: %s", path, strerror(errno));
	if (file_end < file->size_bytes && mprotect((uint8_t *)file->host + file_end, file->size_bytes - file_end, prot) < 0)
		return error_set_field(err, errno, FIELD, "%s: the space behind it cannot be mapped: %s", path, strerror(errno));
	madvise(file->host, file->size_bytes, MADV_DONTDUMP);
	return 0;
}

static int give_to_guest(struct pmem_file *file, bool read_only, struct error *err)
{
	struct gmem_region region = {
		.size_bytes = file->size_bytes,
		.host = file->host,
		.kind = GMEM_DEVICE,
		.read_only = read_only,
		.fd = -1, /* the zeroes behind it are nobody else's */
	};
	int r = vm_place(file->vm, file->mem, file->size_bytes, ALIGN, &file->gpa, err);

	if (r < 0)
		return error_in_field(err, FIELD);
	region.gpa = file->gpa;
	file->slot = vm_add_slot(file->vm, &region, err);
	if (file->slot < 0)
		return error_in_field(err, FIELD);
	r = gmem_add_region(file->mem, &region);
	if (r < 0)
		return error_set_field(err, -r, FIELD, "the machine has no room for more memory: %s", strerror(-r));
	file->in_gmem = true;
	return 0;
}

struct pmem_file *pmem_file_new(struct vm *vm, struct gmem *mem, const char *path, bool read_only, struct error *err)
{
	cleanup(pmem_file_free_p) struct pmem_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file) {
		error_set_field(err, ENOMEM, FIELD, "%s: out of memory", path);
		return NULL;
	}
	*file = (struct pmem_file){.vm = vm, .mem = mem, .slot = -1};
	file->fd = blk_file_open(path, read_only, &file->file_bytes, err);
	if (file->fd < 0)
		return NULL;
	file->size_bytes = align_up(file->file_bytes, ALIGN);
	r = map(file, read_only, path, err);
	if (r == 0)
		r = give_to_guest(file, read_only, err);
	return r == 0 ? steal_ptr(&file) : NULL;
}

int pmem_file_withdraw(struct pmem_file *file)
{
	int r = file->slot >= 0 ? vm_remove_slot(file->vm, file->slot) : 0;

	if (r < 0)
		return r;
	file->slot = -1;
	if (file->in_gmem)
		gmem_hide(file->mem, file->gpa);
	return 0;
}

void pmem_file_free(struct pmem_file *file)
{
	if (!file)
		return;
	pmem_file_withdraw(file); /* where KVM cannot, its machine is at its end */
	if (file->in_gmem) {
		gmem_hide(file->mem, file->gpa);
		gmem_remove(file->mem, file->gpa);
	}
	if (file->host)
		munmap(file->host, file->size_bytes);
	close_fd(file->fd);
	free(file);
}
