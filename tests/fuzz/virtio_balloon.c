/* A hostile driver of the balloon over virtio-mmio: whatever it puts into its rings, page lists, ranges, statistics and
 * registers, the device touches no memory but the guest's, discards nothing else, and after a reset it serves an honest
 * driver. What it gives back goes at once, its rings too.
 *
 *	byte 0: features  byte 1: n  n steps of 8 bytes  what guest memory begins with: QUEUE_BYTES for each queue */
#include "tests/fuzz/mmio_driver.h"

#include "common/log.h"
#include "devices/virtio_balloon.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#define BASE	    0x10000ull
#define REGION	    0x8000ull /* bytes; two of them with as large a hole between, then memory nobody may touch */
#define PAGE	    0x1000ull
#define BLOCK	    0x40000ull /* the host's pages: so that what is in the balloon is remembered */
#define QUEUES	    5
#define QUEUE_BYTES 0x400
#define LIST	    0x4000 /* of the honest driver, from BASE */

enum { STEP_DOORBELL, STEP_WRITE, STEP_READ, STEP_POKE, STEP_AVAILABLE, STEP_SAVE_AND_LOAD, STEP_API, STEP_LOOP, STEP_KINDS };

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

static struct virtio_mmio *new_device(void)
{
	struct balloon_config config = {.target_mib = 1,
		.deflate_on_oom = true,
		.stats_interval_s = 1,
		.hinting = true,
		.reporting = true,
		.discard = {discard, NULL, BLOCK}};
	struct virtio_dev *dev = virtio_balloon_new(&config, loop, &mem, NULL);
	struct virtio_mmio *made;

	CHECK(dev);
	made = virtio_mmio_new(dev, loop, NULL);
	CHECK(made);
	return made;
}

static void prepare(void)
{
	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	ram = fuzz_guest_memory(&mem, BASE, REGION, 2);
	loop = loop_new();
	CHECK(loop);
	mmio = new_device();
}

static void start(uint32_t features)
{
	mmio_start(mmio, features, BASE, QUEUE_BYTES, QUEUES);
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

static void take(const struct step *step)
{
	switch (step->kind % STEP_KINDS) {
	case STEP_DOORBELL:
		virtio_dev_doorbell(balloon(), step->offset);
		break;
	case STEP_WRITE:
	case STEP_READ:
		mmio_access(mmio, step, step->kind % STEP_KINDS == STEP_WRITE);
		break;
	case STEP_POKE:
		memcpy(ram + step->offset % (REGION - 4), &step->value, sizeof(step->value));
		break;
	case STEP_AVAILABLE:
		mmio_make_available(mmio, step->offset % QUEUES, ram + step->offset % QUEUES * QUEUE_BYTES, step->value);
		break;
	case STEP_SAVE_AND_LOAD:
		mmio = mmio_move(mmio, new_device);
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
	struct vring_avail *avail = (struct vring_avail *)(ram + MMIO_AVAIL);
	const struct vring_used *used = (const struct vring_used *)(ram + MMIO_USED);
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
	CHECK(mmio_rd(mmio, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct mmio_input input;

	if (!mmio)
		prepare();
	if (!mmio_read_input(data, len, &input))
		return 0;
	memset(ram, 0, REGION);
	start(input.features | (uint32_t)input.features << 24);
	memcpy(ram, input.memory, input.memory_bytes < REGION ? input.memory_bytes : REGION);
	for (uint16_t q = 0; q < QUEUES; q++)
		virtio_dev_doorbell(balloon(), q);
	for (size_t i = 0; i < input.n_steps; i++) {
		struct step step = mmio_step(&input, i);

		take(&step);
	}
	fuzz_run_loop(loop);
	honest_request();
	return 0;
}
