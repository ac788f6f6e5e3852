/* A hostile driver of virtio-blk over virtio-mmio: whatever it puts into its rings, descriptors, requests and registers,
 * the device touches no memory but the guest's, the disk keeps its size, and after a reset it serves an honest driver.
 *
 *	byte 0: features  byte 1: n  n steps of 8 bytes  what guest memory begins with: descriptors, rings, requests */
#include "tests/fuzz/mmio_driver.h"

#include "common/log.h"
#include "devices/virtio_blk.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE	   0x10000ull
#define REGION	   0x8000ull /* bytes; two of them with as large a hole between, then memory nobody may touch */
#define REQUEST	   0x4000 /* of the honest driver, from BASE */
#define DISK_BYTES 0x8000

enum { STEP_DOORBELL, STEP_WRITE, STEP_READ, STEP_POKE, STEP_AVAILABLE, STEP_SAVE_AND_LOAD, STEP_KINDS };

static struct gmem mem;
static uint8_t *ram; /* at BASE */
static struct loop *loop;
static struct virtio_mmio *mmio;
static int disk = -1;

static struct virtio_mmio *new_device(void)
{
	struct virtio_blk_config config = {.id = "fuzz",
		.path = "fuzz",
		.fd = dup(disk),
		.engine = BLK_ENGINE_SYNC,
		.cache = BLK_CACHE_WRITEBACK};
	struct virtio_dev *dev = virtio_blk_new(&config, loop, &mem, NULL);
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
	disk = memfd_create("disk", MFD_CLOEXEC);
	CHECK(disk >= 0 && ftruncate(disk, DISK_BYTES) == 0);
	loop = loop_new();
	CHECK(loop);
	mmio = new_device();
}

static void start(uint32_t features)
{
	mmio_start(mmio, features, BASE, 0, 1);
}

static void take(const struct step *step)
{
	switch (step->kind % STEP_KINDS) {
	case STEP_DOORBELL:
		virtio_dev_doorbell(virtio_mmio_device(mmio), step->offset);
		break;
	case STEP_WRITE:
	case STEP_READ:
		mmio_access(mmio, step, step->kind % STEP_KINDS == STEP_WRITE);
		break;
	case STEP_POKE:
		memcpy(ram + step->offset % (REGION - 4), &step->value, sizeof(step->value));
		break;
	case STEP_AVAILABLE:
		mmio_make_available(mmio, 0, ram, step->value);
		break;
	case STEP_SAVE_AND_LOAD:
		mmio = mmio_move(mmio, new_device);
		break;
	}
}

/* The device is none the worse: an honest request for its serial number is answered. */
static void honest_request(void)
{
	struct vring_desc *desc = (struct vring_desc *)ram;
	struct vring_avail *avail = (struct vring_avail *)(ram + MMIO_AVAIL);
	const uint32_t get_id = 8;

	memset(ram, 0, REGION);
	memcpy(ram + REQUEST, &get_id, sizeof(get_id));
	ram[REQUEST + 36] = 0xee;
	desc[0] = (struct vring_desc){BASE + REQUEST, 16, VRING_DESC_F_NEXT, 1};
	desc[1] = (struct vring_desc){BASE + REQUEST + 16, 21, VRING_DESC_F_WRITE, 0};
	avail->idx = 1;
	start(0);
	virtio_dev_doorbell(virtio_mmio_device(mmio), 0);
	CHECK(memcmp(ram + REQUEST + 16, "fuzz", 5) == 0 && ram[REQUEST + 36] == 0);
	CHECK(mmio_rd(mmio, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct mmio_input input;
	struct stat st;

	if (!mmio)
		prepare();
	if (!mmio_read_input(data, len, &input))
		return 0;
	start((uint32_t)input.features << 24 | (uint32_t)input.features << 8);
	memset(ram, 0, 0x200);
	memcpy(ram, input.memory, input.memory_bytes < REGION ? input.memory_bytes : REGION);
	virtio_dev_doorbell(virtio_mmio_device(mmio), 0);
	for (size_t i = 0; i < input.n_steps; i++) {
		struct step step = mmio_step(&input, i);

		take(&step);
	}
	CHECK(fstat(disk, &st) == 0 && st.st_size == DISK_BYTES);
	honest_request();
	return 0;
}
