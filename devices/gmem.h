/* The one door to guest memory: every access by guest-physical address is checked here for bounds and overflow, and every
 * write for a region that is only to be read.
 *
 * Theory of operation. Regions may come, go and be plugged block by block while devices run; lookups take no lock. A region
 * is laid down whole, then published. What goes is hidden first: from then on no lookup finds it, but who found it before
 * may still be at it. So a lookup is made, and what it found is used, on the loop thread, or with the lock held of the device or of
 * the queue group (devices/queue_group.h) whose queue tells of it; and whoever takes memory away, on the loop thread,
 *
 *	gmem_hide(), or gmem_set_blocks(…, false)
 *	  └▶ asks each device, under its lock and its groups', virtio_dev_holds(): its rings, and its requests in flight
 *	       ├▶ none does: the memory is nobody's any more; gmem_remove()
 *	       └▶ one does: gmem_set_blocks(…, true), and the driver is told that it cannot be; a whole region waits, hidden
 *
 * The memory behind a span is the guest's and changes at any instant: copy a structure once, then validate the copy. */
#ifndef HULL_DEVICES_GMEM_H
#define HULL_DEVICES_GMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t; /* a guest-physical address; never cast to a pointer */

#define GMEM_REGIONS_MAX 32

/* A guest-physical address and its host address agree in their low bits, so that what a guest aligns is aligned here:
 * the rings' indices are accessed atomically. */
#define GMEM_ALIGN 16

enum gmem_kind {
	GMEM_RAM,    /* there from the start: the firmware's memory map tells of it */
	GMEM_DEVICE, /* a device tells its driver where it is */
};

struct gmem_region {
	gpa_t gpa;
	uint64_t size_bytes;
	uint8_t *host; /* borrowed: the mapping's owner keeps it alive until it is removed, and longer than every device */
	enum gmem_kind kind;
	bool read_only; /* for devices as for the guest */
	int fd;		/* borrowed: the file of which `host` is a shared mapping; -1: the memory is this process's own */
	uint64_t fd_offset;
	/* A region that is there in part: a bit for each block of `block_bytes`, a power of two, set while it is there. Borrowed
	 * likewise; written by gmem_set_blocks() only. NULL: all is there. */
	uint64_t *blocks;
	uint64_t block_bytes;
	uint8_t state; /* gmem.c's own; atomic */
};

struct gmem {
	struct gmem_region regions[GMEM_REGIONS_MAX]; /* disjoint, in no order: see gmem_next() */
	size_t n_regions; /* that have ever been; atomic */
};

/* Adds and publishes a region; of `region`, `state` is ignored. Loop thread, or before there are others. 0, -EINVAL when it is
 * empty, overlaps, wraps or is not GMEM_ALIGNed with its host memory, -ENOSPC. */
int gmem_add_region(struct gmem *mem, const struct gmem_region *region);
/* The same for RAM, all of it there and writable. */
int gmem_add(struct gmem *mem, gpa_t gpa, uint64_t size_bytes, void *host);
/* The same for RAM that another process can map too: `host` is a shared mapping of `fd` at `fd_offset`. */
int gmem_add_shared(struct gmem *mem, gpa_t gpa, uint64_t size_bytes, void *host, int fd, uint64_t fd_offset);
/* Whether another process can map all RAM. */
bool gmem_is_shared(const struct gmem *mem);

/* All for the loop thread; `gpa` is where a region that was added begins. */
void gmem_hide(struct gmem *mem, gpa_t gpa);
/* Forgets a region that is hidden, once nobody can be at it any more. */
void gmem_remove(struct gmem *mem, gpa_t gpa);
/* Whole blocks of a region that has them are there from now on, or hidden. */
void gmem_set_blocks(struct gmem *mem, gpa_t gpa, uint64_t offset, uint64_t len, bool there);

/* The region that follows `previous` by address, the first for NULL; NULL after the last. Hidden ones are left out. */
const struct gmem_region *gmem_next(const struct gmem *mem, const struct gmem_region *previous);

/* The host address of [gpa, gpa + len) when it lies inside one region, is there and may be written, else NULL. len 0 is a
 * valid, useless span. */
void *gmem_span(const struct gmem *mem, gpa_t gpa, uint64_t len);
/* The same for reading only. */
const void *gmem_view(const struct gmem *mem, gpa_t gpa, uint64_t len);

/* The host address of `gpa`, and in `*ret_len` how many of the `len` bytes from there its region holds (at least one,
 * unless len is 0). NULL when `gpa` is in no region, or what is there may not be written. For a buffer that may cross
 * adjacent regions. */
void *gmem_span_start(const struct gmem *mem, gpa_t gpa, uint64_t len, uint64_t *ret_len);
const void *gmem_view_start(const struct gmem *mem, gpa_t gpa, uint64_t len, uint64_t *ret_len);

/* The way back: where `host` is, which one of the above has returned, or lies in what it has. */
gpa_t gmem_address(const struct gmem *mem, const void *host);

/* Copies, also across adjacent regions. 0 or -EFAULT (then what `dst` holds is unspecified). */
int gmem_read(const struct gmem *mem, gpa_t gpa, void *dst, size_t len);
int gmem_write(const struct gmem *mem, gpa_t gpa, const void *src, size_t len);

#endif
