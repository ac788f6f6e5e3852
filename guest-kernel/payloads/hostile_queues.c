/* What a hostile driver puts into the queues and registers of each virtio-mmio device there is: bad addresses, chains without an
 * end, indices that run away, accesses of odd widths, storms of doorbells. After each the device either needs a reset, which it takes,
 * or is as it was. At the end disks and entropy do their work. It says each device and how many attacks it withstood. */
#include "guest-kernel/payloads/payload.h"
#include "guest-kernel/payloads/virtio.h"

#define NOWHERE	  UINT64_C(0xd8000000) /* no RAM: the window of PCI, where nothing is */
#define DOORBELLS 500
#define SECTOR	  512
#define VECTOR	  40

/* A table of descriptors beside the rings, and what they may point to. */
static struct desc table[QUEUE_SIZE] __attribute__((aligned(16)));
static uint8_t page[4096] __attribute__((aligned(4096)));

/* ---- chains: each makes one available that no device may follow ---- */

static void set_desc(struct queue *queue, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	queue->desc[i].addr = addr;
	queue->desc[i].len = len;
	queue->desc[i].flags = flags;
	queue->desc[i].next = next;
}

static void address_without_memory(struct queue *queue)
{
	set_desc(queue, 0, NOWHERE, 64, 0, 0);
	queue_offer(queue, 0);
}

static void address_that_wraps(struct queue *queue)
{
	set_desc(queue, 0, -UINT64_C(4096), 8192, DESC_WRITE, 0);
	queue_offer(queue, 0);
}

static void length_beyond_memory(struct queue *queue)
{
	set_desc(queue, 0, (uintptr_t)page, UINT32_MAX, DESC_WRITE, 0);
	queue_offer(queue, 0);
}

static void chain_in_a_circle(struct queue *queue)
{
	set_desc(queue, 0, (uintptr_t)page, 16, DESC_NEXT, 1);
	set_desc(queue, 1, (uintptr_t)page, 16, DESC_NEXT, 0);
	queue_offer(queue, 0);
}

/* Without a byte in it: nothing that counts bytes ends it. */
static void empty_chain_in_a_circle(struct queue *queue)
{
	set_desc(queue, 0, (uintptr_t)page, 0, DESC_NEXT, 0);
	queue_offer(queue, 0);
}

static void next_outside_the_table(struct queue *queue)
{
	set_desc(queue, 0, (uintptr_t)page, 16, DESC_NEXT, 0xffff);
	queue_offer(queue, 0);
}

static void head_outside_the_table(struct queue *queue)
{
	queue_offer(queue, QUEUE_SIZE);
}

static void index_that_runs_away(struct queue *queue)
{
	set_desc(queue, 0, (uintptr_t)page, 16, DESC_WRITE, 0);
	queue->avail.idx += 0x8000;
	barrier();
}

static void read_after_written(struct queue *queue)
{
	set_desc(queue, 0, (uintptr_t)page, 16, DESC_WRITE | DESC_NEXT, 1);
	set_desc(queue, 1, (uintptr_t)page, 16, 0, 0);
	queue_offer(queue, 0);
}

static void offer_table(struct queue *queue, uint64_t addr, uint32_t len, uint16_t flags)
{
	set_desc(queue, 0, addr, len, DESC_INDIRECT | flags, 1);
	set_desc(queue, 1, (uintptr_t)page, 16, 0, 0);
	queue_offer(queue, 0);
}

static void table_without_memory(struct queue *queue)
{
	offer_table(queue, NOWHERE, sizeof(table), 0);
}

static void table_of_a_descriptor_and_a_half(struct queue *queue)
{
	offer_table(queue, (uintptr_t)table, 24, 0);
}

static void table_that_is_longer_than_any_queue(struct queue *queue)
{
	offer_table(queue, (uintptr_t)table, UINT32_C(1) << 20, 0);
}

static void table_in_a_circle(struct queue *queue)
{
	table[0] = (struct desc){(uintptr_t)page, 16, DESC_NEXT, 0};
	offer_table(queue, (uintptr_t)table, sizeof(table), 0);
}

