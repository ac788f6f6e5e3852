/* virtio-vsock under load: credit both ways, bulk, scarce receive buffers, many connections, sinks. */
#include "tests/unit/vsock_world.h"

/* ---- what the driver does at a chosen instant ---- */

/* The linker sends the device's calls here (see local.mk): the driver adds a buffer after the device has
 * found the ring empty and before it has said that it wants to be told. */
static struct world *adds_unheard;
static int adds_at_call; /* 0: this one */

void __real_virtq_enable_doorbell(struct virtq *vq);
void __wrap_virtq_enable_doorbell(struct virtq *vq);

void __wrap_virtq_enable_doorbell(struct virtq *vq)
{
	struct world *w = adds_unheard;

	if (w && vq == &w->dev->queues[VSOCK_QUEUE_RX] && adds_at_call-- == 0) {
		adds_unheard = NULL;
		post_rx(w, guest_alloc(&w->guest, RX_BYTES, 16));
	}
	__real_virtq_enable_doorbell(vq);
}

/* ---- credit ---- */

static void host_data_stops_at_the_guests_credit(void **state)
{
	struct world *w = *state;
	struct vsock_header header = packet(5000, 80, VSOCK_OP_REQUEST);
	static uint8_t data[20000];
	uint32_t got = 0;
	int fd;

	header.buf_alloc = 10000;
	send_raw(w, &header, NULL, 0);
	expect_op(w, 5000, 80, VSOCK_OP_RESPONSE);
	fd = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
	while (got < 10000) {
		assert_true(receive(w, &header, NULL));
		assert_int_equal(header.op, VSOCK_OP_RW);
		got += header.len;
	}
	assert_int_equal(got, 10000);
	expect_op(w, 5000, 80, VSOCK_OP_CREDIT_REQUEST);
	expect_silence(w); /* asked once */

	header = packet(5000, 80, VSOCK_OP_CREDIT_UPDATE);
	header.buf_alloc = 10000;
	header.fwd_cnt = 4000;
	send_raw(w, &header, NULL, 0);
	while (got < 14000) {
		assert_true(receive(w, &header, NULL));
		assert_int_equal(header.op, VSOCK_OP_RW);
		got += header.len;
	}
	assert_int_equal(got, 14000);
	expect_op(w, 5000, 80, VSOCK_OP_CREDIT_REQUEST);

	/* To have consumed what was never sent is no way to get more. */
	header = packet(5000, 80, VSOCK_OP_CREDIT_UPDATE);
	header.buf_alloc = 10000;
	header.fwd_cnt = 1u << 30;
	send_raw(w, &header, NULL, 0);
	expect_silence(w);
	close(fd);
}

static void guest_that_ignores_our_credit_is_reset(void **state)
{
	struct world *w = *state;
	static uint8_t data[65536];
	struct vsock_header header;
	int fd = guest_connects(w, 5000);
	unsigned n = 0;

	do {
		send_data(w, 5000, 80, data, sizeof(data));
		driver_run_rounds(&w->driver, 1);
		header.op = 0;
		while (driver_queue_has_used(&w->q[VSOCK_QUEUE_RX]))
			assert_true(receive(w, &header, NULL));
		assert_true(++n < 100);
	} while (header.op != VSOCK_OP_RST);
	assert_int_equal(vsock_of(w)->n_conns, 0);
	expect_silence(w);
	close(fd);
}

