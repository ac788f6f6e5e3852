/* The one door to guest memory: bounds and overflow are checked here, and nowhere else. */
#include "devices/gmem.h"

#include "common/checked.h"

#include <errno.h>
#include <string.h>

int gmem_add(struct gmem *mem, gpa_t gpa, uint64_t size_bytes, void *host)
{
	size_t at = mem->n_regions;
	gpa_t end;

	if (size_bytes == 0 || !checked_add(gpa, size_bytes - 1, &end))
		return -EINVAL;
	if ((gpa ^ (uintptr_t)host) % GMEM_ALIGN)
		return -EINVAL;
	for (size_t i = mem->n_regions; i-- > 0;) {
		const struct gmem_region *r = &mem->regions[i];

		if (gpa <= r->gpa + (r->size_bytes - 1) && r->gpa <= end)
			return -EINVAL;
		if (gpa < r->gpa)
			at = i;
	}
	if (mem->n_regions == GMEM_REGIONS_MAX)
		return -ENOSPC;
	memmove(&mem->regions[at + 1], &mem->regions[at], (mem->n_regions - at) * sizeof(mem->regions[0]));
	mem->regions[at] = (struct gmem_region){.gpa = gpa, .size_bytes = size_bytes, .host = host};
	mem->n_regions++;
	return 0;
}

void *gmem_span_start(const struct gmem *mem, gpa_t gpa, uint64_t len, uint64_t *ret_len)
{
	for (size_t i = 0; i < mem->n_regions; i++) {
		const struct gmem_region *r = &mem->regions[i];
		uint64_t offset = gpa - r->gpa;

		if (gpa < r->gpa || offset >= r->size_bytes)
			continue;
		*ret_len = len < r->size_bytes - offset ? len : r->size_bytes - offset;
		return r->host + offset;
	}
	return NULL;
}

void *gmem_span(const struct gmem *mem, gpa_t gpa, uint64_t len)
{
	uint64_t have;
	void *host = gmem_span_start(mem, gpa, len, &have);

	return host && have == len ? host : NULL;
}

int gmem_read(const struct gmem *mem, gpa_t gpa, void *dst, size_t len)
{
	uint64_t n;

	for (uint8_t *to = dst; len > 0; to += n, gpa += n, len -= n) {
		const void *host = gmem_span_start(mem, gpa, len, &n);

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