static void table_in_a_table(struct queue *queue)
{
	table[0] = (struct desc){(uintptr_t)table, sizeof(table), DESC_INDIRECT, 0};
	offer_table(queue, (uintptr_t)table, sizeof(table), 0);
}

static void table_with_a_next(struct queue *queue)
{
	table[0] = (struct desc){(uintptr_t)page, 16, 0, 0};
	offer_table(queue, (uintptr_t)table, sizeof(table[0]), DESC_NEXT);
}

static const struct attack {
	const char *name;
	void (*arm)(struct queue *queue);
} attacks[] = {
#define ATTACK(name) {#name, name}
	ATTACK(address_without_memory),
	ATTACK(address_that_wraps),
	ATTACK(length_beyond_memory),
	ATTACK(chain_in_a_circle),
	ATTACK(empty_chain_in_a_circle),
	ATTACK(next_outside_the_table),
	ATTACK(head_outside_the_table),
	ATTACK(index_that_runs_away),
	ATTACK(read_after_written),
	ATTACK(table_without_memory),
	ATTACK(table_of_a_descriptor_and_a_half),
	ATTACK(table_that_is_longer_than_any_queue),
	ATTACK(table_in_a_circle),
	ATTACK(table_in_a_table),
	ATTACK(table_with_a_next),
};

static struct virtio device;
static unsigned withstood;

/* The queues that a device looks into when their doorbell is rung, a bit each; into the others it looks when it has something. */
static unsigned queues_of(uint32_t id)
{
	switch (id) {
	case DEVICE_BLK:
	case DEVICE_RNG:
		return 1;
	case DEVICE_NET:
	case DEVICE_CONSOLE:
	case DEVICE_VSOCK:
		return 2; /* to transmit */
	case DEVICE_BALLOON:
		return 3; /* to inflate, to deflate */
	}
	return 0;
}

/* Tables are an attack too where they were not negotiated. */
static void attack_queue(unsigned q, uint64_t features)
{
	for (unsigned i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++) {
		virtio_start(&device, features);
		attacks[i].arm(&device.queues[q]);
		virtio_ring(&device, q);
		if (virtio_await(&device, q, 1) != ANSWER_NEEDS_RESET)
			fail("device %u queue %u features 0x%lx: %s is not refused", device.id, q, features, attacks[i].name);
		withstood++;
	}
}

/* Whether it is refused, which is seen by QueueReady. */
static void refuse_queue(uint32_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
	FAIL_UNLESS(virtio_negotiate(&device, 0));
	if (virtio_set_queue(&device, 0, size, desc, avail, used))
		fail("device %u takes a queue of %u at 0x%lx, 0x%lx, 0x%lx", device.id, size, desc, avail, used);
	withstood++;
}

static void attack_rings(void)
{
	uint64_t at = (uintptr_t)page;

	refuse_queue(0, at, at, at);
	refuse_queue(3, at, at, at);
	refuse_queue(0x8000, at, at, at);
	refuse_queue(UINT32_MAX, at, at, at);
	refuse_queue(QUEUE_SIZE, NOWHERE, at, at);
	refuse_queue(QUEUE_SIZE, at, NOWHERE, at);
	refuse_queue(QUEUE_SIZE, at, at, -UINT64_C(4));
	refuse_queue(QUEUE_SIZE, at + 8, at, at);
	refuse_queue(QUEUE_SIZE, at, at + 1, at);
	refuse_queue(QUEUE_SIZE, at, at, at + 2);
}

