/* virtio-net, driven by a small virtio driver, over a socket pair that speaks passt's protocol and over a
 * real tap in a network namespace of its own. */
#include "tests/unit/virtq_driver.h"

#include "common/io.h"
#include "devices/net_backend.h"
#include "devices/virtio_net.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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
	bool rx_held; /* used receive buffers are not given back */
	int peer;     /* the other end of the stream, or a packet socket on the tap */
	bool served;  /* atomic: the thread that runs the loop is to end */
};

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

static void post_rx(struct world *w, gpa_t at, uint32_t len)
{
	driver_add(&w->q[RX], &(struct driver_buf){at, len, true}, 1);
}

static void world_start(struct world *w, uint64_t features, unsigned n_rx, uint32_t rx_bytes)
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

static void world_make_device(struct world *w, enum net_backend_kind kind, int fd)
{
	struct virtio_net_config config = {.id = "net0", .kind = kind, .fd = fd, .mtu = 1500};
	struct error err = {0};

	memcpy(config.mac, mac, 6);
	w->dev = virtio_net_new(&config, w->loop, &w->guest.mem, &err);
	if (!w->dev)
		fail_msg("%s: %s", err.field, err.message);
	driver_init(&w->driver, w->dev, w->loop);
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	guest_init(&w->guest, 16 << 20);
	w->loop = loop_new();
	assert_non_null(w->loop);
	w->peer = -1;
	return w;
}

static int setup(void **state)
{
	struct world *w = world_new();
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	w->peer = fds[1];
	world_make_device(w, NET_BACKEND_STREAM, fds[0]);
	*state = w;
	return 0;
}

static int teardown(void **state)
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

static void fill_frame(uint8_t *frame, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(i * 7 + seed);
	memset(frame, 0xff, 6); /* a broadcast, should it meet a real network stack */
	memcpy(frame + 6, mac, 6);
	frame[12] = 0x88; /* an experimental EtherType */
	frame[13] = 0xb5;
}

/* Into the stream, whole. */
static void peer_sends(struct world *w, const uint8_t *frame, size_t len)
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
static void peer_reads(struct world *w, void *ret, size_t len)
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

static void peer_expects(struct world *w, const uint8_t *frame, size_t len)
{
	static uint8_t got[NET_FRAME_MAX];
	uint32_t length;

	peer_reads(w, &length, 4);
	assert_int_equal(be32toh(length), len);
	peer_reads(w, got, len);
	assert_memory_equal(got, frame, len);
}

/* The next frame in the driver's buffers, merged: its length without the header. */
static size_t guest_receives(struct world *w, uint8_t *frame, struct net_header *ret)
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

static void guest_expects(struct world *w, const uint8_t *frame, size_t len)
{
	static uint8_t got[NET_FRAME_MAX];
	struct net_header header;

	assert_int_equal(guest_receives(w, got, &header), len);
	assert_memory_equal(got, frame, len);
	assert_int_equal(header.gso_type, NET_GSO_NONE);
}

