/* A hostile guest of virtio-vsock: whatever packets it sends, to a sink, to a listening host socket or to nobody, in
 * whatever order, with receive buffers or without, the device touches no memory but the guest's and keeps its bounds;
 * and after a reset it serves an honest driver.
 *
 *	steps, each: byte 0: kind  byte 1: pace of the loop  then, for a packet, 44 bytes of header as on the ring
 *
 * What the input leaves out is zero; ports are folded onto few, so that packets meet their connections. */
#include "tests/fuzz/fuzz.h"

#include "common/checked.h"
#include "common/io.h"
#include "common/log.h"
#include "devices/vsock_device.h"

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BASE        0x10000ull
#define REGION      0x40000ull /* bytes, between pages nobody may touch */
#define QUEUE_SIZE  16
#define QUEUE_BYTES 0x1000
#define TX_BUFFER   0x10000 /* from BASE: one packet, the last byte of which ends the region's half */
#define RX_BUFFERS  0x20000
#define RX_BYTES    512
#define TX_BYTES    0x10000
#define CID         3
#define SINK_PORT   5
#define SOCKET_PORT 6

enum {
	STEP_PACKET,
	STEP_BUFFERS,
	STEP_HOST_DIALS,
	STEP_HOST_WRITES,
	STEP_HOST_CLOSES,
	STEP_SHORT_CHAIN,
	STEP_KINDS
};

static struct gmem mem;
static uint8_t *ram;
static struct loop *loop;
static struct virtio_dev *dev;
static int listener, peer = -1, null_fd;
static char path[64], host_path[80];
static uint16_t rx_idx, tx_idx;

static void forget_files(void)
{
	unlink(host_path);
	unlink(path);
}

static void prepare(void)
{
	struct virtio_vsock_sink sink = {.port = SINK_PORT};
	struct virtio_vsock_config config = {
	        .guest_cid = CID, .uds_path = path, .sinks = &sink, .n_sinks = 1};

	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	signal(SIGPIPE, SIG_IGN);
	snprintf(path, sizeof(path), "/tmp/hull-fuzz-vsock-%d", (int)getpid());
	snprintf(host_path, sizeof(host_path), "%s_%d", path, SOCKET_PORT);
	atexit(forget_files);
	ram = fuzz_guest_memory(&mem, BASE, REGION, 1);
	loop = loop_new();
	CHECK(loop);
	sink.fd = null_fd = open("/dev/null", O_WRONLY);
	dev = virtio_vsock_new(&config, loop, &mem, NULL);
	CHECK(dev);
	listener = unix_listen(host_path, 64, 0600, NULL);
	CHECK(listener >= 0);
}

static struct vring_desc *desc_of(int q)
{
	return (struct vring_desc *)(ram + q * QUEUE_BYTES);
}

static struct vring_avail *avail_of(int q)
{
	return (struct vring_avail *)(ram + q * QUEUE_BYTES + 0x400);
}

static void start(void)
{
	memset(ram, 0, VSOCK_QUEUES * QUEUE_BYTES);
	virtio_dev_enter(dev);
	virtio_dev_set_status(dev, 0);
	virtio_dev_set_status(dev, 1);
	virtio_dev_set_status(dev, 3);
	dev->driver_features = 1ull << VIRTIO_F_VERSION_1;
	virtio_dev_set_status(dev, 11);
	for (int q = 0; q < VSOCK_QUEUES; q++) {
		dev->queues[q].size = QUEUE_SIZE;
		dev->queues[q].desc = BASE + (gpa_t)q * QUEUE_BYTES;
		dev->queues[q].avail = dev->queues[q].desc + 0x400;
		dev->queues[q].used = dev->queues[q].desc + 0x800;
		CHECK(virtq_enable(&dev->queues[q]) == 0);
	}
	virtio_dev_set_status(dev, 15);
	CHECK(dev->status == 15);
	virtio_dev_leave(dev);
	rx_idx = tx_idx = 0;
	fuzz_run_loop(loop);
}

static void add_buffers(void)
{
	for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
		desc_of(VSOCK_QUEUE_RX)[i] = (struct vring_desc){
		        BASE + RX_BUFFERS + i * RX_BYTES, RX_BYTES, VRING_DESC_F_WRITE, 0};
		avail_of(VSOCK_QUEUE_RX)->ring[i] = i;
	}
	rx_idx = dev->queues[VSOCK_QUEUE_RX].next_avail + QUEUE_SIZE;
	avail_of(VSOCK_QUEUE_RX)->idx = rx_idx;
	virtio_dev_doorbell(dev, VSOCK_QUEUE_RX);
}

