/* A hostile driver at virtio-net's control queue: whatever it puts there, the device touches no memory but the guest's, and uses
 * as many pairs as it says; and it obeys an honest command afterwards.
 *
 *	byte 0: whether NET_F_MQ is negotiated, how often the driver rings   what guest memory begins with: the queue, commands */
#include "tests/fuzz/fuzz.h"

#include "common/log.h"
#include "devices/virtio_net_device.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define BASE	   0x10000ull
#define REGION	   0x10000ull /* bytes; two of them, a hole between, then memory nobody may touch */
#define QUEUE_SIZE 16
#define AVAIL	   0x100
#define USED	   0x140
#define COMMAND	   0x1000 /* the honest driver's */
#define PAIRS	   4
#define QUEUES	   (NET_QUEUES * PAIRS + 1)

static struct gmem mem;
static uint8_t *ram; /* at BASE */

static uint64_t offered(struct virtio_dev *dev)
{
	(void)dev;
	return NET_BIT(NET_F_CTRL_VQ) | NET_BIT(NET_F_MQ);
}

static int no_activate(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

static void no_reset(struct virtio_dev *dev)
{
	(void)dev;
}

/* As much of the device as the control queue needs: pairs without a thread, and without a back-end. */
static const struct virtio_ops ops = {.name = "virtio-net", .device_id = 1, .n_queues = QUEUES, .queue_size = QUEUE_SIZE,
	.features = offered, .activate = no_activate, .reset = no_reset};

static void start(struct virtio_net *n, bool several)
{
	struct virtq *vq;

	virtio_dev_set_status(&n->dev, 0);
	virtio_dev_set_status(&n->dev, 1);
	virtio_dev_set_status(&n->dev, 3);
	n->dev.driver_features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC | NET_BIT(NET_F_CTRL_VQ) |
		(several ? NET_BIT(NET_F_MQ) : 0);
	virtio_dev_set_status(&n->dev, 11);
	vq = &n->dev.queues[net_control_queue(n)];
	vq->size = QUEUE_SIZE;
	vq->desc = BASE;
	vq->avail = BASE + AVAIL;
	vq->used = BASE + USED;
	CHECK(virtq_enable(vq) == 0);
	virtio_dev_set_status(&n->dev, 15);
	CHECK(n->dev.status == 15);
	CHECK(net_control_use(n, 1) == 0);
}

static void check(const struct virtio_net *n, bool several)
{
	CHECK(n->pairs_used >= 1 && n->pairs_used <= (several ? PAIRS : 1));
	for (uint16_t i = 0; i < PAIRS; i++)
		CHECK(n->pairs[i].attached == (i < n->pairs_used));
}

static void honest_command(struct virtio_net *n)
{
	struct vring_desc *desc = (struct vring_desc *)ram;
	struct vring_avail *avail = (struct vring_avail *)(ram + AVAIL);

	memset(ram, 0, COMMAND);
	memcpy(ram + COMMAND, (uint8_t[]){4, 0, PAIRS, 0, 0xee}, 5);
	desc[0] = (struct vring_desc){BASE + COMMAND, 4, VRING_DESC_F_NEXT, 1};
	desc[1] = (struct vring_desc){BASE + COMMAND + 4, 1, VRING_DESC_F_WRITE, 0};
	start(n, true);
	avail->idx = 1;
	net_control_work(n);
	CHECK(ram[COMMAND + 4] == 0 && n->pairs_used == PAIRS && n->dev.status == 15);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct net_pair pairs[PAIRS];
	static struct virtio_net n;
	bool several;

	if (!ram) {
		log_open("fuzz", LOG_LEVEL_ERROR, 2);
		ram = fuzz_guest_memory(&mem, BASE, REGION, 2);
	}
	if (!len)
		return 0;
	several = data[0] & 1;
	n = (struct virtio_net){.n_pairs = PAIRS, .pairs = pairs, .control_kick.fd = -1};
	for (unsigned i = 0; i < PAIRS; i++)
		pairs[i].kick.fd = -1;
	virtio_dev_init(&n.dev, &ops, &mem);
	memset(ram, 0, 2 * COMMAND);
	start(&n, several);
	memcpy(ram, data + 1, len - 1 < REGION ? len - 1 : REGION);
	for (unsigned i = 0; i <= (unsigned)(data[0] >> 1) % 8 && virtio_dev_running(&n.dev); i++)
		net_control_work(&n);
	check(&n, several);
	honest_command(&n);
	check(&n, true);
	pthread_mutex_destroy(&n.dev.lock);
	return 0;
}
