/* The virtio-mmio transport: registers (virtio 1.2, table 4.1), doorbells as eventfds, one edge interrupt.
 *
 * Theory of operation. Any vCPU's thread may be in here, and the loop's thread raises interrupts.
 *
 * - Registers but the interrupt's are the device's, guarded by its lock.
 * - `interrupt_status` is atomic: it is raised by the device's threads and acknowledged by the guest's without waiting
 *   for the device. The line is an edge, so every interrupt is a write to the eventfd, also while the bit is still set:
 *   one that came while the guest had the line masked would otherwise be the last. The driver acknowledges before it
 *   looks into the rings, so what was completed before the bit was set is seen (4.2.2.2: bits are cleared by
 *   acknowledgement only, or by reset).
 * - A doorbell is an eventfd that KVM writes without an exit. It is watched edge-triggered, so it need not be read:
 *   each write is one event. A QueueNotify that does come as an exit is passed on to the same eventfd, so that devices
 *   are rung on the loop thread only. */
#include "devices/virtio_mmio.h"

#include "common/checked.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/eventfd.h>

#define MMIO_MAGIC   0x74726976u /* "virt" */
#define MMIO_VERSION 2u
#define VENDOR_ID    0x4c4c5548u /* "HULL" */

#define STATE_NAME    "virtio-mmio"
#define STATE_VERSION 1

_Static_assert(VIRTIO_MMIO_QUEUE_NOTIFY == 0x050, "as the specification and linux/virtio_mmio.h have it");

struct doorbell {
	struct virtio_mmio *mmio;
	uint16_t queue;
	int fd;
	struct loop_source *source;
};

struct virtio_mmio {
	struct virtio_dev *dev; /* owned */
	uint32_t interrupt_status; /* atomic */
	int interrupt_fd;
	struct doorbell doorbells[VIRTIO_QUEUES_MAX];
};

static void signal_fd(int fd)
{
	const uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof(one));

	(void)n; /* fails only when the counter is full, and then the event is pending already */
}

/* virtio_interrupt_fn. Release: who reads the bit sees the used ring that it speaks of. */
static void raise_interrupt(void *ctx, uint16_t q)
{
	struct virtio_mmio *mmio = ctx;
	uint32_t bit = q == VIRTIO_INTERRUPT_CONFIG ? VIRTIO_MMIO_INT_CONFIG : VIRTIO_MMIO_INT_VRING;

	__atomic_fetch_or(&mmio->interrupt_status, bit, __ATOMIC_SEQ_CST);
	signal_fd(mmio->interrupt_fd);
}

static void on_doorbell(void *ctx, uint32_t epoll_events)
{
	struct doorbell *bell = ctx;

	(void)epoll_events;
	virtio_dev_doorbell(bell->mmio->dev, bell->queue);
}

static int open_doorbell(struct virtio_mmio *mmio, uint16_t q, struct loop *loop)
{
	struct doorbell *bell = &mmio->doorbells[q];

	bell->mmio = mmio;
	bell->queue = q;
	bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bell->fd < 0)
		return -errno;
	bell->source = loop_add_fd(loop, bell->fd, EPOLLIN | EPOLLET, on_doorbell, bell);
	return bell->source ? 0 : -errno;
}

struct virtio_mmio *virtio_mmio_new(struct virtio_dev *dev, struct loop *loop, struct error *err)
{
	struct virtio_mmio *mmio = calloc(1, sizeof(*mmio));
	int r = 0;

	if (!mmio) {
		error_set_errno(err, ENOMEM, "cannot create a %s device", dev->ops->name);
		virtio_dev_free(dev);
		return NULL;
	}
	mmio->dev = dev;
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++)
		mmio->doorbells[q].fd = -1;
	mmio->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mmio->interrupt_fd < 0)
		r = -errno;
	for (uint16_t q = 0; r == 0 && q < dev->ops->n_queues; q++)
		r = open_doorbell(mmio, q, loop);
	if (r < 0) {
		error_set_errno(err, -r, "cannot create the eventfds of a %s device", dev->ops->name);
		virtio_mmio_free(mmio);
		return NULL;
	}
	dev->interrupt = raise_interrupt;
	dev->interrupt_ctx = mmio;
	return mmio;
}