static void guest_sends_with(
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

static void guest_sends(struct world *w, const uint8_t *frame, size_t len)
{
	guest_sends_with(w, &(struct net_header){0}, frame, len);
}

static uint16_t tx_done(struct world *w)
{
	uint16_t head, n = 0;
	uint32_t len;

	while (driver_get_used(&w->q[TX], &head, &len))
		n++;
	return n;
}

static uint16_t link_status(struct world *w)
{
	uint16_t status;

	virtio_dev_enter(w->dev);
	virtio_dev_config_read(w->dev, 6, &status, 2);
	virtio_dev_leave(w->dev);
	return le16toh(status);
}

static const uint64_t MERGED = BIT(NET_F_MRG_RXBUF) | BIT(NET_F_MAC) | BIT(NET_F_STATUS);

/* ---- the stream back-end ---- */

static void frames_go_both_ways(void **state)
{
	struct world *w = *state;
	uint8_t frame[1514];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (unsigned i = 0; i < 300; i++) {
		size_t len = 14 + i * 5;

		fill_frame(frame, len, i);
		peer_sends(w, frame, len);
		guest_expects(w, frame, len);
		guest_sends(w, frame, len + (len == 14));
		peer_expects(w, frame, len + (len == 14));
	}
}

static void configuration_space_says_what_there_is(void **state)
{
	struct world *w = *state;
	uint8_t space[12];
	const uint8_t want[12] = {2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1500 & 255, 1500 >> 8};

	virtio_dev_config_read(w->dev, 0, space, sizeof(space));
	assert_memory_equal(space, want, sizeof(want));
	assert_true(virtio_dev_features(w->dev) & BIT(NET_F_MTU));
	assert_false(virtio_dev_features(w->dev) & BIT(NET_F_GUEST_TSO4));
}

static void a_frame_may_come_byte_by_byte(void **state)
{
	struct world *w = *state;
	uint8_t bytes[4 + 60] = {0, 0, 0, 60};

	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_frame(bytes + 4, 60, 3);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		assert_false(driver_queue_has_used(&w->q[RX]));
		assert_int_equal(write(w->peer, bytes + i, 1), 1);
		driver_run_rounds(&w->driver, 2);
	}
	guest_expects(w, bytes + 4, 60);
}

static void the_largest_frame_spans_merged_buffers(void **state)
{
	struct world *w = *state;
	static uint8_t frame[NET_FRAME_MAX];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (unsigned i = 0; i < 5; i++) {
		fill_frame(frame, sizeof(frame) - i, i);
		peer_sends(w, frame, sizeof(frame) - i);
		guest_expects(w, frame, sizeof(frame) - i);
	}
}

static void a_frame_waits_for_the_buffers_it_needs(void **state)
{
	struct world *w = *state;
	uint8_t frame[4000];

	world_start(w, MERGED, 1, RX_BYTES);
	fill_frame(frame, sizeof(frame), 9);
	peer_sends(w, frame, sizeof(frame));
	driver_run_rounds(&w->driver, 3);
	assert_false(driver_queue_has_used(&w->q[RX]));
	post_rx(w, guest_alloc(&w->guest, RX_BYTES, 16), RX_BYTES);
	driver_kick(&w->driver, RX);
	driver_run_rounds(&w->driver, 3);
	assert_false(driver_queue_has_used(&w->q[RX]));
	post_rx(w, guest_alloc(&w->guest, RX_BYTES, 16), RX_BYTES);
	driver_kick(&w->driver, RX);
	guest_expects(w, frame, sizeof(frame));
}

static void a_frame_too_large_for_the_whole_ring_is_dropped(void **state)
{
	struct world *w = *state;
	static uint8_t big[NET_FRAME_MAX];
	uint8_t small[60];

	world_start(w, MERGED, QSIZE, 256);
	fill_frame(big, sizeof(big), 1);
	fill_frame(small, sizeof(small), 2);
	peer_sends(w, big, sizeof(big));
	peer_sends(w, small, sizeof(small));
	guest_expects(w, small, sizeof(small));
}

static void without_merging_a_frame_takes_one_buffer_or_is_dropped(void **state)
{
	struct world *w = *state;
	uint8_t big[2000], small[1514];

	world_start(w, BIT(NET_F_MAC), QSIZE, 1526);
	fill_frame(big, sizeof(big), 1);
	fill_frame(small, sizeof(small), 2);
	for (int i = 0; i < 200; i++) {
		peer_sends(w, big, sizeof(big));
		peer_sends(w, small, sizeof(small));
		guest_expects(w, small, sizeof(small));
	}
}

