/* The one door to guest memory: bounds and overflow are checked here, and nowhere else. */
#include "devices/gmem.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A place is written only while it is FREE, and is read only while it is not. */
enum { FREE, LIVE, HIDDEN };

static uint8_t state_of(const struct gmem_region *region)
{
	return __atomic_load_n(&region->state, __ATOMIC_ACQUIRE); /* what it says of the other fields is seen */
}

static void set_state(struct gmem_region *region, uint8_t state)
{
	__atomic_store_n(&region->state, state, __ATOMIC_RELEASE);
}

static size_t count(const struct gmem *mem)
{
	return __atomic_load_n(&mem->n_regions, __ATOMIC_ACQUIRE);
}

static int check_region(const struct gmem *mem, const struct gmem_region *region)
{
	gpa_t end;

	if (region->size_bytes == 0 || !checked_add(region->gpa, region->size_bytes - 1, &end))
		return -EINVAL;
	if ((region->gpa ^ (uintptr_t)region->host) % GMEM_ALIGN)
		return -EINVAL;
	for (size_t i = 0; i < count(mem); i++) {
		const struct gmem_region *other = &mem->regions[i];

		if (state_of(other) != FREE && region->gpa <= other->gpa + (other->size_bytes - 1) && other->gpa <= end)
			return -EINVAL;
	}
	return 0;
}

int gmem_add_region(struct gmem *mem, const struct gmem_region *region)
{
	size_t n = count(mem), at = 0;
	int r = check_region(mem, region);

	if (r < 0)
		return r;
	while (at < n && state_of(&mem->regions[at]) != FREE)
		at++;
	if (at == GMEM_REGIONS_MAX)
		return -ENOSPC;
	mem->regions[at] = *region;
	mem->regions[at].state = FREE;
	set_state(&mem->regions[at], LIVE);
	if (at == n)
		__atomic_store_n(&mem->n_regions, n + 1, __ATOMIC_RELEASE);
	return 0;
}

int gmem_add_shared(struct gmem *mem, gpa_t gpa, uint64_t size_bytes, void *host, int fd, uint64_t fd_offset)
{
	struct gmem_region region = {.gpa = gpa,
		.size_bytes = size_bytes,
		.host = host,
		.kind = GMEM_RAM,
		.fd = fd,
		.fd_offset = fd_offset};

	return gmem_add_region(mem, &region);
}

int gmem_add(struct gmem *mem, gpa_t gpa, uint64_t size_bytes, void *host)
{
	return gmem_add_shared(mem, gpa, size_bytes, host, -1, 0);
}

bool gmem_is_shared(const struct gmem *mem)
{
	const struct gmem_region *region = NULL;

	while ((region = gmem_next(mem, region)))
		if (region->kind == GMEM_RAM && region->fd < 0)
			return false;
	return true;
}

static struct gmem_region *region_at(struct gmem *mem, gpa_t gpa)
{
	size_t i = 0;

	while (i < count(mem) && (state_of(&mem->regions[i]) == FREE || mem->regions[i].gpa != gpa))
		i++;
	assert(i < count(mem)); /* the caller has added it */
	return &mem->regions[i];
}

void gmem_hide(struct gmem *mem, gpa_t gpa)
{
	set_state(region_at(mem, gpa), HIDDEN);
}

void gmem_remove(struct gmem *mem, gpa_t gpa)
{
	struct gmem_region *region = region_at(mem, gpa);

	assert(state_of(region) == HIDDEN);
	set_state(region, FREE);
}

static bool block_is_there(const struct gmem_region *region, uint64_t block)
{
	return __atomic_load_n(&region->blocks[block / 64], __ATOMIC_ACQUIRE) >> (block % 64) & 1;
}

void gmem_set_blocks(struct gmem *mem, gpa_t gpa, uint64_t offset, uint64_t len, bool there)
{
	struct gmem_region *region = region_at(mem, gpa);
	uint64_t first = offset / region->block_bytes, end = (offset + len) / region->block_bytes;

	assert(range_fits(offset, len, region->size_bytes) && (offset | len) % region->block_bytes == 0);
	for (uint64_t block = first; block < end; block++) {
		uint64_t bit = UINT64_C(1) << (block % 64);

		if (there)
			__atomic_fetch_or(&region->blocks[block / 64], bit, __ATOMIC_RELEASE);
		else
			__atomic_fetch_and(&region->blocks[block / 64], ~bit, __ATOMIC_RELEASE);
	}
}

