/* A machine as virtio-net sees it: a small virtio driver, and a peer on a socket pair that speaks passt's protocol. */
#ifndef HULL_TESTS_UNIT_NET_WORLD_H
#define HULL_TESTS_UNIT_NET_WORLD_H

#include "tests/unit/virtq_driver.h"

#include "common/io.h"
#include "devices/net_backend.h"
#include "devices/virtio_net.h"

#include <endian.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RX, TX };

#define QSIZE    64u
#define RX_BYTES 1536u /* as Linux provides with merged buffers */
#define BIT(n)   (1ull << (n))

struct world {
	struct guest guest;
	struct loop *loop;
	struct virtio_dev *dev;
	struct driver driver;
	struct driver_queue q[2];
	gpa_t tx;
	uint64_t features;
	struct net_interceptor *interceptor; /* the device's to be; NULL: none */
	const struct rate_limiter_config *rx_limiter, *tx_limiter;
	bool rx_held; /* used receive buffers are not given back */
	int peer;     /* the other end of the stream, or a packet socket on the tap */
	bool served;  /* atomic: the thread that runs the loop is to end */
};

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

static inline void post_rx(struct world *w, gpa_t at, uint32_t len)
{
	driver_add(&w->q[RX], &(struct driver_buf){at, len, true}, 1);
}

static inline void world_start(struct world *w, uint64_t features, unsigned n_rx, uint32_t rx_bytes)
{
	w->features = features;
	for (int i = 0; i < 2; i++)
		driver_queue_init(&w->q[i], &w->guest, QSIZE);
	for (unsigned i = 0; i < n_rx; i++)
		post_rx(w, guest_alloc(&w->guest, rx_bytes, 16), rx_bytes);
	if (!w->tx)
		w->tx = guest_alloc(&w->guest, QSIZE * 4096, 16);
	assert_int_equal(driver_start(&w->driver, features, w->q, 2) & VIRTIO_STATUS_NEEDS_RESET, 0);
	driver_run_rounds(&w->driver, 2);
}

static inline void world_make_device(struct world *w, enum net_backend_kind kind, int fd)
{
	struct virtio_net_config config = {.id = "net0", .kind = kind, .fds = {fd}, .mtu = 1500,
		.interceptor = w->interceptor, .rx_limiter = w->rx_limiter, .tx_limiter = w->tx_limiter};
	struct error err = {0};

	memcpy(config.mac, mac, 6);
	w->dev = virtio_net_new(&config, w->loop, &w->guest.mem, &err);
	if (!w->dev)
		fail_msg("%s: %s", err.field, err.message);
	driver_init(&w->driver, w->dev, w->loop);
}

static inline struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	guest_init(&w->guest, 16 << 20);
	w->loop = loop_new();
	assert_non_null(w->loop);
	w->peer = -1;
	return w;
}

static inline int setup(void **state)
{
	struct world *w = world_new();
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	w->peer = fds[1];
	world_make_device(w, NET_BACKEND_STREAM, fds[0]);
	*state = w;
	return 0;
}

static inline int teardown(void **state)
{
	struct world *w = *state;

	if (w->dev) {
		driver_done(&w->driver);
		virtio_dev_free(w->dev);
	}
	loop_free(w->loop);
	guest_done(&w->guest);
	close_fd(w->peer);
	free(w);
	return 0;
}

/* ---- frames ---- */

static inline void fill_frame(uint8_t *frame, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(i * 7 + seed);
	memset(frame, 0xff, 6); /* a broadcast, should it meet a real network stack */
	memcpy(frame + 6, mac, 6);
	frame[12] = 0x88; /* an experimental EtherType */
	frame[13] = 0xb5;
}

/* Into the stream, whole. */
static inline void peer_sends(struct world *w, const uint8_t *frame, size_t len)
{
	uint32_t length = htobe32((uint32_t)len);

	assert_int_equal(write(w->peer, &length, 4), 4);
	for (size_t at = 0; at < len;) {
		ssize_t n = write(w->peer, frame + at, len - at);

		if (n < 0)
			driver_run_rounds(&w->driver, 1); /* full: let the device read */
		else
			at += (size_t)n;
	}
}

