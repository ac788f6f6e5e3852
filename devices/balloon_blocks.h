/* Where the host's pages are larger than the balloon's: which of a block's 4 KiB pages are in the balloon, as the host can have
 * a block only when all of them are. Under the device's lock. */
#ifndef HULL_DEVICES_BALLOON_BLOCKS_H
#define HULL_DEVICES_BALLOON_BLOCKS_H

#include "common/error.h"
#include "devices/gmem.h"
#include "devices/state.h"

#include <stdbool.h>

struct balloon_blocks {
	uint64_t *bits; /* owned: one for each page, set while it is in the balloon; NULL: nobody asks */
	uint64_t n_pages;
	uint32_t block_pages; /* a multiple of 64 */
};

/* For all of the memory there is by now; nothing is touched. `block_bytes` is a power of two of 256 KiB at least. 0 or -errno. */
int balloon_blocks_init(struct balloon_blocks *blocks, const struct gmem *mem, uint64_t block_bytes);
void balloon_blocks_done(struct balloon_blocks *blocks); /* also of a zeroed one */
/* Nothing is in the balloon. */
void balloon_blocks_clear(struct balloon_blocks *blocks);

/* The page goes in. True when that completes its block; not when it was in already, or is beyond all memory. */
bool balloon_blocks_put(struct balloon_blocks *blocks, uint32_t pfn);
void balloon_blocks_take(struct balloon_blocks *blocks, uint32_t pfn);

/* What is in, as runs of pages: up to a number no honest driver comes near; of the rest the host will not have its blocks. Loading
 * into one without bits forgets them. 0, or -EINVAL with `err` set. */
void balloon_blocks_save(const struct balloon_blocks *blocks, struct state_writer *w);
int balloon_blocks_load(struct balloon_blocks *blocks, struct state_reader *r, struct error *err);

#endif
