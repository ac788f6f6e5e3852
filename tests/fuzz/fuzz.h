/* What the targets that drive a device share: guest memory that faults beside its regions, and a loop run by hand. */
#ifndef HULL_TESTS_FUZZ_FUZZ_H
#define HULL_TESTS_FUZZ_FUZZ_H

#include "common/loop.h"
#include "devices/gmem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* As assert(), in every build, with what the last call that failed said. */
#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: not so: %s (errno: %s)\n", __FILE__, __LINE__, #condition,   \
				strerror(errno));                                                            \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

/* The entry point; libFuzzer declares none. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Adds `n` regions of `bytes` to `mem`, from `base` on, with a hole as large after each; around them and in the holes is
 * host memory that nobody may touch. Where `base` is. */
static inline uint8_t *fuzz_guest_memory(struct gmem *mem, gpa_t base, uint64_t bytes, unsigned n)
{
	uint8_t *map = mmap(NULL, (2 * n + 1) * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(map != MAP_FAILED);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *region = map + (2 * i + 1) * bytes;

		CHECK(mprotect(region, bytes, PROT_READ | PROT_WRITE) == 0);
		CHECK(gmem_add(mem, base + 2 * i * bytes, bytes, region) == 0);
	}
	return map + bytes;
}

static inline void fuzz_stop(void *ctx)
{
	loop_stop(ctx);
}

static inline void fuzz_again(void *ctx)
{
	loop_post(ctx, fuzz_stop, ctx);
}

/* Lets the loop deal with everything that is ready, twice: what was posted, and what came of it. */
static inline void fuzz_run_loop(struct loop *loop)
{
	loop_post(loop, fuzz_again, loop);
	CHECK(loop_run(loop) == 0);
}

#endif
