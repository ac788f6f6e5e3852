/* What the targets that are a client or a machine of the agent's share: frames that come in pieces. */
#ifndef HULL_TESTS_FUZZ_FRAMES_H
#define HULL_TESTS_FUZZ_FRAMES_H

#include "tests/fuzz/fuzz.h"

#include "common/frame.h"

#include <string.h>

/* How long pieces are, by what an input says: many are small, but not of what is long. */
static inline size_t fuzz_piece(uint8_t said, size_t len)
{
	return said ? said + len / 16 : len;
}

/* Is an honest one served now? After some of the hostile. */
static inline bool fuzz_honest_turn(void)
{
	static unsigned turn;

	return turn++ % 16 == 0;
}

/* 0 while there may be more; else why it ended. */
typedef int (*fuzz_frame_fn)(void *ctx, const struct frame *frame);

/* Hears `data` in pieces of at most `piece` bytes. What `fn` ended it with, -errno when it is none of frames, or 0. */
static inline int fuzz_hear(const uint8_t *data, size_t len, size_t piece, fuzz_frame_fn fn, void *ctx)
{
	struct frame_reader reader;
	struct frame frame;
	int end = 0;

	frame_reader_init(&reader, HULL_FRAME_MAX);
	while (len && end == 0) {
		size_t want;
		void *at;

		CHECK(frame_want(&reader, &at, &want) == 0 && want > 0 && want <= HULL_FRAME_MAX);
		want = want < piece ? want : piece;
		want = want < len ? want : len;
		memcpy(at, data, want);
		data += want;
		len -= want;
		end = frame_got(&reader, want, &frame);
		if (end > 0) {
			CHECK(frame.len <= HULL_FRAME_MAX && frame.data[frame.len] == '\0');
			end = fn(ctx, &frame);
		}
	}
	frame_reader_done(&reader);
	return end;
}

#endif