static void without_buffers_the_peer_waits_and_nothing_spins(void **state)
{
	struct world *w = *state;
	uint8_t frame[1000];
	unsigned sent = 0;
	uint32_t length = htobe32(sizeof(frame));
	struct iovec iov[2] = {{&length, 4}, {frame, sizeof(frame)}};

	world_start(w, MERGED, 0, 0);
	fill_frame(frame, sizeof(frame), 5);
	while (writev(w->peer, iov, 2) == 4 + sizeof(frame)) {
		sent++;
		driver_run_rounds(&w->driver, 1);
		assert_true(sent < 100000);
	}
	/* (The last one may be there in part.) Idle now: the loop sleeps until its deadline timer. */
	loop_timer_arm(w->driver.deadline, 30000000);
	w->driver.late = false;
	assert_int_equal(loop_run(w->loop), 0);
	assert_true(w->driver.late);
	for (unsigned i = 0; i < QSIZE; i++)
		post_rx(w, guest_alloc(&w->guest, RX_BYTES, 16), RX_BYTES);
	driver_kick(&w->driver, RX);
	for (unsigned i = 0; i < sent; i++)
		guest_expects(w, frame, sizeof(frame));
}

static void impossible_lengths_take_the_link_down(void **state)
{
	static const uint32_t lengths[] = {0, NET_FRAME_MAX + 1, 0x80000000u, 0xffffffffu};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct world *w = *state;
		uint32_t length = htobe32(lengths[i]);
		uint8_t frame[60];
		char c;

		world_start(w, MERGED, QSIZE, RX_BYTES);
		assert_int_equal(link_status(w), 1);
		assert_int_equal(write(w->peer, &length, 4), 4);
		driver_run_rounds(&w->driver, 3);
		assert_int_equal(link_status(w), 0);
		assert_int_equal(w->driver.config_interrupts, 1);
		assert_int_equal(read(w->peer, &c, 1), 0); /* closed */
		/* What the guest sends goes nowhere, and it is not stuck. */
		fill_frame(frame, sizeof(frame), 1);
		guest_sends(w, frame, sizeof(frame));
		driver_run_rounds(&w->driver, 2);
		assert_int_equal(tx_done(w), 1);
		assert_int_equal(driver_status(&w->driver) & VIRTIO_STATUS_NEEDS_RESET, 0);
		teardown(state);
		setup(state);
	}
}

static void a_peer_that_hangs_up_takes_the_link_down(void **state)
{
	struct world *w = *state;

	world_start(w, MERGED, QSIZE, RX_BYTES);
	w->peer = close_fd(w->peer);
	driver_run_rounds(&w->driver, 3);
	assert_int_equal(link_status(w), 0);
}

/* The peer goes while frames wait for it, and the device finds out as it looks for room, not by an event. */
static void frames_that_waited_for_a_lost_peer_are_dropped(void **state)
{
	struct world *w = *state;
	static uint8_t frame[60000];
	unsigned sent = 0, done = 0;

	world_start(w, MERGED, 0, 0);
	fill_frame(frame, sizeof(frame), 1);
	while (done == sent && sent < QSIZE / 3) {
		guest_sends(w, frame, sizeof(frame));
		sent++;
		driver_run_rounds(&w->driver, 2);
		done += tx_done(w);
	}
	assert_true(done < sent);
	w->peer = close_fd(w->peer);
	driver_kick(&w->driver, TX);
	driver_run_rounds(&w->driver, 3);
	assert_int_equal(link_status(w), 0);
	assert_int_equal(done + tx_done(w), sent);
}

/* A peer that sends nothing but noise, as fast as it is read, does not keep the loop from others. */
static void runts_do_not_hold_the_loop(void **state)
{
	static uint8_t noise[4000 * 5];
	struct world *w = *state;
	int unread;

	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = i % 5 == 3; /* a length of 1, and a byte */
	assert_int_equal(write(w->peer, noise, sizeof(noise)), sizeof(noise));
	virtio_dev_doorbell(w->dev, RX);
	/* What was read is in the device's buffer; the rest waits for other turns of the loop. */
	assert_int_equal(write(w->peer, noise, sizeof(noise)), sizeof(noise));
	virtio_dev_doorbell(w->dev, RX);
	assert_int_equal(ioctl(w->peer, SIOCOUTQ, &unread), 0);
	assert_true(unread > 0);
	driver_run_rounds(&w->driver, 2 * sizeof(noise) / 5 / 64 + 8);
	assert_int_equal(ioctl(w->peer, SIOCOUTQ, &unread), 0);
	assert_int_equal(unread, 0);
}