static void send_chain(uint32_t len)
{
	uint16_t slot = tx_idx % QUEUE_SIZE;

	desc_of(VSOCK_QUEUE_TX)[slot] = (struct vring_desc){BASE + TX_BUFFER, len, 0, 0};
	avail_of(VSOCK_QUEUE_TX)->ring[slot] = slot;
	avail_of(VSOCK_QUEUE_TX)->idx = ++tx_idx;
	virtio_dev_doorbell(dev, VSOCK_QUEUE_TX);
}

/* The header as it is, but for what would make nearly every packet a stray. */
static void send_packet(const uint8_t *bytes)
{
	struct vsock_header header;
	uint32_t room;

	vsock_header_decode(&header, bytes);
	if (header.src_cid < 128)
		header.src_cid = CID;
	if (header.dst_cid < 128)
		header.dst_cid = VSOCK_CID_HOST;
	header.src_port %= 4;
	header.dst_port = header.dst_port < 8 ? header.dst_port : 0x40000000u + header.dst_port % 4;
	if (header.type < 128)
		header.type = VSOCK_TYPE_STREAM;
	room = header.len <= TX_BYTES - VSOCK_HEADER_BYTES ? header.len : 100;
	vsock_header_encode(&header, ram + TX_BUFFER);
	send_chain(VSOCK_HEADER_BYTES + room);
}

static void host_dials(void)
{
	static const char line[] = "CONNECT 1\nhello";

	close_fd(peer);
	peer = unix_connect(path, 1, NULL);
	if (peer >= 0)
		CHECK(write(peer, line, sizeof(line)) > 0);
}

static void take(uint8_t kind, const uint8_t *header)
{
	int fd;

	switch (kind % STEP_KINDS) {
	case STEP_PACKET:
		send_packet(header);
		break;
	case STEP_BUFFERS:
		add_buffers();
		break;
	case STEP_HOST_DIALS:
		host_dials();
		break;
	case STEP_HOST_WRITES:
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			close_fd(peer);
			peer = fd;
		}
		if (peer >= 0 && send(peer, ram, 5000, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			peer = close_fd(peer);
		break;
	case STEP_HOST_CLOSES:
		peer = close_fd(peer);
		break;
	case STEP_SHORT_CHAIN:
		send_chain(header[0] % VSOCK_HEADER_BYTES + 1);
		break;
	}
}

static void check_bounds(void)
{
	const struct virtio_vsock *v = container_of(dev, struct virtio_vsock, dev);
	const struct vsock_conn *conn;
	unsigned n = 0;

	LIST_FOREACH(conn, &v->all, all)
	{
		CHECK(conn->queue.len <= VSOCK_BUF_ALLOC);
		n++;
	}
	CHECK(n == v->n_conns && n <= VSOCK_CONNS_MAX && v->n_rsts <= VSOCK_RSTS_MAX);
}

/* The device is none the worse: a connection to the sink is accepted. */
static void honest_connection(void)
{
	struct vsock_header header = {.src_cid = CID,
	        .dst_cid = VSOCK_CID_HOST,
	        .src_port = 1,
	        .dst_port = SINK_PORT,
	        .type = VSOCK_TYPE_STREAM,
	        .op = VSOCK_OP_REQUEST,
	        .buf_alloc = 1000};

	start();
	add_buffers();
	vsock_header_encode(&header, ram + TX_BUFFER);
	send_chain(VSOCK_HEADER_BYTES);
	fuzz_run_loop(loop);
	vsock_header_decode(&header, ram + RX_BUFFERS);
	CHECK(header.op == VSOCK_OP_RESPONSE && header.src_port == SINK_PORT && header.dst_port == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t header[VSOCK_HEADER_BYTES];

	if (!dev)
		prepare();
	start();
	for (int n = 0; len >= 2 && n < 64; n++) {
		uint8_t kind = data[0], pace = data[1];
		size_t want = kind % STEP_KINDS == STEP_PACKET || kind % STEP_KINDS == STEP_SHORT_CHAIN
		                      ? sizeof(header)
		                      : 0;
		size_t part = len - 2 < want ? len - 2 : want;

		memset(header, 0, sizeof(header));
		memcpy(header, data + 2, part);
		data += 2 + part;
		len -= 2 + part;
		take(kind, header);
		if (pace & 1)
			fuzz_run_loop(loop);
		check_bounds();
	}
	fuzz_run_loop(loop);
	peer = close_fd(peer);
	for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;)
		close(fd);
	honest_connection();
	return 0;
}
