/* The virtio-mmio transport: registers (virtio 1.2, table 4.1), doorbells as eventfds, one edge interrupt.
 *
 * Theory of operation. Any vCPU's thread may be in here, and the loop's thread raises interrupts.
 *
 * - Registers but the interrupt's are the device's, guarded by its lock.
 * - `interrupt_status` is atomic: it is raised by the device's threads and acknowledged by the guest's without waiting
 *   for the device. The line is an edge, so every interrupt is a write to the eventfd, also while the bit is still set:
 *   one that came while the guest had the line masked would otherwise be the last. The driver acknowledges before it
 *   looks into the rings, so what was completed before the bit was set is seen (4.2.2.2: bits are cleared by
 *   acknowledgement only, or by reset). */
#include "devices/virtio_mmio.h"

#include "common/checked.h"
#include "devices/virtio_transport.h"

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

struct virtio_mmio {
	struct virtio_dev *dev; /* owned */
	uint32_t interrupt_status; /* atomic */
	int interrupt_fd;
	struct virtio_doorbells doorbells;
};

/* Release: who reads the bit sees the used ring that it speaks of. */
static void raise_interrupt(void *ctx, uint16_t q)
{
	struct virtio_mmio *mmio = ctx;
	uint32_t bit = q == VIRTIO_INTERRUPT_CONFIG ? VIRTIO_MMIO_INT_CONFIG : VIRTIO_MMIO_INT_VRING;

	__atomic_fetch_or(&mmio->interrupt_status, bit, __ATOMIC_SEQ_CST);
	virtio_signal_fd(mmio->interrupt_fd);
}

static int kick_fd(void *ctx, uint16_t q)
{
	return ((struct virtio_mmio *)ctx)->doorbells.items[q].fd;
}

static void listen_to(void *ctx, uint16_t q, bool listen)
{
	virtio_doorbells_listen(&((struct virtio_mmio *)ctx)->doorbells, q, listen);
}

/* Whoever interrupts must say why in InterruptStatus. */
static int no_call_fd(void *ctx, uint16_t q)
{
	(void)ctx;
	(void)q;
	return -1;
}

static const struct virtio_transport transport = {raise_interrupt, kick_fd, listen_to, no_call_fd};

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
	mmio->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mmio->interrupt_fd < 0)
		r = -errno;
	if (r == 0)
		r = virtio_doorbells_init(&mmio->doorbells, dev, loop);
	if (r < 0) {
		error_set_errno(err, -r, "cannot create the eventfds of a %s device", dev->ops->name);
		virtio_mmio_free(mmio);
		return NULL;
	}
	dev->transport = &transport;
	dev->transport_ctx = mmio;
	return mmio;
}

void virtio_mmio_free(struct virtio_mmio *mmio)
{
	if (!mmio)
		return;
	virtio_doorbells_silence(&mmio->doorbells);
	virtio_dev_free(mmio->dev); /* may interrupt once more */
	virtio_doorbells_done(&mmio->doorbells);
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
	return mmio->doorbells.items[q].fd;
}

static uint32_t read_register(struct virtio_dev *dev, uint32_t offset)
{
	const struct virtq *vq = virtio_selected_queue(dev); /* NULL: QueueNumMax reads 0, "not available" (4.2.2) */

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
		return virtio_feature_word(virtio_dev_features(dev), dev->features_sel);
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

/* Registers of the selected queue. 4.2.2.2: size and addresses may change only while QueueReady is 0. */
static void write_queue_register(struct virtio_dev *dev, uint32_t offset, uint32_t value)
{
	struct virtq *vq = virtio_selected_queue(dev);

	if (!vq)
		return;
	if (offset == VIRTIO_MMIO_QUEUE_READY && value <= 1)
		virtio_set_queue_ready(dev, vq, value);
	if (vq->ready)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		virtio_set_queue_size(vq, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		virtio_set_half(&vq->desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		virtio_set_half(&vq->avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		virtio_set_half(&vq->used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
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
		virtio_set_driver_feature_word(dev, value);
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
		virtio_doorbells_ring(&mmio->doorbells, value);
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
		virtio_signal_fd(mmio->interrupt_fd);
	return 0;
}