void virtio_mmio_free(struct virtio_mmio *mmio)
{
	if (!mmio)
		return;
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++)
		loop_remove(mmio->doorbells[q].source);
	virtio_dev_free(mmio->dev); /* may interrupt once more */
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++)
		close_fd(mmio->doorbells[q].fd);
	close_fd(mmio->interrupt_fd);
	free(mmio);
}

struct virtio_dev *virtio_mmio_device(struct virtio_mmio *mmio)
{
	return mmio->dev;
}

int virtio_mmio_interrupt_fd(const struct virtio_mmio *mmio)
{
	return mmio->interrupt_fd;
}

int virtio_mmio_doorbell_fd(const struct virtio_mmio *mmio, uint16_t q)
{
	return mmio->doorbells[q].fd;
}

/* The queue that QueueSel points to, or NULL: then QueueNumMax reads 0, "not available" (4.2.2). */
static struct virtq *selected_queue(struct virtio_dev *dev)
{
	return dev->queue_sel < dev->ops->n_queues ? &dev->queues[dev->queue_sel] : NULL;
}

/* One 32-bit half of a 64-bit feature set; further halves are empty. */
static uint32_t feature_word(uint64_t features, uint32_t sel)
{
	return sel < 2 ? (uint32_t)(features >> (32 * sel)) : 0;
}

static uint32_t read_register(struct virtio_dev *dev, uint32_t offset)
{
	const struct virtq *vq = selected_queue(dev);

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MMIO_MAGIC;
	case VIRTIO_MMIO_VERSION:
		return MMIO_VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return dev->ops->device_id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR_ID;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return feature_word(virtio_dev_features(dev), dev->features_sel);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return vq ? vq->max_size : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return vq ? vq->ready : 0;
	case VIRTIO_MMIO_STATUS:
		return dev->status;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return dev->config_generation;
	case VIRTIO_MMIO_SHM_LEN_LOW: /* no shared memory region: length and base -1 (4.2.2, SHMSel) */
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	}
	return 0;
}

/* 3.1.1: features are the driver's to choose until it has set FEATURES_OK. */
static void write_driver_features(struct virtio_dev *dev, uint32_t value)
{
	uint32_t sel = dev->driver_features_sel;

	if (sel >= 2 || (dev->status & VIRTIO_STATUS_FEATURES_OK))
		return;
	dev->driver_features &= ~((uint64_t)UINT32_MAX << (32 * sel));
	dev->driver_features |= (uint64_t)value << (32 * sel);
}

static void write_queue_ready(struct virtio_dev *dev, struct virtq *vq, uint32_t value)
{
	if (value == 0 && vq->ready) {
		vq->ready = false;
		/* RING_RESET (2.6.1) is not offered: a queue goes with its device, or not at all. */
		if (dev->active)
			virtio_dev_broken(dev, "a queue was taken away from the running device");
	} else if (value == 1 && !vq->ready && !(dev->status & VIRTIO_STATUS_DRIVER_OK)) {
		/* A queue that cannot be is seen by QueueReady reading 0, as a kind driver checks. */
		if (virtq_enable(vq) < 0)
			virtio_dev_broken(dev, "a queue's size or addresses are impossible");
	}
}

static void set_half(gpa_t *address, bool high, uint32_t value)
{
	*address = high ? (uint32_t)*address | (uint64_t)value << 32 :
			  (*address & ~(uint64_t)UINT32_MAX) | value;
}

/* Registers of the selected queue. 4.2.2.2: size and addresses may change only while QueueReady is 0. */
static void write_queue_register(struct virtio_dev *dev, uint32_t offset, uint32_t value)
{
	struct virtq *vq = selected_queue(dev);

	if (!vq)
		return;
	if (offset == VIRTIO_MMIO_QUEUE_READY)
		write_queue_ready(dev, vq, value);
	if (vq->ready)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		vq->size = value <= vq->max_size ? (uint16_t)value : 0; /* 0 is refused at QueueReady */
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&vq->desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&vq->avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&vq->used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
		break;
	}
}

