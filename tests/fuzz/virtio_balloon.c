/* A hostile driver of the balloon over virtio-mmio: whatever it puts into its rings, page lists, ranges, statistics and
 * registers, the device touches no memory but the guest's, discards nothing else, and after a reset it serves an honest
 * driver. What it gives back goes at once, its rings too.
 *
 *	byte 0: features  byte 1: n  n steps of 8 bytes  what guest memory begins with: QUEUE_BYTES for each queue */
#include "tests/fuzz/fuzz.h"

#include "common/log.h"
#include "devices/virtio_balloon.h"
#include "devices/virtio_mmio.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#define BASE	    0x10000ull
#define REGION	    0x8000ull /* bytes; two of them with as large a hole between, then memory nobody may touch */
#define PAGE	    0x1000ull
#define BLOCK	    0x40000ull /* the host's pages: so that what is in the balloon is remembered */
#define QUEUES	    5
#define QUEUE_BYTES 0x400
#define QUEUE_SIZE  16
#define AVAIL	    0x100 /* from a queue's beginning */
#define USED	    0x140
#define LIST	    0x4000 /* of the honest driver, from BASE */

enum { STEP_DOORBELL, STEP_WRITE, STEP_READ, STEP_POKE, STEP_AVAILABLE, STEP_SAVE_AND_LOAD, STEP_API, STEP_LOOP, STEP_KINDS };

struct step {
	uint8_t kind, width;
	uint16_t offset;
	uint32_t value;
} __attribute__((packed));

static struct gmem mem;
static uint8_t *ram; /* at BASE */
static struct loop *loop;
static struct virtio_mmio *mmio;
static uint64_t n_discards;

static int discard(void *ctx, gpa_t gpa, uint64_t len)
{
	uint8_t *host = gmem_span(&mem, gpa, len);
	uint64_t start = (gpa + PAGE - 1) & ~(PAGE - 1), end = (gpa + len) & ~(PAGE - 1);

	(void)ctx;
	n_discards++;
	if (!host)
		return -EFAULT;
	if (start < end)
		CHECK(madvise(host + (start - gpa), end - start, MADV_DONTNEED) == 0);
	return 0;
}

static struct virtio_dev *balloon(void)
{
	return virtio_mmio_device(mmio);
}

static void new_device(void)
{
	struct balloon_config config = {.target_mib = 1,
		.deflate_on_oom = true,
		.stats_interval_s = 1,
		.hinting = true,
		.reporting = true,
		.discard = {discard, NULL, BLOCK}};
	struct virtio_dev *dev = virtio_balloon_new(&config, loop, &mem, NULL);

	CHECK(dev);
	mmio = virtio_mmio_new(dev, loop, NULL);
	CHECK(mmio);
}

static void prepare(void)
{
	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	ram = fuzz_guest_memory(&mem, BASE, REGION, 2);
	loop = loop_new();
	CHECK(loop);
	new_device();
}

static void wr(uint32_t offset, uint32_t value)
{
	virtio_mmio_write(mmio, offset, &value, sizeof(value));
}

static uint32_t rd(uint32_t offset)
{
	uint32_t value;

	virtio_mmio_read(mmio, offset, &value, sizeof(value));
	return value;
}

/* Reset, and all the way to DRIVER_OK. */
static void start(uint32_t features)
{
	wr(VIRTIO_MMIO_STATUS, 0);
	wr(VIRTIO_MMIO_STATUS, 1);
	wr(VIRTIO_MMIO_STATUS, 3);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, 1);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, rd(VIRTIO_MMIO_DEVICE_FEATURES) & features);
	wr(VIRTIO_MMIO_STATUS, 11);
	for (uint32_t q = 0; q < QUEUES; q++) {
		uint32_t at = (uint32_t)BASE + q * QUEUE_BYTES;

		wr(VIRTIO_MMIO_QUEUE_SEL, q);
		wr(VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
		wr(VIRTIO_MMIO_QUEUE_DESC_LOW, at);
		wr(VIRTIO_MMIO_QUEUE_AVAIL_LOW, at + AVAIL);
		wr(VIRTIO_MMIO_QUEUE_USED_LOW, at + USED);
		wr(VIRTIO_MMIO_QUEUE_READY, 1);
	}
	wr(VIRTIO_MMIO_STATUS, 15);
	CHECK(rd(VIRTIO_MMIO_STATUS) == 15);
}

