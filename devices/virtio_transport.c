/* Doorbells, and the registers that both transports have. */
#include "devices/virtio_transport.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_doorbell(void *ctx, uint32_t epoll_events)
{
	struct virtio_doorbell *bell = ctx;

	(void)epoll_events;
	virtio_dev_doorbell(bell->dev, bell->queue);
}

int virtio_doorbells_init(struct virtio_doorbells *doorbells, struct virtio_dev *dev, struct loop *loop)
{
	*doorbells = (struct virtio_doorbells){0};
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++)
		doorbells->items[q] = (struct virtio_doorbell){.dev = dev, .queue = q, .fd = -1};
	for (uint16_t q = 0; q < dev->ops->n_queues; q++) {
		struct virtio_doorbell *bell = &doorbells->items[q];

		bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (bell->fd < 0)
			return -errno;
		bell->source = loop_add_fd(loop, bell->fd, EPOLLIN | EPOLLET, on_doorbell, bell);
		if (!bell->source)
			return -errno;
	}
	return 0;
}

void virtio_doorbells_silence(struct virtio_doorbells *doorbells)
{
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		loop_remove(doorbells->items[q].source);
		doorbells->items[q].source = NULL;
	}
}

void virtio_doorbells_done(struct virtio_doorbells *doorbells)
{
	virtio_doorbells_silence(doorbells);
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		if (doorbells->items[q].dev)
			close_fd(doorbells->items[q].fd);
		doorbells->items[q] = (struct virtio_doorbell){.fd = -1};
	}
}

void virtio_doorbells_listen(struct virtio_doorbells *doorbells, uint16_t q, bool listen)
{
	loop_set_events(doorbells->items[q].source, listen ? EPOLLIN | EPOLLET : 0);
}

void virtio_doorbells_ring(const struct virtio_doorbells *doorbells, uint32_t q)
{
	if (q < VIRTIO_QUEUES_MAX && doorbells->items[q].fd >= 0)
		virtio_signal_fd(doorbells->items[q].fd);
}

void virtio_signal_fd(int fd)
{
	const uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* fails only when the counter is full, and then the event is pending already */
}

uint32_t virtio_feature_word(uint64_t features, uint32_t sel)
{
	return sel < 2 ? (uint32_t)(features >> (32 * sel)) : 0;
}

void virtio_set_driver_feature_word(struct virtio_dev *dev, uint32_t value)
{
	uint32_t sel = dev->driver_features_sel;

	if (sel >= 2 || (dev->status & VIRTIO_STATUS_FEATURES_OK))
		return;
	dev->driver_features &= ~((uint64_t)UINT32_MAX << (32 * sel));
	dev->driver_features |= (uint64_t)value << (32 * sel);
}

struct virtq *virtio_selected_queue(struct virtio_dev *dev)
{
	return dev->queue_sel < dev->ops->n_queues ? &dev->queues[dev->queue_sel] : NULL;
}

void virtio_set_queue_ready(struct virtio_dev *dev, struct virtq *vq, bool ready)
{
	if (!ready && vq->ready) {
		vq->ready = false;
		if (dev->active)
			virtio_dev_broken(dev, "a queue was taken away from the running device");
	} else if (ready && !vq->ready && !(dev->status & VIRTIO_STATUS_DRIVER_OK)) {
		/* A queue that cannot be is seen by its reading as not ready, as a kind driver checks. */
		if (virtq_enable(vq) < 0)
			virtio_dev_broken(dev, "a queue's size or addresses are impossible");
	}
}

void virtio_set_queue_size(struct virtq *vq, uint32_t size)
{
	vq->size = size <= vq->max_size ? (uint16_t)size : 0;
}

void virtio_set_half(gpa_t *address, bool high, uint32_t value)
{
	*address = high ? (uint32_t)*address | (uint64_t)value << 32 : (*address & ~(uint64_t)UINT32_MAX) | value;
}
