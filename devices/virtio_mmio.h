/* The virtio-mmio transport, version 2 (virtio 1.2, section 4.2): one 4 KiB register page and one edge interrupt.
 *
 * Doorbells are ioeventfds: the owner registers doorbell_fd(q) with KVM at QueueNotify (datamatch q, 4 bytes) and this
 * transport watches them on the loop. Interrupts are an eventfd that the owner registers as irqfd. */
#ifndef HULL_DEVICES_VIRTIO_MMIO_H
#define HULL_DEVICES_VIRTIO_MMIO_H

#include "common/loop.h"
#include "devices/virtio.h"

#define VIRTIO_MMIO_SIZE	 0x1000
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x050

struct virtio_mmio;

/* Takes `dev` over (frees it with itself, also on failure). NULL with `err` set. Loop thread, before it runs. */
struct virtio_mmio *virtio_mmio_new(struct virtio_dev *dev, struct loop *loop, struct error *err);
/* Loop thread, vCPUs stopped. NULL is fine. */
void virtio_mmio_free(struct virtio_mmio *mmio);

/* Register access at `offset` < VIRTIO_MMIO_SIZE, any length a guest can produce: what the specification does not
 * define reads as 0 and writes to nothing. Any thread. */
void virtio_mmio_read(struct virtio_mmio *mmio, uint64_t offset, void *data, uint32_t len);
void virtio_mmio_write(struct virtio_mmio *mmio, uint64_t offset, const void *data, uint32_t len);

struct virtio_dev *virtio_mmio_device(struct virtio_mmio *mmio);
int virtio_mmio_interrupt_fd(const struct virtio_mmio *mmio);		/* borrowed */
int virtio_mmio_doorbell_fd(const struct virtio_mmio *mmio, uint16_t q); /* borrowed; q < ops->n_queues */

/* The device must be quiesced. A load raises an interrupt that was not acknowledged once more, so the interrupt
 * controller is restored first. Then virtio_dev_resume(). */
void virtio_mmio_save(struct virtio_mmio *mmio, struct state_writer *w);
int virtio_mmio_load(struct virtio_mmio *mmio, struct state_reader *r, struct error *err);

#endif