static void runts_are_skipped(void **state)
{
	struct world *w = *state;
	uint8_t frame[60];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_frame(frame, sizeof(frame), 1);
	assert_int_equal(write(w->peer, "\0\0\0\5abcde", 9), 9);
	peer_sends(w, frame, sizeof(frame));
	guest_expects(w, frame, sizeof(frame));
}

/* A full socket: frames wait in the ring, a frame sent by half is finished first, none is lost or torn. */
static void a_slow_peer_gets_every_frame_whole(void **state)
{
	struct world *w = *state;
	static uint8_t frame[60000];
	unsigned sent = 0, done = 0;

	world_start(w, MERGED, QSIZE, RX_BYTES);
	while (done == sent && sent < QSIZE / 3) {
		fill_frame(frame, sizeof(frame), sent++);
		guest_sends(w, frame, sizeof(frame));
		driver_run_rounds(&w->driver, 2);
		done += tx_done(w);
	}
	assert_true(done < sent);
	loop_timer_arm(w->driver.deadline, 30000000); /* and nothing spins meanwhile */
	w->driver.late = false;
	assert_int_equal(loop_run(w->loop), 0);
	assert_true(w->driver.late);
	for (unsigned i = 0; i < sent; i++) {
		fill_frame(frame, sizeof(frame), i);
		peer_expects(w, frame, sizeof(frame));
	}
	driver_run_rounds(&w->driver, 2);
	assert_int_equal(done + tx_done(w), sent);
}

/* ---- a driver that lies ---- */

static void a_frame_without_a_header_breaks_the_device(void **state)
{
	struct world *w = *state;

	world_start(w, MERGED, QSIZE, RX_BYTES);
	driver_add(&w->q[TX], &(struct driver_buf){w->tx, NET_HEADER_BYTES - 1, false}, 1);
	driver_kick(&w->driver, TX);
	driver_run_rounds(&w->driver, 2);
	assert_true(driver_status(&w->driver) & VIRTIO_STATUS_NEEDS_RESET);
}

static void a_buffer_without_room_for_the_header_breaks_the_device(void **state)
{
	struct world *w = *state;
	uint8_t frame[60];

	world_start(w, MERGED, 1, NET_HEADER_BYTES - 1);
	fill_frame(frame, sizeof(frame), 1);
	peer_sends(w, frame, sizeof(frame));
	driver_run_rounds(&w->driver, 2);
	assert_true(driver_status(&w->driver) & VIRTIO_STATUS_NEEDS_RESET);
}

static void offloads_not_negotiated_are_dropped(void **state)
{
	struct world *w = *state;
	struct net_header header = {.flags = NET_HEADER_NEEDS_CSUM};
	uint8_t frame[60], last[60];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_frame(frame, sizeof(frame), 1);
	fill_frame(last, sizeof(last), 2);
	guest_sends_with(w, &header, frame, sizeof(frame));
	for (unsigned type = 1; type < 256; type += 3) {
		header = (struct net_header){.gso_type = (uint8_t)type};
		guest_sends_with(w, &header, frame, sizeof(frame));
		driver_run_rounds(&w->driver, 2);
		tx_done(w);
	}
	guest_sends(w, last, sizeof(last));
	peer_expects(w, last, sizeof(last));
}

static void an_oversize_frame_is_dropped(void **state)
{
	struct world *w = *state;
	static uint8_t big[NET_FRAME_MAX + 1];
	uint8_t frame[60];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_frame(big, sizeof(big), 1);
	fill_frame(frame, sizeof(frame), 2);
	guest_sends(w, big, sizeof(big));
	guest_sends(w, frame, sizeof(frame));
	peer_expects(w, frame, sizeof(frame));
}

