/* Frames of the exec protocol, read and written without blocking. */
#include "common/frame.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

void frame_reader_init(struct frame_reader *reader, uint32_t max)
{
	*reader = (struct frame_reader){.max = max};
	buf_init(&reader->payload, HULL_SPEC_MAX);
}

void frame_reader_done(struct frame_reader *reader)
{
	buf_done(&reader->payload);
}

static void begin_next(struct frame_reader *reader)
{
	if (!reader->complete)
		return;
	reader->complete = false;
	reader->header_have = 0;
	if (reader->header.len > HULL_FRAME_MAX) { /* a SPEC's room is not kept */
		buf_done(&reader->payload);
		buf_init(&reader->payload, HULL_SPEC_MAX);
	}
	reader->payload.len = 0;
}

int frame_want(struct frame_reader *reader, void **ret_at, size_t *ret_len)
{
	size_t header_left;
	int r;

	begin_next(reader);
	header_left = sizeof reader->header - reader->header_have;
	if (header_left) {
		*ret_at = (char *)&reader->header + reader->header_have;
		*ret_len = header_left;
		return 0;
	}
	*ret_len = reader->header.len - reader->payload.len;
	r = buf_reserve(&reader->payload, *ret_len);
	*ret_at = reader->payload.data + reader->payload.len;
	return r;
}

static bool header_is_sound(struct frame_reader *reader)
{
	static const uint8_t zero[sizeof reader->header.zero];

	reader->header.len = le32toh(reader->header.len);
	return reader->header.len <= reader->max && memcmp(reader->header.zero, zero, sizeof zero) == 0;
}

int frame_got(struct frame_reader *reader, size_t n, struct frame *ret)
{
	if (reader->header_have < sizeof reader->header) {
		reader->header_have += n;
		if (reader->header_have < sizeof reader->header)
			return 0;
		if (!header_is_sound(reader))
			return -EPROTO;
	} else {
		reader->payload.len += n;
	}
	if (reader->payload.len < reader->header.len)
		return 0;
	if (reader->payload.data)
		reader->payload.data[reader->payload.len] = '\0';
	reader->complete = true;
	*ret = (struct frame){reader->header.type, reader->header.len, reader->payload.data ? reader->payload.data : ""};
	return 1;
}

int frame_read(struct frame_reader *reader, int fd, struct frame *ret)
{
	size_t len;
	void *at;
	int r = 0;

	while (r == 0) {
		ssize_t n;

		r = frame_want(reader, &at, &len);
		n = r == 0 ? recv(fd, at, len, MSG_DONTWAIT) : 0;
		if (r < 0 || (n < 0 && errno == EINTR))
			continue;
		if (n <= 0)
			return n == 0 ? -ECONNRESET : errno == EAGAIN ? 0 : -errno;
		r = frame_got(reader, (size_t)n, ret);
	}
	return r;
}

int frame_number(const struct frame *frame, uint32_t *ret)
{
	uint32_t number;

	if (frame->len != sizeof number)
		return -EPROTO;
	memcpy(&number, frame->data, sizeof number);
	*ret = le32toh(number);
	return 0;
}

int frame_put(struct buf *out, enum hull_frame_type type, const void *data, uint32_t len)
{
	struct hull_frame_header header = {.len = htole32(len), .type = (uint8_t)type};
	int r = buf_reserve(out, sizeof header + len); /* both or none */

	if (r == 0)
		r = buf_append(out, &header, sizeof header);
	return r == 0 && len ? buf_append(out, data, len) : r;
}

int frame_put_number(struct buf *out, enum hull_frame_type type, uint32_t number)
{
	uint32_t wire = htole32(number);

	return frame_put(out, type, &wire, sizeof wire);
}
