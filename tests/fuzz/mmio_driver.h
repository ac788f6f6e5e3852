/* A driver's side of virtio-mmio, for targets that drive one hostile: its honest beginning, any access, and a move to another
 * device. */
#ifndef HULL_TESTS_FUZZ_MMIO_DRIVER_H
#define HULL_TESTS_FUZZ_MMIO_DRIVER_H

#include "tests/fuzz/fuzz.h"

#include "devices/virtio_mmio.h"

#include <linux/virtio_mmio.h>
#include <string.h>

/* What the input has the driver do. */
struct step {
	uint8_t kind, width;
	uint16_t offset;
	uint32_t value;
} __attribute__((packed));

/* An input of these targets: a byte of features, one that says how many steps, the steps, and what guest memory begins with. */
struct mmio_input {
	uint8_t features;
	const uint8_t *steps; /* not aligned */
	size_t n_steps;
	const uint8_t *memory;
	size_t memory_bytes;
};

/* False: it is too short. */
static inline bool mmio_read_input(const uint8_t *data, size_t len, struct mmio_input *ret)
{
	if (len < 2)
		return false;
	ret->features = data[0];
	ret->n_steps = data[1] % 32;
	if (ret->n_steps > (len - 2) / sizeof(struct step))
		ret->n_steps = (len - 2) / sizeof(struct step);
	ret->steps = data + 2;
	ret->memory = ret->steps + ret->n_steps * sizeof(struct step);
	ret->memory_bytes = (size_t)(data + len - ret->memory);
	return true;
}

static inline struct step mmio_step(const struct mmio_input *input, size_t i)
{
	struct step step;

	memcpy(&step, input->steps + i * sizeof(step), sizeof(step));
	return step;
}

/* Where mmio_start() has a queue's rings, from the queue's beginning. */
#define MMIO_QUEUE_SIZE 16
#define MMIO_AVAIL	0x100
#define MMIO_USED	0x140

static inline void mmio_wr(struct virtio_mmio *mmio, uint32_t offset, uint32_t value)
{
	virtio_mmio_write(mmio, offset, &value, sizeof(value));
}

static inline uint32_t mmio_rd(struct virtio_mmio *mmio, uint32_t offset)
{
	uint32_t value;

	virtio_mmio_read(mmio, offset, &value, sizeof(value));
	return value;
}

/* Reset, and all the way to DRIVER_OK with `n_queues` queues, `queue_bytes` apart from `base` on. */
static inline void mmio_start(
	struct virtio_mmio *mmio, uint32_t features, gpa_t base, uint32_t queue_bytes, uint32_t n_queues)
{
	mmio_wr(mmio, VIRTIO_MMIO_STATUS, 0);
	mmio_wr(mmio, VIRTIO_MMIO_STATUS, 1);
	mmio_wr(mmio, VIRTIO_MMIO_STATUS, 3);
	mmio_wr(mmio, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	mmio_wr(mmio, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	mmio_wr(mmio, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	mmio_wr(mmio, VIRTIO_MMIO_DRIVER_FEATURES, mmio_rd(mmio, VIRTIO_MMIO_DEVICE_FEATURES) & features);
	mmio_wr(mmio, VIRTIO_MMIO_STATUS, 11);
	for (uint32_t q = 0; q < n_queues; q++) {
		uint32_t at = (uint32_t)base + q * queue_bytes;

		mmio_wr(mmio, VIRTIO_MMIO_QUEUE_SEL, q);
		mmio_wr(mmio, VIRTIO_MMIO_QUEUE_NUM, MMIO_QUEUE_SIZE);
		mmio_wr(mmio, VIRTIO_MMIO_QUEUE_DESC_LOW, at);
		mmio_wr(mmio, VIRTIO_MMIO_QUEUE_AVAIL_LOW, at + MMIO_AVAIL);
		mmio_wr(mmio, VIRTIO_MMIO_QUEUE_USED_LOW, at + MMIO_USED);
		mmio_wr(mmio, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	mmio_wr(mmio, VIRTIO_MMIO_STATUS, 15);
	CHECK(mmio_rd(mmio, VIRTIO_MMIO_STATUS) == 15);
}

/* Anywhere, of any width. */
static inline void mmio_access(struct virtio_mmio *mmio, const struct step *step, bool write)
{
	uint64_t offset = step->offset % (VIRTIO_MMIO_SIZE + 16);
	uint8_t data[16];

	memset(data, 0xff, sizeof(data));
	if (write) {
		memcpy(data, &step->value, sizeof(step->value));
		virtio_mmio_write(mmio, offset, data, step->width % sizeof(data));
	} else {
		virtio_mmio_read(mmio, offset, data, step->width % sizeof(data));
	}
}

/* The driver makes `count` more of the queue's ring available, whose rings begin at `queue`, and rings. */
static inline void mmio_make_available(struct virtio_mmio *mmio, uint16_t q, uint8_t *queue, uint32_t count)
{
	uint8_t *at = queue + MMIO_AVAIL + 2;
	uint16_t idx;

	memcpy(&idx, at, sizeof(idx));
	idx = (uint16_t)(idx + count);
	memcpy(at, &idx, sizeof(idx));
	virtio_dev_doorbell(virtio_mmio_device(mmio), q);
}

/* Whatever state a guest can bring about can be saved and loaded: `mmio` is, by the device that make() makes. */
static inline struct virtio_mmio *mmio_move(struct virtio_mmio *mmio, struct virtio_mmio *(*make)(void))
{
	struct state_writer w;
	struct state_reader r;

	virtio_dev_quiesce(virtio_mmio_device(mmio));
	state_writer_init(&w);
	virtio_mmio_save(mmio, &w);
	virtio_mmio_free(mmio);
	mmio = make();
	state_reader_init(&r, w.buf.data, w.buf.len);
	CHECK(virtio_mmio_load(mmio, &r, NULL) == 0);
	state_writer_done(&w);
	virtio_dev_resume(virtio_mmio_device(mmio));
	return mmio;
}

#endif