static void a_reset_in_mid_frame_leaves_the_stream_whole(void **state)
{
	struct world *w = *state;
	static uint8_t frame[60000];
	uint8_t small[60];
	unsigned sent = 0, done = 0;

	world_start(w, MERGED, QSIZE, RX_BYTES);
	while (done == sent) {
		fill_frame(frame, sizeof(frame), sent++);
		guest_sends(w, frame, sizeof(frame));
		driver_run_rounds(&w->driver, 2);
		done += tx_done(w);
	}
	driver_reset(&w->driver);
	driver_run_rounds(&w->driver, 2);
	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_frame(small, sizeof(small), 77);
	guest_sends(w, small, sizeof(small));
	for (unsigned i = 0; i < done; i++) {
		fill_frame(frame, sizeof(frame), i);
		peer_expects(w, frame, sizeof(frame));
	}
	peer_expects(w, small, sizeof(small)); /* what was still in the old ring went with it */
}

/* ---- save and load ---- */

static void *serve(void *ctx)
{
	struct world *w = ctx;

	while (!__atomic_load_n(&w->served, __ATOMIC_SEQ_CST)) /* interrupts stop the loop too */
		if (loop_run(w->loop) < 0)
			abort();
	return NULL;
}

/* A vCPU resets the device while the loop moves frames both ways. From the moment it is reset, guest memory
 * stands still; and the stream to the peer holds whole frames only. */
static void a_vcpu_resets_while_the_loop_works(void **state)
{
	struct world *w = *state;
	uint8_t *snapshot = malloc(w->guest.size), frame[1000];
	gpa_t bottom = w->guest.brk;
	unsigned moved = 0;
	int unread = 0;
	pthread_t thread;

	assert_non_null(snapshot);
	fill_frame(frame, sizeof(frame), 1);
	assert_int_equal(pthread_create(&thread, NULL, serve, w), 0);
	for (int round = 0; round < 200; round++) {
		w->guest.brk = bottom;
		memset(w->guest.ram, 0, w->guest.size);
		for (int i = 0; i < 2; i++)
			driver_queue_init(&w->q[i], &w->guest, QSIZE);
		for (unsigned i = 0; i < 32; i++)
			post_rx(w, guest_alloc(&w->guest, RX_BYTES, 16), RX_BYTES);
		driver_start(&w->driver, MERGED, w->q, 2);
		assert_int_equal(ioctl(w->peer, SIOCOUTQ, &unread), 0);
		for (unsigned i = 0; i < 8; i++) {
			guest_sends(w, frame, sizeof(frame));
			if (unread < 50000)
				peer_sends(w, frame, sizeof(frame));
		}
		for (int spin = 0; spin < round * 100; spin++)
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		driver_reset(&w->driver);
		memcpy(snapshot, w->guest.ram, w->guest.size);
		moved += driver_queue_has_used(&w->q[RX]) || driver_queue_has_used(&w->q[TX]);
		sched_yield();
		assert_memory_equal(snapshot, w->guest.ram, w->guest.size);
		/* What has come so far, in whole frames; a part of one stays for the next round. */
		while (ioctl(w->peer, FIONREAD, &unread) == 0 && unread >= 4 + (int)sizeof(frame))
			peer_expects(w, frame, sizeof(frame));
	}
	assert_true(moved > 0); /* else this tested nothing */
	__atomic_store_n(&w->served, true, __ATOMIC_SEQ_CST);
	loop_stop(w->loop);
	pthread_join(thread, NULL);
	free(snapshot);
}

