/* What the guest sent and the host has not taken yet: a ring of bytes that never holds more than was
 * advertised. */
#ifndef HULL_DEVICES_VSOCK_QUEUE_H
#define HULL_DEVICES_VSOCK_QUEUE_H

#include <stdint.h>
#include <sys/uio.h>

struct vsock_queue {
	uint8_t *data; /* owned; NULL while nothing is held: an idle connection costs no memory */
	uint32_t capacity;
	uint32_t start, len;
};

void vsock_queue_init(struct vsock_queue *queue, uint32_t capacity);
void vsock_queue_done(struct vsock_queue *queue);

/* Copies `len` bytes, `offset` bytes into `iov`. 0, -EMSGSIZE when they do not fit (nothing is taken),
 * -ENOMEM. The caller knows that iov holds offset + len bytes. */
int vsock_queue_put(struct vsock_queue *queue, const struct iovec *iov, uint32_t offset, uint32_t len);
/* The bytes held, in order, as at most two pieces: how many. */
int vsock_queue_peek(const struct vsock_queue *queue, struct iovec ret[2]);
/* Drops the first `len` bytes (len <= queue->len). */
void vsock_queue_drop(struct vsock_queue *queue, uint32_t len);

#endif
