/* Which pages of the host's larger ones are in the balloon: a bit for each, in memory that is there where it is used. */
#include "devices/balloon_blocks.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u
#define RUNS_MAX   65536u

static uint64_t end_of(const struct gmem *mem)
{
	uint64_t end = 0;

	for (const struct gmem_region *region = gmem_next(mem, NULL); region; region = gmem_next(mem, region))
		end = region->gpa + region->size_bytes;
	return end;
}

static size_t bytes(const struct balloon_blocks *blocks)
{
	return blocks->n_pages / 8;
}

int balloon_blocks_init(struct balloon_blocks *blocks, const struct gmem *mem, uint64_t block_bytes)
{
	uint64_t n_pages = align_up(end_of(mem), block_bytes) / PAGE_BYTES;
	void *bits = mmap(NULL, n_pages / 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (bits == MAP_FAILED)
		return -errno;
	*blocks = (struct balloon_blocks){bits, n_pages, (uint32_t)(block_bytes / PAGE_BYTES)};
	assert(blocks->block_pages % 64 == 0);
	return 0;
}

void balloon_blocks_done(struct balloon_blocks *blocks)
{
	if (blocks->bits)
		munmap(blocks->bits, bytes(blocks));
	*blocks = (struct balloon_blocks){0};
}

void balloon_blocks_clear(struct balloon_blocks *blocks)
{
	if (blocks->bits)
		madvise(blocks->bits, bytes(blocks), MADV_DONTNEED);
}

static bool is_in(const struct balloon_blocks *blocks, uint64_t pfn)
{
	return blocks->bits[pfn / 64] >> (pfn % 64) & 1;
}

bool balloon_blocks_put(struct balloon_blocks *blocks, uint32_t pfn)
{
	const uint64_t *block;
	uint64_t all = UINT64_MAX;

	if (pfn >= blocks->n_pages || is_in(blocks, pfn))
		return false;
	blocks->bits[pfn / 64] |= UINT64_C(1) << (pfn % 64);
	block = &blocks->bits[align_down(pfn, blocks->block_pages) / 64];
	for (uint32_t i = 0; i < blocks->block_pages / 64; i++)
		all &= block[i];
	return all == UINT64_MAX;
}

void balloon_blocks_take(struct balloon_blocks *blocks, uint32_t pfn)
{
	/* What is not in must not be written either: it would make the host give memory for nothing. */
	if (pfn < blocks->n_pages && is_in(blocks, pfn))
		blocks->bits[pfn / 64] &= ~(UINT64_C(1) << (pfn % 64));
}

/* The run of pages that are in, from `pfn` on; its length, 0 when there is none any more. */
static uint64_t next_run(const struct balloon_blocks *blocks, uint64_t *pfn)
{
	uint64_t end;

	while (*pfn < blocks->n_pages && !is_in(blocks, *pfn))
		*pfn += *pfn % 64 == 0 && !blocks->bits[*pfn / 64] ? 64 : 1;
	for (end = *pfn; end < blocks->n_pages && is_in(blocks, end);)
		end++;
	return end - *pfn;
}

static uint32_t count_runs(const struct balloon_blocks *blocks)
{
	uint32_t n = 0;
	uint64_t pfn = 0, len;

	while (blocks->bits && n < RUNS_MAX && (len = next_run(blocks, &pfn)) > 0) {
		pfn += len;
		n++;
	}
	return n;
}

void balloon_blocks_save(const struct balloon_blocks *blocks, struct state_writer *w)
{
	uint32_t n = count_runs(blocks);
	uint64_t pfn = 0, len;

	state_put_u32(w, n);
	for (; n > 0; n--) {
		len = next_run(blocks, &pfn);
		state_put_u32(w, (uint32_t)pfn);
		state_put_u32(w, (uint32_t)len);
		pfn += len;
	}
}

int balloon_blocks_load(struct balloon_blocks *blocks, struct state_reader *r, struct error *err)
{
	uint32_t n = state_get_u32(r);

	balloon_blocks_clear(blocks);
	if (n > RUNS_MAX)
		return error_set(err, EINVAL, "the saved balloon has %u runs of pages", n);
	for (uint32_t i = 0; i < n && !r->failed; i++) {
		uint64_t pfn = state_get_u32(r), len = state_get_u32(r);

		if (!blocks->bits)
			continue;
		if (!range_fits(pfn, len, blocks->n_pages))
			return error_set(err, EINVAL, "the saved balloon has pages beyond all memory");
		for (; len > 0; len--, pfn++)
			blocks->bits[pfn / 64] |= UINT64_C(1) << (pfn % 64);
	}
	return 0;
}