/* 4.2.2.2: other widths find no register; and none of these may reset it or take its queue away. */
static void attack_widths(void)
{
	uint32_t before;

	virtio_start(&device, 0);
	before = virtio_get(&device, REG_STATUS);
	for (uint64_t at = device.base; at < device.base + REG_CONFIG; at += 4) {
		read8(at);
		read16(at + 1);
		read32(at + 2);
		read64(at);
		write8(at, 0);
		write16(at + 1, 0);
		write32(at + 3, 0);
		write64(at, 0);
	}
	read64(device.base + VIRTIO_MMIO_BYTES - 4); /* half of it the next device's */
	write64(device.base + VIRTIO_MMIO_BYTES - 4, UINT64_MAX);
	read32(device.base + VIRTIO_MMIO_BYTES - 8);
	if (virtio_get(&device, REG_STATUS) != before)
		fail("device %u: odd accesses change its status", device.id);
	withstood++;
}

/* Doorbells of queues that are empty, were taken away, never were. */
static void attack_doorbells(void)
{
	virtio_start(&device, 0);
	for (unsigned i = 0; i < DOORBELLS; i++)
		virtio_ring(&device, i % 4);
	for (unsigned i = 0; i < 64; i++)
		virtio_ring(&device, 1u << (i % 32));
	virtio_ring(&device, UINT32_MAX);
	virtio_set(&device, REG_STATUS, 0);
	for (unsigned i = 0; i < DOORBELLS; i++)
		virtio_ring(&device, 0);
	FAIL_UNLESS(virtio_get(&device, REG_STATUS) == 0);
	withstood++;
}

/* ---- that it still works ---- */

static uint8_t read_sector(uint64_t sector)
{
	static struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	static volatile uint8_t status;

	header.sector = sector;
	status = 0xff;
	set_desc(&device.queues[0], 0, (uintptr_t)&header, sizeof(header), DESC_NEXT, 1);
	set_desc(&device.queues[0], 1, (uintptr_t)page, SECTOR, DESC_WRITE | DESC_NEXT, 2);
	set_desc(&device.queues[0], 2, (uintptr_t)&status, 1, DESC_WRITE, 0);
	FAIL_UNLESS(virtio_submit(&device, 0, 0));
	return status;
}

static void use_disk(void)
{
	virtio_start(&device, 0);
	ioapic_route(device.line, VECTOR);
	interrupts[VECTOR] = 0;
	FAIL_UNLESS(read_sector(0) == 0);
	FAIL_UNLESS(interrupt_wait(VECTOR));
	FAIL_UNLESS(virtio_get(&device, REG_INTERRUPT_STATUS) == 1);
	FAIL_UNLESS(page[0] == 'H' && page[1] == 'u' && page[2] == 'l' && page[3] == 'l');
	FAIL_UNLESS(read_sector(UINT64_MAX) == 1);	/* VIRTIO_BLK_S_IOERR */
	FAIL_UNLESS(read_sector(UINT64_MAX / SECTOR) == 1);
	FAIL_UNLESS(read_sector(1) == 0);
}

static void use_entropy(void)
{
	uint64_t *words = (uint64_t *)page;

	virtio_start(&device, 0);
	words[0] = 0;
	set_desc(&device.queues[0], 0, (uintptr_t)page, 8, DESC_WRITE, 0);
	FAIL_UNLESS(virtio_submit(&device, 0, 0) && device.queues[0].used.ring[0].len > 0);
}

static void attack_device(void)
{
	uint64_t offered = virtio_features(&device);

	withstood = 0;
	attack_rings();
	attack_widths();
	attack_doorbells();
	for (unsigned q = 0; q < QUEUES_MAX; q++) {
		if (!(queues_of(device.id) & 1u << q))
			continue;
		attack_queue(q, 0);
		if (offered & FEATURE_INDIRECT)
			attack_queue(q, FEATURE_INDIRECT);
	}
	FAIL_UNLESS(!virtio_negotiate(&device, ~offered));
	if (device.id == DEVICE_BLK)
		use_disk();
	if (device.id == DEVICE_RNG)
		use_entropy();
	virtio_set(&device, REG_STATUS, 0);
	say("device %u withstood %u", device.id, withstood);
}

void run(void)
{
	lapic_enable();
	for (unsigned i = 0; i < VIRTIO_MMIO_MAX; i++)
		if (virtio_probe(&device, i))
			attack_device();
	say("the end");
}
