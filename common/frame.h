/* Frames, as an exec's client and its machine exchange them (guest-kernel/hull_guest.h): read and written
 * without blocking. Either peer may be hostile: a length is checked before a byte of memory is spent on it. */
#ifndef HULL_COMMON_FRAME_H
#define HULL_COMMON_FRAME_H

#include "common/buf.h"
#include "guest-kernel/hull_guest.h"

#include <stdbool.h>
#include <stdint.h>

struct frame {
	uint8_t type; /* whatever was sent: not all are an enum hull_frame_type */
	uint32_t len;
	const char *data; /* borrowed from the reader until it is used again; followed by a NUL */
};

struct frame_reader {
	uint32_t max; /* bytes of payload */
	struct hull_frame_header header;
	size_t header_have;
	struct buf payload;
	bool complete; /* the frame was handed out */
};

void frame_reader_init(struct frame_reader *reader, uint32_t max);
void frame_reader_done(struct frame_reader *reader);

/* Reads on from `fd`, a non-blocking socket, and never beyond the end of a frame. 1 with `ret` set; 0 when
 * the rest has to come; -ECONNRESET at the end of the stream, wherever it is; -EPROTO for a header that is
 * none, or has more than `max`; -errno. */
int frame_read(struct frame_reader *reader, int fd, struct frame *ret);

/* The same for bytes that come another way: where the next ones belong, and how many there may be, more than
 * 0. 0 or -ENOMEM. */
int frame_want(struct frame_reader *reader, void **ret_at, size_t *ret_len);
/* `n` of them are there: 1 with `ret` set, 0, -EPROTO. */
int frame_got(struct frame_reader *reader, size_t n, struct frame *ret);

/* The frame's payload as one little-endian number. 0, or -EPROTO when it is not four bytes. */
int frame_number(const struct frame *frame, uint32_t *ret);

/* Append a frame to what is to be sent. 0, or as buf_append() with `out` as it was. */
int frame_put(struct buf *out, enum hull_frame_type type, const void *data, uint32_t len);
int frame_put_number(struct buf *out, enum hull_frame_type type, uint32_t number);


#endif