static void saved_in_mid_operation_it_goes_on_elsewhere(void **state)
{
	struct world *w = *state;
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};
	uint8_t frame[600], other_mac[6];
	int fds[2];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_frame(frame, sizeof(frame), 1);
	peer_sends(w, frame, sizeof(frame));
	guest_expects(w, frame, sizeof(frame));
	guest_sends(w, frame, sizeof(frame));
	peer_expects(w, frame, sizeof(frame));

	virtio_dev_quiesce(w->dev);
	peer_sends(w, frame, sizeof(frame));  /* waits in the socket, and is lost with it: as on a network */
	guest_sends(w, frame, sizeof(frame)); /* is in the ring, and is sent by whoever goes on */
	driver_run_rounds(&w->driver, 3);
	assert_false(driver_queue_has_used(&w->q[RX]));
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);

	driver_done(&w->driver);
	virtio_dev_free(w->dev);
	close(w->peer);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	w->peer = fds[1];
	world_make_device(w, NET_BACKEND_STREAM, fds[0]);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	if (virtio_dev_load(w->dev, &reader, &err) < 0)
		fail_msg("%s", err.message);
	state_writer_done(&writer);
	virtio_dev_resume(w->dev);
	peer_expects(w, frame, sizeof(frame));
	fill_frame(frame, sizeof(frame), 2);
	peer_sends(w, frame, sizeof(frame));
	guest_expects(w, frame, sizeof(frame));
	virtio_dev_config_read(w->dev, 0, other_mac, 6);
	assert_memory_equal(other_mac, mac, 6);
}

/* ---- configuration ---- */

static void configuration_is_checked(void **state)
{
	struct world *w = *state;
	struct virtio_net_config config = {.id = "net0", .kind = NET_BACKEND_STREAM};
	struct error err = {0};
	int fds[2];

	/* Each refusal closes the descriptor. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	config.fd = fds[0];
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "guest_mac");
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
	config.mac[0] = 1;
	config.fd = dup(fds[1]);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_non_null(strstr(err.message, "multicast"));
	config.mac[0] = 2;
	config.mtu = 67;
	config.fd = dup(fds[1]);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "mtu");
	config.mtu = 0;
	config.kind = NET_BACKEND_TAP;
	config.fd = dup(fds[1]);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "host_dev_name");
	config.kind = NET_BACKEND_STREAM;
	config.fd = open("/dev/null", O_RDWR);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "stream_socket_path");
	close(fds[1]);
}

static void tap_names_are_checked(void **state)
{
	static const char *const names[] = {
	        "", "0123456789abcdef", "a/b", "a b", "tap%d", "a:1", ".", "..", "a\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct error err = {0};

		assert_int_equal(virtio_net_open_tap(names[i], &err), -EINVAL);
		assert_string_equal(err.field, "host_dev_name");
	}
}

/* ---- a real tap ---- */

static void interface_up(const char *name)
{
	struct ifreq ifr = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags |= IFF_UP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	close(fd);
}

/* All that the host's stack sees of our EtherType on the interface. */
static int packet_socket(const char *name)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET,
	        .sll_protocol = htobe16(0x88b5),
	        .sll_ifindex = (int)if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htobe16(0x88b5));

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static int setup_tap(void **state)
{
	struct world *w = world_new();
	struct error err = {0};
	int fd;

	*state = w;
	/* Anything done here stays in namespaces of this process. */
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return 0;
	fd = virtio_net_open_tap("hulltest0", &err);
	if (fd < 0)
		return 0;
	world_make_device(w, NET_BACKEND_TAP, fd);
	interface_up("hulltest0");
	w->peer = packet_socket("hulltest0");
	return 0;
}

static void tap_frames_go_both_ways(void **state)
{
	struct world *w = *state;
	uint8_t frame[1514], got[2000];
	uint64_t until = monotonic_ns() + DRIVER_DEADLINE_NS;

	if (!w->dev)
		skip();
	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (unsigned i = 0; i < 100; i++) {
		size_t len = 60 + i * 10;
		struct net_header header;
		ssize_t n;

		fill_frame(frame, len, i);
		assert_int_equal(send(w->peer, frame, len, 0), len);
		do /* the host's stack may have something to say of its own */
			n = (ssize_t)guest_receives(w, got, &header);
		while (got[12] != 0x88 || got[13] != 0xb5);
		assert_int_equal(n, len);
		assert_memory_equal(got, frame, len);
		guest_sends(w, frame, len);
		do {
			driver_run_rounds(&w->driver, 1);
			n = recv(w->peer, got, sizeof(got), 0);
			assert_true(monotonic_ns() < until);
		} while (n < 0);
		assert_int_equal(n, len);
		assert_memory_equal(got, frame, len);
	}
}

