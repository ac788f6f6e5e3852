/* See virtio.h. */
#include "guest-kernel/payloads/virtio.h"

#include "guest-kernel/payloads/payload.h"

#define MAGIC 0x74726976u

uint32_t virtio_get(const struct virtio *v, uint32_t reg)
{
	return read32(v->base + reg);
}

void virtio_set(const struct virtio *v, uint32_t reg, uint32_t value)
{
	write32(v->base + reg, value);
}

bool virtio_probe(struct virtio *v, unsigned index)
{
	v->base = VIRTIO_MMIO_BASE + index * VIRTIO_MMIO_BYTES;
	v->line = VIRTIO_LINE_FIRST + index;
	if (virtio_get(v, REG_MAGIC) != MAGIC)
		return false;
	v->id = virtio_get(v, REG_DEVICE_ID);
	return v->id != 0;
}

uint64_t virtio_features(const struct virtio *v)
{
	uint64_t low, high;

	virtio_set(v, REG_DEVICE_FEATURES_SEL, 0);
	low = virtio_get(v, REG_DEVICE_FEATURES);
	virtio_set(v, REG_DEVICE_FEATURES_SEL, 1);
	high = virtio_get(v, REG_DEVICE_FEATURES);
	return high << 32 | low;
}

/* 3.1.1, in its order. */
bool virtio_negotiate(const struct virtio *v, uint64_t features)
{
	uint32_t status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;

	features |= FEATURE_VERSION_1;
	virtio_set(v, REG_STATUS, 0);
	virtio_set(v, REG_STATUS, STATUS_ACKNOWLEDGE);
	virtio_set(v, REG_STATUS, status);
	virtio_set(v, REG_DRIVER_FEATURES_SEL, 0);
	virtio_set(v, REG_DRIVER_FEATURES, (uint32_t)features);
	virtio_set(v, REG_DRIVER_FEATURES_SEL, 1);
	virtio_set(v, REG_DRIVER_FEATURES, (uint32_t)(features >> 32));
	virtio_set(v, REG_STATUS, status | STATUS_FEATURES_OK);
	return virtio_get(v, REG_STATUS) == (status | STATUS_FEATURES_OK);
}

static void set_address(const struct virtio *v, uint32_t reg, uint64_t address)
{
	virtio_set(v, reg, (uint32_t)address);
	virtio_set(v, reg + 4, (uint32_t)(address >> 32));
}

bool virtio_set_queue(const struct virtio *v, unsigned q, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
	virtio_set(v, REG_QUEUE_SEL, q);
	virtio_set(v, REG_QUEUE_NUM, size);
	set_address(v, REG_DESC, desc);
	set_address(v, REG_AVAIL, avail);
	set_address(v, REG_USED, used);
	virtio_set(v, REG_QUEUE_READY, 1);
	return virtio_get(v, REG_QUEUE_READY) == 1;
}

static bool has_queue(const struct virtio *v, unsigned q)
{
	virtio_set(v, REG_QUEUE_SEL, q);
	return virtio_get(v, REG_QUEUE_NUM_MAX) >= QUEUE_SIZE;
}

void virtio_start(struct virtio *v, uint64_t features)
{
	const uint32_t ready = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

	if (!virtio_negotiate(v, features))
		fail("device %u does not take the features 0x%lx", v->id, features);
	for (unsigned q = 0; q < QUEUES_MAX && has_queue(v, q); q++) {
		struct queue *queue = &v->queues[q];

		queue->avail.flags = queue->avail.idx = queue->used.flags = queue->used.idx = 0;
		if (!virtio_set_queue(v, q, QUEUE_SIZE, (uintptr_t)queue->desc, (uintptr_t)&queue->avail, (uintptr_t)&queue->used))
			fail("device %u does not take its queue %u", v->id, q);
	}
	virtio_set(v, REG_STATUS, ready);
	if (virtio_get(v, REG_STATUS) != ready)
		fail("device %u does not start", v->id);
}

void queue_offer(struct queue *queue, uint16_t head)
{
	queue->avail.ring[queue->avail.idx % QUEUE_SIZE] = head;
	barrier();
	queue->avail.idx++;
	barrier();
}

void virtio_ring(const struct virtio *v, unsigned q)
{
	virtio_set(v, REG_NOTIFY, q);
}

enum answer virtio_await(const struct virtio *v, unsigned q, uint16_t used)
{
	uint64_t begin = tsc();

	do {
		if (v->queues[q].used.idx == used)
			return ANSWER_USED;
		if (virtio_get(v, REG_STATUS) & STATUS_NEEDS_RESET)
			return ANSWER_NEEDS_RESET;
	} while (tsc() - begin < PATIENCE);
	return ANSWER_NONE;
}

bool virtio_submit(struct virtio *v, unsigned q, uint16_t head)
{
	queue_offer(&v->queues[q], head);
	virtio_ring(v, q);
	return virtio_await(v, q, v->queues[q].avail.idx) == ANSWER_USED;
}