static void write_status(struct virtio_mmio *mmio, uint32_t value)
{
	virtio_dev_set_status(mmio->dev, (uint8_t)value);
	/* 4.2.2.1: after a reset, no interrupt is pending and no queue is ready. */
	if (mmio->dev->status == 0)
		__atomic_store_n(&mmio->interrupt_status, 0, __ATOMIC_SEQ_CST);
}

static void write_register(struct virtio_mmio *mmio, uint32_t offset, uint32_t value)
{
	struct virtio_dev *dev = mmio->dev;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		dev->features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_driver_features(dev, value);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		dev->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		dev->queue_sel = value;
		break;
	case VIRTIO_MMIO_STATUS:
		write_status(mmio, value);
		break;
	default:
		write_queue_register(dev, offset, value);
	}
}

/* 4.2.2.2: control registers are 32 bits wide and aligned; any other access finds nothing there. */
static bool is_register(uint64_t offset, uint32_t len)
{
	return offset < VIRTIO_MMIO_CONFIG && len == sizeof(uint32_t) && offset % sizeof(uint32_t) == 0;
}

static bool is_config(uint64_t offset, uint32_t len)
{
	return offset >= VIRTIO_MMIO_CONFIG && range_fits(offset, len, VIRTIO_MMIO_SIZE);
}

void virtio_mmio_read(struct virtio_mmio *mmio, uint64_t offset, void *data, uint32_t len)
{
	struct virtio_dev *dev = mmio->dev;
	uint32_t value;

	memset(data, 0, len);
	if (is_config(offset, len)) {
		virtio_dev_enter(dev);
		virtio_dev_config_read(dev, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, len);
		virtio_dev_leave(dev);
		return;
	}
	if (!is_register(offset, len))
		return;
	if (offset == VIRTIO_MMIO_INTERRUPT_STATUS) {
		value = __atomic_load_n(&mmio->interrupt_status, __ATOMIC_SEQ_CST);
	} else {
		virtio_dev_enter(dev);
		value = read_register(dev, (uint32_t)offset);
		virtio_dev_leave(dev);
	}
	memcpy(data, &value, sizeof(value));
}

void virtio_mmio_write(struct virtio_mmio *mmio, uint64_t offset, const void *data, uint32_t len)
{
	struct virtio_dev *dev = mmio->dev;
	uint32_t value;

	if (is_config(offset, len)) {
		virtio_dev_enter(dev);
		virtio_dev_config_write(dev, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, len);
		virtio_dev_leave(dev);
		return;
	}
	if (!is_register(offset, len))
		return;
	memcpy(&value, data, sizeof(value));
	if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		__atomic_fetch_and(&mmio->interrupt_status, ~value, __ATOMIC_SEQ_CST);
	} else if (offset == VIRTIO_MMIO_QUEUE_NOTIFY) {
		if (value < dev->ops->n_queues)
			signal_fd(mmio->doorbells[value].fd);
	} else {
		virtio_dev_enter(dev);
		write_register(mmio, (uint32_t)offset, value);
		virtio_dev_leave(dev);
	}
}

void virtio_mmio_save(struct virtio_mmio *mmio, struct state_writer *w)
{
	state_begin(w, STATE_NAME, STATE_VERSION);
	state_put_u32(w, __atomic_load_n(&mmio->interrupt_status, __ATOMIC_SEQ_CST));
	state_end(w);
	virtio_dev_save(mmio->dev, w);
}

int virtio_mmio_load(struct virtio_mmio *mmio, struct state_reader *r, struct error *err)
{
	int result = state_begin_section(r, STATE_NAME, STATE_VERSION, err);
	uint32_t pending;

	if (result < 0)
		return result;
	pending = state_get_u32(r);
	result = state_end_section(r, err);
	if (result == 0)
		result = virtio_dev_load(mmio->dev, r, err);
	if (result < 0)
		return result;
	__atomic_store_n(&mmio->interrupt_status, pending, __ATOMIC_SEQ_CST);
	/* The edge itself may have been under way to the interrupt controller when this was saved. One too many does no
	 * harm; one too few would hang the driver. */
	if (pending)
		signal_fd(mmio->interrupt_fd);
	return 0;
}
