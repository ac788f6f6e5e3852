/* A ring of bytes between a guest that sends and a host that does not read yet. */
#include "devices/vsock_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void vsock_queue_init(struct vsock_queue *queue, uint32_t capacity)
{
	*queue = (struct vsock_queue){.capacity = capacity};
}

void vsock_queue_done(struct vsock_queue *queue)
{
	free(queue->data);
	queue->data = NULL;
	queue->start = queue->len = 0;
}

static void put_flat(struct vsock_queue *queue, const uint8_t *data, uint32_t len)
{
	uint32_t end = (queue->start + queue->len) % queue->capacity;
	uint32_t first = len < queue->capacity - end ? len : queue->capacity - end;

	memcpy(queue->data + end, data, first);
	memcpy(queue->data, data + first, len - first);
	queue->len += len;
}

int vsock_queue_put(struct vsock_queue *queue, const struct iovec *iov, uint32_t offset, uint32_t len)
{
	if (len > queue->capacity - queue->len)
		return -EMSGSIZE;
	if (!len)
		return 0;
	if (!queue->data) {
		queue->data = malloc(queue->capacity);
		if (!queue->data)
			return -ENOMEM;
	}
	for (; len; iov++) {
		size_t part;

		if (offset >= iov->iov_len) {
			offset -= (uint32_t)iov->iov_len;
			continue;
		}
		part = iov->iov_len - offset < len ? iov->iov_len - offset : len;
		put_flat(queue, (const uint8_t *)iov->iov_base + offset, (uint32_t)part);
		len -= (uint32_t)part;
		offset = 0;
	}
	return 0;
}

int vsock_queue_peek(const struct vsock_queue *queue, struct iovec ret[2])
{
	uint32_t first = queue->capacity - queue->start;

	if (!queue->len)
		return 0;
	ret[0] = (struct iovec){queue->data + queue->start, queue->len < first ? queue->len : first};
	if (queue->len <= first)
		return 1;
	ret[1] = (struct iovec){queue->data, queue->len - first};
	return 2;
}

void vsock_queue_drop(struct vsock_queue *queue, uint32_t len)
{
	assert(len <= queue->len);
	queue->len -= len;
	queue->start = (queue->start + len) % queue->capacity;
	if (!queue->len)
		vsock_queue_done(queue);
}