static void save_and_load(void)
{
	struct state_writer w;
	struct state_reader r;

	virtio_dev_quiesce(balloon());
	state_writer_init(&w);
	virtio_mmio_save(mmio, &w);
	virtio_mmio_free(mmio);
	new_device();
	state_reader_init(&r, w.buf.data, w.buf.len);
	/* Whatever state a guest can bring about can be saved and loaded, its rings given back or not. */
	CHECK(virtio_mmio_load(mmio, &r, NULL) == 0);
	state_writer_done(&w);
	virtio_dev_resume(balloon());
}

static void ask(const struct step *step)
{
	switch (step->width % 4) {
	case 0:
		virtio_balloon_start_hinting(balloon(), step->offset & 1, NULL);
		break;
	case 1:
		virtio_balloon_stop_hinting(balloon(), NULL);
		break;
	case 2:
		virtio_balloon_set_target(balloon(), step->value >> 16, NULL);
		break;
	case 3:
		virtio_balloon_set_stats_interval(balloon(), (uint16_t)(step->offset | 1), NULL);
		break;
	}
}

static void make_available(uint16_t q, uint32_t count)
{
	uint8_t *at = ram + q * QUEUE_BYTES + AVAIL + 2;
	uint16_t idx;

	memcpy(&idx, at, sizeof(idx));
	idx = (uint16_t)(idx + count);
	memcpy(at, &idx, sizeof(idx));
	virtio_dev_doorbell(balloon(), q);
}

static void take(const struct step *step)
{
	uint8_t data[16];

	memset(data, 0xff, sizeof(data));
	switch (step->kind % STEP_KINDS) {
	case STEP_DOORBELL:
		virtio_dev_doorbell(balloon(), step->offset);
		break;
	case STEP_WRITE:
		memcpy(data, &step->value, sizeof(step->value));
		virtio_mmio_write(
			mmio, step->offset % (VIRTIO_MMIO_SIZE + 16), data, step->width % sizeof(data));
		break;
	case STEP_READ:
		virtio_mmio_read(
			mmio, step->offset % (VIRTIO_MMIO_SIZE + 16), data, step->width % sizeof(data));
		break;
	case STEP_POKE:
		memcpy(ram + step->offset % (REGION - 4), &step->value, sizeof(step->value));
		break;
	case STEP_AVAILABLE:
		make_available(step->offset % QUEUES, step->value);
		break;
	case STEP_SAVE_AND_LOAD:
		save_and_load();
		break;
	case STEP_API:
		ask(step);
		break;
	case STEP_LOOP:
		fuzz_run_loop(loop);
		break;
	}
}

/* The device is none the worse: an honest page goes, and the request comes back. */
static void honest_request(void)
{
	struct vring_desc *desc = (struct vring_desc *)ram;
	struct vring_avail *avail = (struct vring_avail *)(ram + AVAIL);
	const struct vring_used *used = (const struct vring_used *)(ram + USED);
	const uint32_t pfn = (BASE + 0x7000) / PAGE;

	memset(ram, 0, REGION);
	memcpy(ram + LIST, &pfn, sizeof(pfn));
	ram[0x7000] = 0xaa;
	desc[0] = (struct vring_desc){BASE + LIST, sizeof(pfn), 0, 0};
	avail->idx = 1;
	start(0);
	n_discards = 0;
	virtio_dev_doorbell(balloon(), 0);
	CHECK(used->idx == 1 && used->ring[0].len == 0 && n_discards == 1 && ram[0x7000] == 0);
	CHECK(rd(VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct step step;
	size_t n_steps;

	if (!mmio)
		prepare();
	if (len < 2)
		return 0;
	n_steps = data[1] % 32;
	memset(ram, 0, REGION);
	start(data[0] | (uint32_t)data[0] << 24);
	data += 2;
	len -= 2;
	if (len < n_steps * sizeof(step))
		n_steps = len / sizeof(step);
	len -= n_steps * sizeof(step);
	memcpy(ram, data + n_steps * sizeof(step), len < REGION ? len : REGION);
	for (uint16_t q = 0; q < QUEUES; q++)
		virtio_dev_doorbell(balloon(), q);
	for (size_t i = 0; i < n_steps; i++) {
		memcpy(&step, data + i * sizeof(step), sizeof(step));
		take(&step);
	}
	fuzz_run_loop(loop);
	honest_request();
	return 0;
}