static void credit_request_is_answered(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	int fd = guest_connects(w, 5000);

	send_data(w, 5000, 80, "abc", 3);
	send_op(w, 5000, 80, VSOCK_OP_CREDIT_REQUEST, 0);
	header = expect_op(w, 5000, 80, VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(header.buf_alloc, VSOCK_BUF_ALLOC);
	assert_int_equal(header.fwd_cnt, 3);
	close(fd);
}

/* ---- bulk ---- */

#define BULK (64u << 20)

static void bulk_from_host_arrives_whole(void **state)
{
	struct world *w = *state;
	static uint8_t data[65536], want[RX_BYTES], got[RX_BYTES];
	struct vsock_header header;
	uint64_t written = 0, received = 0;
	size_t left = 0;
	int fd = guest_connects(w, 5000);

	while (received < BULK) {
		if (!left && written < BULK)
			fill_pattern(data, left = sizeof(data), written);
		while (left) {
			ssize_t n = send(fd, data + sizeof(data) - left, left, MSG_DONTWAIT);

			if (n < 0)
				break;
			left -= (size_t)n;
			written += (uint64_t)n;
		}
		assert_true(receive(w, &header, got));
		if (header.op != VSOCK_OP_RW)
			continue;
		fill_pattern(want, header.len, received);
		assert_memory_equal(got, want, header.len);
		received += header.len;
		w->fwd[5000 % 8] += header.len;
		if (received % 65536 < header.len)
			send_op(w, 5000, 80, VSOCK_OP_CREDIT_UPDATE, 0);
	}
	close(fd);
}

static void bulk_from_guest_arrives_whole(void **state)
{
	struct world *w = *state;
	static uint8_t data[65536], want[65536], got[65536];
	struct vsock_header header;
	uint64_t sent = 0, received = 0, forwarded = 0;
	int fd = guest_connects(w, 5000);

	while (received < BULK) {
		ssize_t n;

		/* As Linux does: as much as the credit allows, waiting for news when there is none. */
		while (sent < BULK && sent - forwarded + sizeof(data) <= VSOCK_BUF_ALLOC) {
			fill_pattern(data, sizeof(data), sent);
			send_data(w, 5000, 80, data, sizeof(data));
			sent += sizeof(data);
		}
		driver_run_rounds(&w->driver, 1);
		while ((n = recv(fd, got, sizeof(got), MSG_DONTWAIT)) > 0) {
			fill_pattern(want, (size_t)n, received);
			assert_memory_equal(got, want, (size_t)n);
			received += (uint64_t)n;
		}
		while (driver_queue_has_used(&w->q[VSOCK_QUEUE_RX])) {
			assert_true(receive(w, &header, NULL));
			assert_int_equal(header.op, VSOCK_OP_CREDIT_UPDATE);
			forwarded += (uint32_t)(header.fwd_cnt - (uint32_t)forwarded);
		}
	}
	close(fd);
}

/* ---- scarce receive buffers ---- */

static void data_waits_for_receive_buffers(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	uint8_t data[RX_BYTES];
	gpa_t at = guest_alloc(&w->guest, RX_BYTES, 16);
	int fd;

	send_op(w, 5000, 80, VSOCK_OP_REQUEST, 0);
	driver_run_rounds(&w->driver, 3);
	fd = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_int_equal(write(fd, "patience", 8), 8);
	driver_run_rounds(&w->driver, 3);
	w->rx_held = true;
	post_rx(w, at);
	driver_kick(&w->driver, VSOCK_QUEUE_RX);
	expect_op(w, 5000, 80, VSOCK_OP_RESPONSE);
	driver_run_rounds(&w->driver, 3);
	post_rx(w, at);
	driver_kick(&w->driver, VSOCK_QUEUE_RX);
	assert_true(receive(w, &header, data));
	assert_int_equal(header.op, VSOCK_OP_RW);
	assert_memory_equal(data, "patience", 8);
	close(fd);
}

/* Two packets are owed, and a buffer for one comes unheard: the doorbell must be on for the other's. */
static void a_buffer_added_unheard_leaves_the_doorbell_on(void **state)
{
	struct world *w = *state;
	struct driver_queue *rx = &w->q[VSOCK_QUEUE_RX];
	struct vsock_header header;
	uint16_t avail_event;

	driver_queue_init(rx, &w->guest, QSIZE);
	driver_queue_init(&w->q[VSOCK_QUEUE_TX], &w->guest, QSIZE);
	driver_queue_init(&w->q[VSOCK_QUEUE_EVENT], &w->guest, QSIZE);
	driver_start(&w->driver, 1ull << VIRTIO_RING_F_EVENT_IDX, w->q, VSOCK_QUEUES);
	driver_run_rounds(&w->driver, 2);
	w->rx_held = true;
	send_op(w, 1, 99, VSOCK_OP_REQUEST, 0);
	send_op(w, 2, 99, VSOCK_OP_REQUEST, 0);
	adds_unheard = w;
	adds_at_call = 1; /* the last look at the ring before the device is done */
	driver_kick(&w->driver, VSOCK_QUEUE_TX);
	assert_null(adds_unheard);
	assert_true(receive(w, &header, NULL));
	/* 2.7.10: the driver rings when it adds the entry of this index. */
	memcpy(&avail_event, &rx->used_ring->ring[QSIZE], sizeof(avail_event));
	assert_int_equal(avail_event, rx->next_avail);
}

static void storm_of_strays_is_bounded_and_answered_once_each(void **state)
{
	struct world *w = *state;
	gpa_t at = guest_alloc(&w->guest, RX_BYTES, 16);
	unsigned sent = 0;

	/* Nothing is received: answers pile up, then the transmit ring rests. */
	while (tx_in_flight(w) < TX_SLOTS && sent < 1000) {
		send_data(w, 6000 + sent++, 80, "x", 1);
		driver_run_rounds(&w->driver, 1);
	}
	assert_int_equal(sent, VSOCK_RSTS_MAX + TX_SLOTS);
	w->rx_held = true;
	for (unsigned i = 0; i < sent; i++) {
		post_rx(w, at);
		driver_kick(&w->driver, VSOCK_QUEUE_RX);
		expect_op(w, 6000 + i, 80, VSOCK_OP_RST);
	}
	expect_silence(w);
	assert_int_equal(tx_in_flight(w), 0);
	/* And RSTs are never answered. */
	for (unsigned i = 0; i < 1000; i++)
		send_op(w, 6000 + i, 80, VSOCK_OP_RST, 0);
	assert_int_equal(vsock_of(w)->n_rsts, 0);
}

static void connections_are_limited(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	int fd;

	/* The sink takes any number, so no host descriptors are needed. */
	for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
		send_op(w, i, 1025, VSOCK_OP_REQUEST, 0);
		header = expect_op(w, i, 1025, VSOCK_OP_RESPONSE);
	}
	send_op(w, 70000, 1025, VSOCK_OP_REQUEST, 0);
	expect_op(w, 70000, 1025, VSOCK_OP_RST);
	fd = host_dials(w, "CONNECT 1\n");
	expect_hang_up(w, fd);
	close(fd);
	send_op(w, 17, 1025, VSOCK_OP_RST, 0);
	send_op(w, 70000, 1025, VSOCK_OP_REQUEST, 0);
	header = expect_op(w, 70000, 1025, VSOCK_OP_RESPONSE);
	assert_int_equal(header.op, VSOCK_OP_RESPONSE);
	driver_reset(&w->driver);
	driver_run_rounds(&w->driver, 2);
	assert_int_equal(vsock_of(w)->n_conns, 0);
}

