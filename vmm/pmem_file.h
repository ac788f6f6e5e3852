/* A file as the guest's memory: mapped, placed above RAM, in a memory slot of KVM's, and within reach of devices. It can come and
 * go while the machine runs. Loop thread.
 *
 *	0                                  file_bytes         size_bytes, a multiple of 2 MiB
 *	├──────── the file, shared ────────────┤── zeroes ──────────┤
 *	                                        what is written here is lost at the end */
#ifndef HULL_VMM_PMEM_FILE_H
#define HULL_VMM_PMEM_FILE_H

#include "common/cleanup.h"
#include "common/error.h"
#include "devices/gmem.h"

struct vm;

struct pmem_file {
	struct vm *vm; /* borrowed, as is mem */
	struct gmem *mem;
	int fd; /* owned, as all that follows: locked against writers, or other users */
	uint64_t file_bytes, size_bytes;
	void *host;
	gpa_t gpa;
	int slot; /* -1: none */
	bool in_gmem;
};

/* Opens `path` and gives it to the guest, which may only read it with `read_only`. NULL with `err` set (field "path_on_host"),
 * and nothing has changed. */
struct pmem_file *pmem_file_new(struct vm *vm, struct gmem *mem, const char *path, bool read_only, struct error *err);

/* Takes it away from the guest, and from devices for all they begin from now on. Its device must be gone. 0, or -errno: KVM
 * cannot do it now. */
int pmem_file_withdraw(struct pmem_file *file);
/* Once it is withdrawn and no device holds any of [host, host + size_bytes) (virtio_dev_holds()); or all devices and vCPUs are gone.
 * NULL is fine. */
void pmem_file_free(struct pmem_file *file);
DEFINE_CLEANUP(struct pmem_file *, pmem_file_free)

#endif
