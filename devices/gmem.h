/* The one door to guest memory: every access by guest-physical address is checked here for bounds and overflow.
 *
 * Regions are laid down before the first device is activated and do not change afterwards, so lookups take no lock.
 * The memory behind a span is the guest's and changes at any instant: copy a structure once, then validate the copy. */
#ifndef HULL_DEVICES_GMEM_H
#define HULL_DEVICES_GMEM_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t; /* a guest-physical address; never cast to a pointer */

#define GMEM_REGIONS_MAX 8

/* A guest-physical address and its host address agree in their low bits, so that what a guest aligns is aligned here:
 * the rings' indices are accessed atomically. */
#define GMEM_ALIGN 16

struct gmem_region {
	gpa_t gpa;
	uint64_t size_bytes;
	uint8_t *host; /* borrowed: the mapping's owner keeps it alive longer than every device */
};

struct gmem {
	struct gmem_region regions[GMEM_REGIONS_MAX]; /* ascending, disjoint */
	size_t n_regions;
};

/* 0, -EINVAL when it is empty, overlaps, wraps or is not GMEM_ALIGNed with its host memory, -ENOSPC. */
int gmem_add(struct gmem *mem, gpa_t gpa, uint64_t size_bytes, void *host);

/* The host address of [gpa, gpa + len) when it lies inside one region, else NULL. len 0 is a valid, useless span. */
void *gmem_span(const struct gmem *mem, gpa_t gpa, uint64_t len);

/* The host address of `gpa`, and in `*ret_len` how many of the `len` bytes from there its region holds (at least one,
 * unless len is 0). NULL when `gpa` is in no region. For a buffer that may cross adjacent regions. */
void *gmem_span_start(const struct gmem *mem, gpa_t gpa, uint64_t len, uint64_t *ret_len);

/* Copies, also across adjacent regions. 0 or -EFAULT (then what `dst` holds is unspecified). */
int gmem_read(const struct gmem *mem, gpa_t gpa, void *dst, size_t len);
int gmem_write(const struct gmem *mem, gpa_t gpa, const void *src, size_t len);

#endif