const struct gmem_region *gmem_next(const struct gmem *mem, const struct gmem_region *previous)
{
	const struct gmem_region *next = NULL;

	for (size_t i = 0; i < count(mem); i++) {
		const struct gmem_region *region = &mem->regions[i];

		if (state_of(region) == LIVE && (!previous || region->gpa > previous->gpa) &&
			(!next || region->gpa < next->gpa))
			next = region;
	}
	return next;
}

/* How many of the `len` bytes from `offset` on are there without a gap. */
static uint64_t bytes_there(const struct gmem_region *region, uint64_t offset, uint64_t len)
{
	uint64_t block = offset / region->block_bytes, end = offset + len;

	while (block_is_there(region, block)) {
		block++;
		if (block * region->block_bytes >= end)
			return len;
	}
	return block * region->block_bytes > offset ? block * region->block_bytes - offset : 0;
}

static uint8_t *find(const struct gmem *mem, gpa_t gpa, uint64_t len, bool write, uint64_t *ret_len)
{
	for (size_t i = 0; i < count(mem); i++) {
		const struct gmem_region *r = &mem->regions[i];
		uint64_t offset, n;

		if (state_of(r) != LIVE)
			continue;
		offset = gpa - r->gpa;
		if (gpa < r->gpa || offset >= r->size_bytes)
			continue;
		n = len < r->size_bytes - offset ? len : r->size_bytes - offset;
		if (r->blocks)
			n = bytes_there(r, offset, n);
		if ((write && r->read_only) || (n == 0 && len > 0))
			return NULL;
		*ret_len = n;
		return r->host + offset;
	}
	return NULL;
}

void *gmem_span_start(const struct gmem *mem, gpa_t gpa, uint64_t len, uint64_t *ret_len)
{
	return find(mem, gpa, len, true, ret_len);
}

const void *gmem_view_start(const struct gmem *mem, gpa_t gpa, uint64_t len, uint64_t *ret_len)
{
	return find(mem, gpa, len, false, ret_len);
}

void *gmem_span(const struct gmem *mem, gpa_t gpa, uint64_t len)
{
	uint64_t have;
	void *host = gmem_span_start(mem, gpa, len, &have);

	return host && have == len ? host : NULL;
}

const void *gmem_view(const struct gmem *mem, gpa_t gpa, uint64_t len)
{
	uint64_t have;
	const void *host = gmem_view_start(mem, gpa, len, &have);

	return host && have == len ? host : NULL;
}

gpa_t gmem_address(const struct gmem *mem, const void *host)
{
	for (size_t i = 0; i < count(mem); i++) {
		const struct gmem_region *r = &mem->regions[i];
		uint64_t offset = (uintptr_t)host - (uintptr_t)r->host;

		if (state_of(r) != FREE && offset < r->size_bytes)
			return r->gpa + offset;
	}
	abort(); /* the caller knows that it is there */
}

int gmem_read(const struct gmem *mem, gpa_t gpa, void *dst, size_t len)
{
	uint64_t n;

	for (uint8_t *to = dst; len > 0; to += n, gpa += n, len -= n) {
		const void *host = gmem_view_start(mem, gpa, len, &n);

		if (!host)
			return -EFAULT;
		memcpy(to, host, n);
	}
	/* The caller validates the copy: the compiler must not read the guest's original a second time. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return 0;
}

int gmem_write(const struct gmem *mem, gpa_t gpa, const void *src, size_t len)
{
	uint64_t n;

	for (const uint8_t *from = src; len > 0; from += n, gpa += n, len -= n) {
		void *host = gmem_span_start(mem, gpa, len, &n);

		if (!host)
			return -EFAULT;
		memcpy(host, from, n);
	}
	return 0;
}
