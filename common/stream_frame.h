/* Ethernet frames over a stream socket, as QEMU and passt speak it: each behind its length.
 *
 *	+----------------+---------------------+----------------+----
 *	| length (be32)  | length bytes, frame | length (be32)  | …
 *	+----------------+---------------------+----------------+----
 *
 * Once the peer has announced a length there is no way to skip to the next frame but to believe it. A length that no frame has is
 * therefore the end of the link. */
#ifndef HULL_COMMON_STREAM_FRAME_H
#define HULL_COMMON_STREAM_FRAME_H

#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define STREAM_FRAME_LENGTH_BYTES 4

/* How long the frame is that `data`, of which `have` bytes have come, begins with, behind its length, if all of it is there: 1 to `max`; 0
 * when more must be read; -EPROTO for a length that none has. */
static inline ssize_t stream_frame_next(const uint8_t *data, size_t have, uint32_t max)
{
	uint32_t length;

	if (have < STREAM_FRAME_LENGTH_BYTES)
		return 0;
	memcpy(&length, data, STREAM_FRAME_LENGTH_BYTES);
	length = be32toh(length);
	if (length < 1 || length > max)
		return -EPROTO;
	return have - STREAM_FRAME_LENGTH_BYTES >= length ? (ssize_t)length : 0;
}

#endif
