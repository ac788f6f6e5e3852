/* Guest RAM of kind `shared`: one memfd, mapped once, laid out below and above the device hole
 * (vmm/layout.h). */
#ifndef HULL_VMM_RAM_H
#define HULL_VMM_RAM_H

#include "common/error.h"
#include "devices/gmem.h"

enum ram_pages { RAM_PAGES_NORMAL, RAM_PAGES_TRANSPARENT_HUGE, RAM_PAGES_2M };

struct ram {
	struct gmem mem; /* the regions, at their guest-physical addresses */
	int fd;          /* owned: the memfd, for whoever shall share the memory */
	void *host;      /* owned: the mapping */
	uint64_t size_bytes;
};

/* `size_bytes` is a multiple of the page size. Nothing is touched: the host gives pages as the guest uses
 * them. 0, or -errno with `err` set (no field) and `ret` as ram_done() leaves it. */
int ram_init(struct ram *ret, uint64_t size_bytes, enum ram_pages pages, struct error *err);
void ram_done(struct ram *ram);

#endif