static void tap_offers_offloads_and_takes_what_is_chosen(void **state)
{
	struct world *w = *state;
	const uint64_t offloads = BIT(NET_F_CSUM) | BIT(NET_F_GUEST_CSUM) | BIT(NET_F_HOST_TSO4) |
	                          BIT(NET_F_HOST_TSO6) | BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6);

	if (!w->dev)
		skip();
	assert_true((virtio_dev_features(w->dev) & offloads) == offloads);
	world_start(w, MERGED | offloads, QSIZE, RX_BYTES);
	assert_int_equal(link_status(w), 1);
}

static void a_tap_in_use_is_refused(void **state)
{
	struct world *w = *state;
	struct error err = {0};

	if (!w->dev)
		skip();
	assert_int_equal(virtio_net_open_tap("hulltest0", &err), -EBUSY);
	assert_string_equal(err.field, "host_dev_name");
	assert_int_equal(virtio_net_open_tap("lo", &err), -EINVAL); /* is no tap */
}

static void a_tap_that_may_not_be_made_is_refused(void **state)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct before[2], without[2];
	struct world *w = *state;
	struct error err = {0};
	int r;

	if (!w->dev)
		skip();
	assert_int_equal(syscall(SYS_capget, &header, before), 0);
	memcpy(without, before, sizeof(without));
	without[0].effective &= ~(1u << CAP_NET_ADMIN);
	assert_int_equal(syscall(SYS_capset, &header, without), 0);
	r = virtio_net_open_tap("hulltest1", &err);
	assert_int_equal(syscall(SYS_capset, &header, before), 0);
	assert_int_equal(r, -EPERM);
	assert_non_null(strstr(err.message, "does not exist"));
}

#define CASE(fn)     cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define CASE_TAP(fn) cmocka_unit_test_setup_teardown(fn, setup_tap, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(frames_go_both_ways),
	        CASE(configuration_space_says_what_there_is),
	        CASE(a_frame_may_come_byte_by_byte),
	        CASE(the_largest_frame_spans_merged_buffers),
	        CASE(a_frame_waits_for_the_buffers_it_needs),
	        CASE(a_frame_too_large_for_the_whole_ring_is_dropped),
	        CASE(without_merging_a_frame_takes_one_buffer_or_is_dropped),
	        CASE(without_buffers_the_peer_waits_and_nothing_spins),
	        CASE(impossible_lengths_take_the_link_down),
	        CASE(a_peer_that_hangs_up_takes_the_link_down),
	        CASE(frames_that_waited_for_a_lost_peer_are_dropped),
	        CASE(runts_do_not_hold_the_loop),
	        CASE(runts_are_skipped),
	        CASE(a_slow_peer_gets_every_frame_whole),
	        CASE(a_frame_without_a_header_breaks_the_device),
	        CASE(a_buffer_without_room_for_the_header_breaks_the_device),
	        CASE(offloads_not_negotiated_are_dropped),
	        CASE(an_oversize_frame_is_dropped),
	        CASE(a_reset_in_mid_frame_leaves_the_stream_whole),
	        CASE(a_vcpu_resets_while_the_loop_works),
	        CASE(saved_in_mid_operation_it_goes_on_elsewhere),
	        CASE(configuration_is_checked),
	        cmocka_unit_test(tap_names_are_checked),
	        CASE_TAP(tap_frames_go_both_ways),
	        CASE_TAP(tap_offers_offloads_and_takes_what_is_chosen),
	        CASE_TAP(a_tap_in_use_is_refused),
	        CASE_TAP(a_tap_that_may_not_be_made_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
