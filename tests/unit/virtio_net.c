/* virtio-net over a stream: frames both ways, what a driver or a peer that lies gets, save and load. */
#include "tests/unit/net_world.h"

#include "common/accounting.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sys/ioctl.h>

/* ---- the stream back-end ---- */

static void frames_go_both_ways(void **state)
{
	struct world *w = *state;
	struct accounting before = *accounting;
	const struct net_metrics *counts;
	uint64_t bytes = 0;
	uint8_t frame[1514];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (unsigned i = 0; i < 300; i++) {
		size_t len = 14 + i * 5;

		bytes += len;

		fill_frame(frame, len, i);
		peer_sends(w, frame, len);
		guest_expects(w, frame, len);
		guest_sends(w, frame, len + (len == 14));
		peer_expects(w, frame, len + (len == 14));
	}
	counts = virtio_net_metrics(w->dev);
	assert_int_equal(counts->rx_count, 300);
	assert_int_equal(counts->rx_bytes_count, bytes);
	assert_int_equal(counts->tx_count, 300);
	assert_int_equal(accounting->net_received_packets - before.net_received_packets, 300);
	assert_int_equal(accounting->net_received_bytes - before.net_received_bytes, bytes);
	assert_int_equal(accounting->net_sent_packets - before.net_sent_packets, 300);
	assert_int_equal(accounting->net_sent_bytes - before.net_sent_bytes, bytes + 1);
	assert_int_equal(counts->tx_bytes_count, bytes + 1); /* the shortest went with a byte more */
}

/* An IP packet to `to`, of 4 or 16 bytes. */
static void fill_packet(uint8_t frame[60], const uint8_t *to, size_t len)
{
	fill_frame(frame, 60, 0);
	memcpy(frame + 12, len == 4 ? "\x08\x00" : "\x86\xdd", 2);
	memcpy(frame + (len == 4 ? 30 : 38), to, len);
}

/* passt would connect to what listens on the host's own loopback. */
static void a_packet_for_the_hosts_loopback_goes_nowhere(void **state)
{
	struct world *w = *state;
	static const uint8_t loopback[][16] = {{127, 0, 0, 1}, {127, 255, 0, 1}, {0, 0, 0, 0}, {0, 1, 2, 3}};
	static const uint8_t loopback6[][16] = {{[15] = 1}, {0}, {[10] = 0xff, 0xff, 127, 0, 0, 1}, {[12] = 127, 0, 0, 1}};
	static const uint8_t other[4] = {128, 0, 0, 1}, other6[16] = {[9] = 1, [15] = 1};
	uint8_t frame[60];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (size_t i = 0; i < ARRAY_SIZE(loopback); i++) {
		fill_packet(frame, loopback[i], 4);
		guest_sends(w, frame, sizeof(frame));
		guest_sends(w, frame, 34);
		fill_packet(frame, loopback6[i], 16);
		guest_sends(w, frame, sizeof(frame));
		guest_sends(w, frame, 54);
	}
	fill_packet(frame, other, 4);
	guest_sends(w, frame, sizeof(frame));
	peer_expects(w, frame, sizeof(frame)); /* the first that comes */
	fill_packet(frame, other6, 16);
	guest_sends(w, frame, sizeof(frame));
	peer_expects(w, frame, sizeof(frame));
	fill_packet(frame, loopback[0], 4);
	frame[12] = 9; /* no IP */
	guest_sends(w, frame, sizeof(frame));
	peer_expects(w, frame, sizeof(frame));
	assert_int_equal(tx_done(w), 4 * ARRAY_SIZE(loopback) + 3);
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

/* A doorbell that comes meanwhile goes nowhere; who goes on looks. */
static void starved_and_paused_it_finds_what_was_given_meanwhile(void **state)
{
	struct world *w = *state;
	uint8_t frame[600];

	world_start(w, MERGED, 0, RX_BYTES);
	fill_frame(frame, sizeof(frame), 1);
	peer_sends(w, frame, sizeof(frame));
	driver_run_rounds(&w->driver, 3); /* without a buffer for it */
	virtio_dev_quiesce(w->dev);
	post_rx(w, guest_alloc(&w->guest, RX_BYTES, 16), RX_BYTES);
	driver_kick(&w->driver, RX);
	virtio_dev_resume(w->dev);
	guest_expects(w, frame, sizeof(frame));
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
	config.fds[0] = fds[0];
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "guest_mac");
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
	config.mac[0] = 1;
	config.fds[0] = dup(fds[1]);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_non_null(strstr(err.message, "multicast"));
	config.mac[0] = 2;
	config.mtu = 67;
	config.fds[0] = dup(fds[1]);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "mtu");
	config.mtu = 0;
	config.kind = NET_BACKEND_TAP;
	config.fds[0] = dup(fds[1]);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "host_dev_name");
	config.kind = NET_BACKEND_STREAM;
	config.fds[0] = open("/dev/null", O_RDWR);
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "stream_socket_path");
	close(fds[1]);
}

static void a_stream_may_be_a_descriptor_from_the_start(void **state)
{
	static const char *const wrong[] = {"/dev/fd/", "/dev/fd/x", "/dev/fd/-1", "/dev/fd/ 3", "/dev/fd/3x", "/dev/fd/99999999999"};
	struct error err;
	char path[32], byte;
	int ends[2], fd;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
	fd = virtio_net_open_stream(path, &err);
	assert_true(fd >= 0 && fd != ends[0]);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(read(ends[1], &byte, 1), 1);
	close(fd);
	close(ends[0]);
	assert_int_equal(virtio_net_open_stream(path, &err), -EBADF);
	close(ends[1]);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(virtio_net_open_stream(wrong[i], &err), -EINVAL);
		assert_non_null(strstr(err.message, "no number of a descriptor"));
	}
}

static void tap_names_are_checked(void **state)
{
	static const char *const names[] = {
	        "", "0123456789abcdef", "a/b", "a b", "tap%d", "a:1", ".", "..", "a\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct error err = {0};

		assert_int_equal(virtio_net_open_tap(names[i], false, &err), -EINVAL);
		assert_string_equal(err.field, "host_dev_name");
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(frames_go_both_ways),
	        CASE(a_packet_for_the_hosts_loopback_goes_nowhere),
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
	        CASE(starved_and_paused_it_finds_what_was_given_meanwhile),
	        CASE(configuration_is_checked),
	        cmocka_unit_test(a_stream_may_be_a_descriptor_from_the_start),
	        cmocka_unit_test(tap_names_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
