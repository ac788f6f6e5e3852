/* A growing byte buffer with a hard upper limit: what a peer sends can fill it, never exhaust memory. */
#ifndef HULL_COMMON_BUF_H
#define HULL_COMMON_BUF_H

#include "common/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct buf {
	char *data; /* owned; NULL while nothing was ever stored; otherwise followed by a NUL that `len` does not count */
	size_t len;
	size_t size;
	size_t max; /* bytes; set by buf_init */
	bool secret; /* set by its owner after buf_init: memory that it gives back is wiped */
};

void buf_init(struct buf *buf, size_t max);
void buf_done(struct buf *buf); /* frees; the buffer may be used again after buf_init() */

/* Each 0, -EMSGSIZE when `max` would be passed (the buffer is then unchanged), -ENOMEM. */
int buf_append(struct buf *buf, const void *data, size_t len);
int buf_printf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for `len` more bytes at data + buf->len; the caller then adds to buf->len what it wrote. */
int buf_reserve(struct buf *buf, size_t len);

/* Drops the first `len` bytes (len <= buf->len). */
void buf_consume(struct buf *buf, size_t len);

/* One read() of up to `chunk` bytes. Bytes read, 0 at the end, -errno (-EAGAIN, -EMSGSIZE at the limit, …). */
ssize_t buf_read_fd(struct buf *buf, int fd, size_t chunk);

/* Sends what the socket takes and drops it from the buffer. 0, also when something is left; -errno. */
int buf_send(struct buf *buf, int fd);

/* The whole of a file. 0, -EFBIG when it has more than `max` bytes, -errno. `ret` must be initialised. */
int buf_read_file(struct buf *ret, const char *path);

#endif