static void many_connections_do_not_mix(void **state)
{
	struct world *w = *state;
	enum { N = 100 };
	int fds[N];
	char text[16];

	for (unsigned i = 0; i < N; i++) {
		send_op(w, 2000 + i, 80, VSOCK_OP_REQUEST, 0);
		expect_op(w, 2000 + i, 80, VSOCK_OP_RESPONSE);
		fds[i] = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		assert_true(fds[i] >= 0);
	}
	for (unsigned i = 0; i < N; i++) {
		struct vsock_header header = packet(2000 + i, 80, VSOCK_OP_RW);

		header.len = (uint32_t)snprintf(text, sizeof(text), "I am %u", i);
		send_raw(w, &header, text, header.len);
	}
	for (unsigned i = N; i-- > 0;) {
		snprintf(text, sizeof(text), "I am %u", i);
		expect_bytes(w, fds[i], text);
		close(fds[i]);
	}
}

/* ---- sinks ---- */

static void sink_gets_the_bytes_and_slows_the_guest_down(void **state)
{
	struct world *w = *state;
	static uint8_t data[65536], want[65536], got[65536];
	uint64_t sent = 0, received = 0;
	struct vsock_header header;

	send_op(w, 3000, 1025, VSOCK_OP_REQUEST, 0);
	expect_op(w, 3000, 1025, VSOCK_OP_RESPONSE);
	/* The pipe holds 64 KiB, then we do, and then there is no more credit. */
	for (int i = 0; i < 3; i++) {
		fill_pattern(data, sizeof(data), sent);
		send_data(w, 3000, 1025, data, sizeof(data));
		sent += sizeof(data);
	}
	driver_run_rounds(&w->driver, 2);
	while (received < sent) {
		ssize_t n;

		assert_true(run_until_ready(w, w->out[0], EPOLLIN));
		n = read(w->out[0], got, sizeof(got));
		assert_true(n > 0);
		fill_pattern(want, (size_t)n, received);
		assert_memory_equal(got, want, (size_t)n);
		received += (uint64_t)n;
	}
	do
		assert_true(receive(w, &header, NULL));
	while (header.op == VSOCK_OP_CREDIT_UPDATE && header.fwd_cnt != sent);
	assert_int_equal(header.fwd_cnt, sent);
	send_op(w, 3000, 1025, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
	expect_op(w, 3000, 1025, VSOCK_OP_RST);
	assert_int_equal(vsock_of(w)->n_conns, 0);
}

static void sink_without_a_reader_swallows(void **state)
{
	struct world *w = *state;
	static uint8_t data[65536];

	close(w->out[0]);
	w->out[0] = -1;
	signal(SIGPIPE, SIG_IGN);
	send_op(w, 3000, 1025, VSOCK_OP_REQUEST, 0);
	expect_op(w, 3000, 1025, VSOCK_OP_RESPONSE);
	for (int i = 0; i < 5; i++) {
		send_data(w, 3000, 1025, data, sizeof(data));
		expect_op(w, 3000, 1025, VSOCK_OP_CREDIT_UPDATE);
	}
	w->out[0] = open("/dev/null", O_RDONLY);
}

/* As after a restore: the guest has sent on a connection that is gone. It hears so, and what it sent is not lost. */
static void a_sink_takes_what_was_sent_before_the_guest_heard_of_a_restore(void **state)
{
	struct world *w = *state;

	send_data(w, 3000, 1025, "last words", 10);
	expect_op(w, 3000, 1025, VSOCK_OP_RST);
	expect_bytes(w, w->out[0], "last words");
	send_data(w, 3000, 1026, "nobody's", 8);
	expect_op(w, 3000, 1026, VSOCK_OP_RST);
	assert_int_equal(vsock_of(w)->n_conns, 0);
}

#define CASE(fn)     cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define CASE_DRY(fn) cmocka_unit_test_setup_teardown(fn, setup_without_buffers, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(host_data_stops_at_the_guests_credit),
	        CASE(guest_that_ignores_our_credit_is_reset),
	        CASE(credit_request_is_answered),
	        CASE(bulk_from_host_arrives_whole),
	        CASE(bulk_from_guest_arrives_whole),
	        CASE_DRY(data_waits_for_receive_buffers),
	        CASE_DRY(a_buffer_added_unheard_leaves_the_doorbell_on),
	        CASE_DRY(storm_of_strays_is_bounded_and_answered_once_each),
	        CASE(connections_are_limited),
	        CASE(many_connections_do_not_mix),
	        CASE(sink_gets_the_bytes_and_slows_the_guest_down),
	        CASE(sink_without_a_reader_swallows),
	        CASE(a_sink_takes_what_was_sent_before_the_guest_heard_of_a_restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
