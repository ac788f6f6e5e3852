/* The bounded byte buffer. */
#include "common/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define FIRST_SIZE 256
#define FILE_CHUNK 65536

void buf_init(struct buf *buf, size_t max)
{
	*buf = (struct buf){.max = max};
}

static void give_back(struct buf *buf)
{
	if (buf->secret && buf->data)
		explicit_bzero(buf->data, buf->size);
	free(buf->data);
}

/* As realloc(), which would leave behind what it moves. */
static char *resize(struct buf *buf, size_t size)
{
	char *data;

	if (!buf->secret)
		return realloc(buf->data, size);
	data = malloc(size);
	if (!data)
		return NULL;
	if (buf->data)
		memcpy(data, buf->data, buf->size);
	give_back(buf);
	return data;
}

void buf_done(struct buf *buf)
{
	give_back(buf);
	*buf = (struct buf){.max = buf->max};
}

int buf_reserve(struct buf *buf, size_t len)
{
	size_t need, size;
	char *data;

	if (len > buf->max || buf->len > buf->max - len)
		return -EMSGSIZE;
	need = buf->len + len + 1; /* the NUL */
	if (need <= buf->size)
		return 0;
	size = buf->size ? buf->size : FIRST_SIZE;
	while (size < need)
		size = size > SIZE_MAX / 2 ? need : size * 2;
	if (size > buf->max && buf->max < SIZE_MAX)
		size = buf->max + 1;
	data = resize(buf, size);
	if (!data)
		return -ENOMEM;
	buf->data = data;
	buf->size = size;
	return 0;
}

int buf_append(struct buf *buf, const void *data, size_t len)
{
	int r = buf_reserve(buf, len);

	if (r < 0)
		return r;
	if (len)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
	return 0;
}

int buf_printf(struct buf *buf, const char *fmt, ...)
{
	va_list args, again;
	int len, r;

	va_start(args, fmt);
	va_copy(again, args);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	r = len < 0 ? -EINVAL : buf_reserve(buf, (size_t)len);
	if (r == 0) {
		vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, again);
		buf->len += (size_t)len;
	}
	va_end(again);
	return r;
}

void buf_consume(struct buf *buf, size_t len)
{
	if (!len)
		return;
	buf->len -= len;
	memmove(buf->data, buf->data + len, buf->len);
	buf->data[buf->len] = '\0';
}

ssize_t buf_read_fd(struct buf *buf, int fd, size_t chunk)
{
	ssize_t got;
	int r;

	if (chunk > buf->max - buf->len)
		chunk = buf->max - buf->len;
	if (!chunk)
		return -EMSGSIZE;
	r = buf_reserve(buf, chunk);
	if (r < 0)
		return r;
	do
		got = read(fd, buf->data + buf->len, chunk);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	buf->len += (size_t)got;
	buf->data[buf->len] = '\0';
	return got;
}

int buf_send(struct buf *buf, int fd)
{
	size_t sent = 0;
	int r = 0;

	while (sent < buf->len && r == 0) {
		ssize_t n = send(fd, buf->data + sent, buf->len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			sent += (size_t)n;
		else if (n < 0 && errno != EINTR)
			r = -errno;
	}
	buf_consume(buf, sent);
	return r == -EAGAIN ? 0 : r;
}

int buf_read_file(struct buf *ret, const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;
	char extra;

	if (fd < 0)
		return -errno;
	do
		got = buf_read_fd(ret, fd, FILE_CHUNK);
	while (got > 0);
	if (got == -EMSGSIZE) /* full: fine when this was the end, too big when there is more */
		got = read(fd, &extra, 1) == 0 ? 0 : -EFBIG;
	return (int)got;
}
