/* Frames and greetings of a session with the emulated host: see session.h. */
#include "tools/session.h"

#include "common/io.h"

#include <arpa/inet.h>
#include <poll.h>
#include <string.h>

#define HEADER_SIZE 5

/* As write_full, for a descriptor that does not block. */
static int write_patiently(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t put = write(fd, data, len);

		if (put > 0) {
			data += put;
			len -= (size_t)put;
		} else if (put < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
		} else if (put < 0 && errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

int session_send(int fd, enum session_frame type, const void *payload, size_t len)
{
	char frame[HEADER_SIZE + 4096];
	uint32_t length = htonl((uint32_t)len);
	size_t first = len < 4096 ? len : 4096;
	int r;

	frame[0] = (char)type;
	memcpy(frame + 1, &length, sizeof(length));
	if (first)
		memcpy(frame + HEADER_SIZE, payload, first);
	r = write_patiently(fd, frame, HEADER_SIZE + first);
	return r < 0 ? r : write_patiently(fd, (const char *)payload + first, len - first);
}

int session_peek(const struct buf *buf, char *type, const char **payload, size_t *len, size_t *size)
{
	uint32_t length;

	if (buf->len < HEADER_SIZE)
		return 0;
	memcpy(&length, buf->data + 1, sizeof(length));
	length = ntohl(length);
	if (length > SESSION_PAYLOAD_MAX)
		return -EPROTO;
	if (buf->len - HEADER_SIZE < length)
		return 0;
	*type = buf->data[0];
	*payload = buf->data + HEADER_SIZE;
	*len = length;
	*size = HEADER_SIZE + length;
	return 1;
}

int session_skip_to_greeting(struct buf *buf, const char *nonce, char ret_nonce[SESSION_NONCE_SIZE])
{
	const size_t whole = SESSION_GREETING_SIZE + SESSION_NONCE_SIZE;

	while (buf->len >= whole) {
		const char *at = memmem(buf->data, buf->len, SESSION_GREETING, SESSION_GREETING_SIZE);

		if (!at) {
			buf_consume(buf, buf->len - (SESSION_GREETING_SIZE - 1));
			return 0;
		}
		buf_consume(buf, (size_t)(at - buf->data));
		if (buf->len < whole)
			return 0;
		if (!nonce || memcmp(buf->data + SESSION_GREETING_SIZE, nonce, SESSION_NONCE_SIZE) == 0) {
			memcpy(ret_nonce, buf->data + SESSION_GREETING_SIZE, SESSION_NONCE_SIZE);
			buf_consume(buf, whole);
			return 1;
		}
		buf_consume(buf, 1);
	}
	return 0;
}
