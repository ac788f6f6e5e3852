/* A hostile driver of virtio-net with a hostile peer on its stream: whatever the one puts into its rings and
 * the other into the socket, the device touches no memory but the guest's; and after a reset it serves an
 * honest driver.
 *
 *	byte 0: features  byte 1: n  n steps of 8 bytes  what guest memory begins with: queues, buffers */
#include "tests/fuzz/fuzz.h"

#include "common/log.h"
#include "devices/net_backend.h"
#include "devices/virtio_net.h"

#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BASE	    0x10000ull
#define REGION	    0x20000ull /* bytes; two of them, a hole between, then memory nobody may touch */
#define QUEUE_SIZE  16
#define QUEUE_BYTES 0x400
#define AVAIL	    0x100
#define USED	    0x140
#define BUFFERS	    0x1000 /* of the honest driver, from BASE */
#define FRAME_BYTES 60

enum { RX, TX, QUEUES };
enum {
	STEP_DOORBELL,
	STEP_POKE,
	STEP_AVAILABLE,
	STEP_PEER_FRAME,
	STEP_PEER_BYTES,
	STEP_PEER_READS,
	STEP_RUN,
	STEP_KINDS
};

struct step {
	uint8_t kind, queue;
	uint16_t offset;
	uint32_t value;
} __attribute__((packed));

static struct gmem mem;
static uint8_t *ram; /* at BASE */
static struct loop *loop;
static struct virtio_dev *dev;
static int peer = -1;

static void prepare(void)
{
	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	ram = fuzz_guest_memory(&mem, BASE, REGION, 2);
	loop = loop_new();
	CHECK(loop);
}

static void new_device(void)
{
	struct virtio_net_config config = {.id = "fuzz", .kind = NET_BACKEND_STREAM, .mac = {2}};
	int fds[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	peer = fds[1];
	config.fds[0] = fds[0];
	dev = virtio_net_new(&config, loop, &mem, NULL);
	CHECK(dev);
}

static void start(uint64_t features)
{
	virtio_dev_enter(dev);
	virtio_dev_set_status(dev, 0);
	virtio_dev_set_status(dev, 1);
	virtio_dev_set_status(dev, 3);
	dev->driver_features = (virtio_dev_features(dev) & features) | 1ull << VIRTIO_F_VERSION_1;
	virtio_dev_set_status(dev, 11);
	for (int q = 0; q < QUEUES; q++) {
		dev->queues[q].size = QUEUE_SIZE;
		dev->queues[q].desc = BASE + (gpa_t)q * QUEUE_BYTES;
		dev->queues[q].avail = dev->queues[q].desc + AVAIL;
		dev->queues[q].used = dev->queues[q].desc + USED;
		CHECK(virtq_enable(&dev->queues[q]) == 0);
	}
	virtio_dev_set_status(dev, 15);
	CHECK(dev->status == 15);
	virtio_dev_leave(dev);
	fuzz_run_loop(loop);
}

static void make_available(int q, uint16_t n)
{
	struct vring_avail *avail = (struct vring_avail *)(ram + q * QUEUE_BYTES + AVAIL);

	avail->idx = (uint16_t)(avail->idx + n);
	virtio_dev_doorbell(dev, (uint16_t)q);
}

static void peer_sends(const void *data, size_t len)
{
	ssize_t sent = send(peer, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)sent; /* whatever part of it: the device cannot know */
}

static void peer_sends_frame(uint32_t len)
{
	static const uint8_t frame[NET_FRAME_MAX];
	uint32_t length;

	len %= NET_FRAME_MAX + 1;
	length = htobe32(len);
	peer_sends(&length, sizeof(length));
	peer_sends(frame, len);
}

static void peer_reads(void)
{
	static uint8_t nothing[1 << 16];

	while (recv(peer, nothing, sizeof(nothing), MSG_DONTWAIT) > 0)
		;
}

static void take(const struct step *step)
{
	int q = step->queue % QUEUES;

	switch (step->kind % STEP_KINDS) {
	case STEP_DOORBELL:
		virtio_dev_doorbell(dev, step->queue);
		break;
	case STEP_POKE:
		memcpy(ram + step->offset, &step->value, sizeof(step->value));
		break;
	case STEP_AVAILABLE:
		make_available(q, (uint16_t)step->value);
		break;
	case STEP_PEER_FRAME:
		peer_sends_frame(step->value);
		break;
	case STEP_PEER_BYTES:
		peer_sends(&step->value, sizeof(step->value));
		break;
	case STEP_PEER_READS:
		peer_reads();
		break;
	case STEP_RUN:
		fuzz_run_loop(loop);
		break;
	}
}

/* The device is none the worse: a frame is taken off its driver's hands. */
static void honest_frame(void)
{
	struct vring_desc *desc = (struct vring_desc *)(ram + TX * QUEUE_BYTES);
	const struct vring_used *used = (struct vring_used *)(ram + TX * QUEUE_BYTES + USED);

	peer_reads();
	memset(ram, 0, BUFFERS + 0x1000);
	desc[0] = (struct vring_desc){BASE + BUFFERS, NET_HEADER_BYTES + FRAME_BYTES, 0, 0};
	start(0);
	make_available(TX, 1);
	CHECK(used->idx == 1 && dev->status == 15);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct step step;
	size_t n_steps;

	if (!loop)
		prepare();
	if (len < 2)
		return 0;
	new_device();
	n_steps = data[1] % 64;
	memset(ram, 0, 2 * QUEUE_BYTES);
	start(((uint64_t)data[0] << 24 & 3ull << 28) | (uint64_t)data[0] << 11);
	data += 2;
	len -= 2;
	if (len < n_steps * sizeof(step))
		n_steps = len / sizeof(step);
	len -= n_steps * sizeof(step);
	memcpy(ram, data + n_steps * sizeof(step), len < REGION ? len : REGION);
	virtio_dev_doorbell(dev, RX);
	virtio_dev_doorbell(dev, TX);
	for (size_t i = 0; i < n_steps; i++) {
		memcpy(&step, data + i * sizeof(step), sizeof(step));
		take(&step);
	}
	fuzz_run_loop(loop);
	honest_frame();
	virtio_dev_free(dev);
	close(peer);
	return 0;
}
