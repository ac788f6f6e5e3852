/* A hostile driver of virtio-mem over virtio-mmio, whose rings and answers may lie in what it plugs and unplugs: what is not
 * plugged faults, so the device touches none of it; its books agree with its owner's, and after a reset it serves an honest driver.
 *
 *	byte 0: features  byte 1: n  n steps of 8 bytes  what guest memory begins with: descriptors, rings, requests */
#include "tests/fuzz/mmio_driver.h"

#include "common/log.h"
#include "devices/virtio_mem.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mem.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define BASE	0x10000ull
#define REGION	0x8000ull /* bytes; two of them with as large a hole between, then memory nobody may touch */
#define ADDR	0x100000ull
#define BLOCK	0x1000ull
#define BLOCKS	16u
#define REQUEST 0x400 /* of the honest driver, from BASE */

enum { STEP_DOORBELL, STEP_WRITE, STEP_READ, STEP_POKE, STEP_AVAILABLE, STEP_SAVE_AND_LOAD, STEP_API, STEP_KINDS };

static struct gmem mem;
static uint8_t *ram, *plugged; /* at BASE, at ADDR */
static uint64_t blocks[1];
static struct loop *loop;
static struct virtio_mmio *mmio;
static const struct buf *saved_blocks; /* for the next device */

static void set(uint64_t offset, uint64_t len, bool there)
{
	CHECK(len && (offset | len) % BLOCK == 0 && offset + len <= BLOCKS * BLOCK);
	for (uint64_t i = offset / BLOCK; i < (offset + len) / BLOCK; i++)
		CHECK((blocks[0] >> i & 1) == !there);
	gmem_set_blocks(&mem, ADDR, offset, len, there);
	CHECK(mprotect(plugged + offset, len, there ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
}

static int plug(void *ctx, uint64_t offset, uint64_t len)
{
	(void)ctx;
	set(offset, len, true);
	return 0;
}

static int unplug(void *ctx, uint64_t offset, uint64_t len)
{
	(void)ctx;
	set(offset, len, false);
	return 0;
}

static struct virtio_dev *device(void)
{
	return virtio_mmio_device(mmio);
}

static struct virtio_mmio *new_device(void)
{
	static const struct virtio_mem_ops ops = {plug, unplug};
	struct virtio_mem_setup setup = {.addr = ADDR, .region_bytes = BLOCKS * BLOCK, .block_bytes = BLOCK, .ops = &ops};
	struct virtio_dev *dev = virtio_mem_new(&setup, loop, &mem, NULL);
	struct virtio_mmio *made;
	struct state_reader r;

	CHECK(dev);
	if (saved_blocks) {
		gmem_set_blocks(&mem, ADDR, 0, BLOCKS * BLOCK, false);
		CHECK(mprotect(plugged, BLOCKS * BLOCK, PROT_NONE) == 0);
		state_reader_init(&r, saved_blocks->data, saved_blocks->len);
		CHECK(virtio_mem_load_blocks(dev, &r, NULL) == 0);
	}
	made = virtio_mmio_new(dev, loop, NULL);
	CHECK(made);
	return made;
}

static void prepare(void)
{
	struct gmem_region region = {.gpa = ADDR, .size_bytes = BLOCKS * BLOCK, .kind = GMEM_DEVICE, .blocks = blocks, .block_bytes = BLOCK};

	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	ram = fuzz_guest_memory(&mem, BASE, REGION, 2);
	plugged = mmap(NULL, BLOCKS * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(plugged != MAP_FAILED);
	region.host = plugged;
	CHECK(gmem_add_region(&mem, &region) == 0);
	loop = loop_new();
	CHECK(loop);
	mmio = new_device();
}

static void start(uint32_t features)
{
	mmio_start(mmio, features | 1u << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE, BASE, 0, 1);
	CHECK(virtio_mem_request(device(), BLOCKS / 2 * BLOCK, NULL) == 0);
}

static void save_and_load(void)
{
	struct state_writer w;

	state_writer_init(&w);
	virtio_mem_save_blocks(device(), &w);
	saved_blocks = &w.buf;
	mmio = mmio_move(mmio, new_device);
	saved_blocks = NULL;
	state_writer_done(&w);
}

static void take(const struct step *step)
{
	switch (step->kind % STEP_KINDS) {
	case STEP_DOORBELL:
		virtio_dev_doorbell(device(), step->offset);
		break;
	case STEP_WRITE:
	case STEP_READ:
		mmio_access(mmio, step, step->kind % STEP_KINDS == STEP_WRITE);
		break;
	case STEP_POKE:
		gmem_write(&mem, step->offset < REGION ? BASE + step->offset : ADDR + (step->offset - REGION), &step->value,
			sizeof(step->value));
		break;
	case STEP_AVAILABLE:
		mmio_make_available(mmio, 0, ram, step->value);
		break;
	case STEP_SAVE_AND_LOAD:
		save_and_load();
		break;
	case STEP_API:
		virtio_mem_request(device(), step->value % (BLOCKS + 2) * BLOCK, NULL);
		break;
	}
}

static void check_books(void)
{
	uint64_t requested, has;

	virtio_mem_sizes(device(), &requested, &has);
	CHECK(has == (uint64_t)__builtin_popcountll(blocks[0]) * BLOCK);
	CHECK(requested <= BLOCKS * BLOCK);
}

/* The device is none the worse: all goes that was plugged. */
static void honest_request(void)
{
	struct vring_desc *desc = (struct vring_desc *)ram;
	struct vring_avail *avail = (struct vring_avail *)(ram + MMIO_AVAIL);
	struct virtio_mem_req req = {.type = VIRTIO_MEM_REQ_UNPLUG_ALL};

	memset(ram, 0, REGION);
	memcpy(ram + REQUEST, &req, sizeof(req));
	ram[REQUEST + 32] = 0xee;
	desc[0] = (struct vring_desc){BASE + REQUEST, sizeof(req), VRING_DESC_F_NEXT, 1};
	desc[1] = (struct vring_desc){BASE + REQUEST + 32, sizeof(struct virtio_mem_resp), VRING_DESC_F_WRITE, 0};
	avail->idx = 1;
	start(0);
	virtio_dev_doorbell(device(), 0);
	CHECK(ram[REQUEST + 32] == VIRTIO_MEM_RESP_ACK);
	CHECK(blocks[0] == 0);
	check_books();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct mmio_input input;

	if (!mmio)
		prepare();
	if (!mmio_read_input(data, len, &input))
		return 0;
	start((uint32_t)input.features << 24 | (uint32_t)input.features << 8);
	memset(ram, 0, 0x200);
	memcpy(ram, input.memory, input.memory_bytes < REGION ? input.memory_bytes : REGION);
	virtio_dev_doorbell(device(), 0);
	for (size_t i = 0; i < input.n_steps; i++) {
		struct step step = mmio_step(&input, i);

		take(&step);
		check_books();
	}
	honest_request();
	return 0;
}