/* Exactly `len` bytes out of the stream. */
static inline void peer_reads(struct world *w, void *ret, size_t len)
{
	uint64_t until = monotonic_ns() + DRIVER_DEADLINE_NS;

	for (size_t at = 0; at < len;) {
		ssize_t n = read(w->peer, (char *)ret + at, len - at);

		assert_true(n != 0 && monotonic_ns() < until);
		if (n > 0)
			at += (size_t)n;
		else
			driver_run_rounds(&w->driver, 1);
	}
}

static inline void peer_expects(struct world *w, const uint8_t *frame, size_t len)
{
	static uint8_t got[NET_FRAME_MAX];
	uint32_t length;

	peer_reads(w, &length, 4);
	assert_int_equal(be32toh(length), len);
	peer_reads(w, got, len);
	assert_memory_equal(got, frame, len);
}

/* The next frame in the driver's buffers, merged: its length without the header. */
static inline size_t guest_receives(struct world *w, uint8_t *frame, struct net_header *ret)
{
	struct driver_queue *q = &w->q[RX];
	size_t len = 0;
	uint16_t head = 0, n;
	uint32_t used = 0;

	assert_true(driver_wait_used(&w->driver, q, &head, &used));
	memcpy(ret, guest_ptr(&w->guest, q->desc_table[head].addr), NET_HEADER_BYTES);
	n = le16toh(ret->num_buffers);
	assert_true(n >= 1);
	for (uint16_t i = 0; i < n; i++) {
		size_t skip = i ? 0 : NET_HEADER_BYTES;

		/* All of them are there when the first one is. */
		if (i)
			assert_true(driver_get_used(q, &head, &used));
		memcpy(frame + len, (uint8_t *)guest_ptr(&w->guest, q->desc_table[head].addr) + skip,
		        used - skip);
		len += used - skip;
		if (!w->rx_held)
			post_rx(w, q->desc_table[head].addr, q->desc_table[head].len);
	}
	if (!w->rx_held)
		driver_kick(&w->driver, RX);
	return len;
}

static inline void guest_expects(struct world *w, const uint8_t *frame, size_t len)
{
	static uint8_t got[NET_FRAME_MAX];
	struct net_header header;

	assert_int_equal(guest_receives(w, got, &header), len);
	assert_memory_equal(got, frame, len);
	assert_int_equal(header.gso_type, NET_GSO_NONE);
}

static inline void guest_sends_with(
        struct world *w, const struct net_header *header, const uint8_t *frame, size_t len)
{
	gpa_t at = guest_alloc(&w->guest, NET_HEADER_BYTES + len, 16);
	struct driver_buf bufs[3] = {{at, NET_HEADER_BYTES, false}, {at + NET_HEADER_BYTES, 14, false},
	        {at + NET_HEADER_BYTES + 14, (uint32_t)len - 14, false}};

	memcpy(guest_ptr(&w->guest, at), header, NET_HEADER_BYTES);
	memcpy(guest_ptr(&w->guest, at + NET_HEADER_BYTES), frame, len);
	driver_add(&w->q[TX], bufs, 3);
	driver_kick(&w->driver, TX);
}

static inline void guest_sends(struct world *w, const uint8_t *frame, size_t len)
{
	guest_sends_with(w, &(struct net_header){0}, frame, len);
}

static inline uint16_t tx_done(struct world *w)
{
	uint16_t head, n = 0;
	uint32_t len;

	while (driver_get_used(&w->q[TX], &head, &len))
		n++;
	return n;
}

static inline uint16_t link_status(struct world *w)
{
	uint16_t status;

	virtio_dev_enter(w->dev);
	virtio_dev_config_read(w->dev, 6, &status, 2);
	virtio_dev_leave(w->dev);
	return le16toh(status);
}

static const uint64_t MERGED = BIT(NET_F_MRG_RXBUF) | BIT(NET_F_MAC) | BIT(NET_F_STATUS);

#endif
