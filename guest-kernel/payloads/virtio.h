/* A driver's half of virtio-mmio (virtio 1.2, 4.2) with split queues, for payloads: as small as it can be, and with nothing hidden, so
 * that a payload can do each thing wrong. */
#ifndef HULL_PAYLOADS_VIRTIO_H
#define HULL_PAYLOADS_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_MMIO_BASE  UINT64_C(0xd0000000)
#define VIRTIO_MMIO_BYTES 0x1000u
#define VIRTIO_MMIO_MAX	  18
#define VIRTIO_LINE_FIRST 5 /* of the IOAPIC; device N has 5 + N */

/* Registers (table 4.1) that payloads name. */
enum {
	REG_MAGIC = 0x0,
	REG_DEVICE_ID = 0x8,
	REG_DEVICE_FEATURES = 0x10,
	REG_DEVICE_FEATURES_SEL = 0x14,
	REG_DRIVER_FEATURES = 0x20,
	REG_DRIVER_FEATURES_SEL = 0x24,
	REG_QUEUE_SEL = 0x30,
	REG_QUEUE_NUM_MAX = 0x34,
	REG_QUEUE_NUM = 0x38,
	REG_QUEUE_READY = 0x44,
	REG_NOTIFY = 0x50,
	REG_INTERRUPT_STATUS = 0x60,
	REG_INTERRUPT_ACK = 0x64,
	REG_STATUS = 0x70,
	REG_DESC = 0x80, /* two words each */
	REG_AVAIL = 0x90,
	REG_USED = 0xa0,
	REG_CONFIG = 0x100,
};

enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8, STATUS_NEEDS_RESET = 64 };
enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { DEVICE_NET = 1, DEVICE_BLK = 2, DEVICE_CONSOLE = 3, DEVICE_RNG = 4, DEVICE_BALLOON = 5, DEVICE_VSOCK = 19, DEVICE_MEM = 24 };

#define FEATURE_INDIRECT (UINT64_C(1) << 28)
#define FEATURE_VERSION_1 (UINT64_C(1) << 32)

#define QUEUE_SIZE 8
#define QUEUES_MAX 6

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* Written by two sides: volatile, with barrier() between what must be seen in order. */
struct queue {
	volatile struct desc desc[QUEUE_SIZE] __attribute__((aligned(16)));
	volatile struct {
		uint16_t flags, idx, ring[QUEUE_SIZE], used_event;
	} avail;
	volatile struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[QUEUE_SIZE];
		uint16_t avail_event;
	} used __attribute__((aligned(4)));
};

struct virtio {
	uint64_t base;
	unsigned line;
	uint32_t id;
	struct queue queues[QUEUES_MAX];
};

/* The device at page `index`: false where there is none. */
bool virtio_probe(struct virtio *v, unsigned index);

uint32_t virtio_get(const struct virtio *v, uint32_t reg);
void virtio_set(const struct virtio *v, uint32_t reg, uint32_t value);
uint64_t virtio_features(const struct virtio *v);

/* Resets it and negotiates up to FEATURES_OK: whether it takes them. VERSION_1 is added. */
bool virtio_negotiate(const struct virtio *v, uint64_t features);
/* The selected queue gets this size and these places: whether it is ready then. */
bool virtio_set_queue(const struct virtio *v, unsigned q, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used);
/* All of it: negotiated, each queue ready and empty, DRIVER_OK. Fails the payload where the device does not follow. */
void virtio_start(struct virtio *v, uint64_t features);

/* Makes the chain at descriptor `head` available, without the doorbell. */
void queue_offer(struct queue *queue, uint16_t head);
void virtio_ring(const struct virtio *v, unsigned q);

enum answer { ANSWER_USED, ANSWER_NEEDS_RESET, ANSWER_NONE };
/* Until the queue has come to `used`, or the device needs a reset, or neither within PATIENCE. */
enum answer virtio_await(const struct virtio *v, unsigned q, uint16_t used);
/* queue_offer(), the doorbell, and until it is completed: whether it was. */
bool virtio_submit(struct virtio *v, unsigned q, uint16_t head);

#endif
