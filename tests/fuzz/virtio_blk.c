/* A hostile driver of virtio-blk over virtio-mmio: whatever it puts into its rings, descriptors, requests and registers,
 * the device touches no memory but the guest's, the disk keeps its size, and after a reset it serves an honest driver.
 *
 *	byte 0: features  byte 1: n  n steps of 8 bytes  what guest memory begins with: descriptors, rings, requests */
#include "tests/fuzz/fuzz.h"

#include "common/log.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BASE	   0x10000ull
#define REGION	   0x8000ull /* bytes; two of them with as large a hole between, then memory nobody may touch */
#define QUEUE_SIZE 16
#define AVAIL	   (BASE + 0x100)
#define USED	   (BASE + 0x140)
#define REQUEST	   0x4000 /* of the honest driver, from BASE */
#define DISK_BYTES 0x8000

enum { STEP_DOORBELL, STEP_WRITE, STEP_READ, STEP_POKE, STEP_AVAILABLE, STEP_SAVE_AND_LOAD, STEP_KINDS };

struct step {
	uint8_t kind, width;
	uint16_t offset;
	uint32_t value;
} __attribute__((packed));

static struct gmem mem;
static uint8_t *ram; /* at BASE */
static struct loop *loop;
static struct virtio_mmio *mmio;
static int disk = -1;

static void new_device(void)
{
	struct virtio_blk_config config = {.id = "fuzz",
		.path = "fuzz",
		.fd = dup(disk),
		.engine = BLK_ENGINE_SYNC,
		.cache = BLK_CACHE_WRITEBACK};
	struct virtio_dev *dev = virtio_blk_new(&config, loop, &mem, NULL);

	CHECK(dev);
	mmio = virtio_mmio_new(dev, loop, NULL);
	CHECK(mmio);
}

static void prepare(void)
{
	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	ram = fuzz_guest_memory(&mem, BASE, REGION, 2);
	disk = memfd_create("disk", MFD_CLOEXEC);
	CHECK(disk >= 0 && ftruncate(disk, DISK_BYTES) == 0);
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
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	wr(VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
	wr(VIRTIO_MMIO_QUEUE_DESC_LOW, BASE);
	wr(VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL);
	wr(VIRTIO_MMIO_QUEUE_USED_LOW, USED);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	wr(VIRTIO_MMIO_STATUS, 15);
	CHECK(rd(VIRTIO_MMIO_STATUS) == 15);
}

static void save_and_load(void)
{
	struct state_writer w;
	struct state_reader r;

	virtio_dev_quiesce(virtio_mmio_device(mmio));
	state_writer_init(&w);
	virtio_mmio_save(mmio, &w);
	virtio_mmio_free(mmio);
	new_device();
	state_reader_init(&r, w.buf.data, w.buf.len);
	/* Whatever state a guest can bring about can be saved and loaded. */
	CHECK(virtio_mmio_load(mmio, &r, NULL) == 0);
	state_writer_done(&w);
	virtio_dev_resume(virtio_mmio_device(mmio));
}

static void take(const struct step *step)
{
	uint8_t data[16];
	uint16_t idx;

	memset(data, 0xff, sizeof(data));
	switch (step->kind % STEP_KINDS) {
	case STEP_DOORBELL:
		virtio_dev_doorbell(virtio_mmio_device(mmio), step->offset);
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
		memcpy(&idx, ram + 0x102, sizeof(idx));
		idx = (uint16_t)(idx + step->value);
		memcpy(ram + 0x102, &idx, sizeof(idx));
		virtio_dev_doorbell(virtio_mmio_device(mmio), 0);
		break;
	case STEP_SAVE_AND_LOAD:
		save_and_load();
		break;
	}
}

/* The device is none the worse: an honest request for its serial number is answered. */
static void honest_request(void)
{
	struct vring_desc *desc = (struct vring_desc *)ram;
	struct vring_avail *avail = (struct vring_avail *)(ram + 0x100);
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
	CHECK(rd(VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct step step;
	struct stat st;
	size_t n_steps;

	if (!mmio)
		prepare();
	if (len < 2)
		return 0;
	n_steps = data[1] % 32;
	start((uint32_t)data[0] << 24 | (uint32_t)data[0] << 8);
	data += 2;
	len -= 2;
	if (len < n_steps * sizeof(step))
		n_steps = len / sizeof(step);
	len -= n_steps * sizeof(step);
	memset(ram, 0, 0x200);
	memcpy(ram, data + n_steps * sizeof(step), len < REGION ? len : REGION);
	virtio_dev_doorbell(virtio_mmio_device(mmio), 0);
	for (size_t i = 0; i < n_steps; i++) {
		memcpy(&step, data + i * sizeof(step), sizeof(step));
		take(&step);
	}
	CHECK(fstat(disk, &st) == 0 && st.st_size == DISK_BYTES);
	honest_request();
	return 0;
}
