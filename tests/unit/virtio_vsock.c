/* virtio-vsock: connections from both sides and their ends, what a guest that lies gets, save and load. */
#include "tests/unit/vsock_world.h"

/* ---- connections ---- */

static void guest_connects_talks_and_closes(void **state)
{
	struct world *w = *state;
	const struct vsock_metrics *counts;
	struct vsock_header header;
	uint8_t data[RX_BYTES];
	int fd = guest_connects(w, 5000);

	send_data(w, 5000, 80, "hello", 5);
	expect_bytes(w, fd, "hello");
	assert_int_equal(write(fd, "world", 5), 5);
	assert_true(receive(w, &header, data));
	assert_int_equal(header.op, VSOCK_OP_RW);
	assert_int_equal(header.len, 5);
	assert_int_equal(header.fwd_cnt, 5); /* our credit news travels along */
	assert_memory_equal(data, "world", 5);

	send_op(w, 5000, 80, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
	expect_op(w, 5000, 80, VSOCK_OP_RST);
	expect_end(w, fd);
	expect_silence(w);
	assert_int_equal(vsock_of(w)->n_conns, 0);
	counts = virtio_vsock_metrics(w->dev);
	assert_int_equal(counts->tx_bytes_count, 5);
	assert_int_equal(counts->rx_bytes_count, 5);
	assert_int_equal(counts->tx_packets_count, 3); /* request, data, shutdown */
	assert_int_equal(counts->conns_added, 1);
	assert_int_equal(counts->conns_removed, 1);
	close(fd);
}

static void host_connects_talks_and_closes(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	uint32_t port;
	int fd = host_connects(w, 1024, &port);

	assert_true(port >= 0x40000000u);
	send_data(w, 1024, port, "pong", 4);
	expect_bytes(w, fd, "pong");
	close(fd);
	header = expect_op(w, 1024, port, VSOCK_OP_SHUTDOWN);
	if (header.flags != VSOCK_SHUTDOWN_BOTH) /* end of file, then the hang-up */
		header = expect_op(w, 1024, port, VSOCK_OP_SHUTDOWN);
	assert_int_equal(header.flags, VSOCK_SHUTDOWN_BOTH);
	send_op(w, 1024, port, VSOCK_OP_RST, 0);
	expect_silence(w); /* no RST for an RST */
	assert_int_equal(vsock_of(w)->n_conns, 0);
}

static void bytes_behind_the_connect_line_are_the_stream(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	uint8_t data[RX_BYTES];
	int fd = host_dials(w, "CONNECT 1024\nearly");

	header = expect_op(w, 1024, 0x40000000u, VSOCK_OP_REQUEST);
	expect_silence(w); /* not before the guest has accepted */
	send_op(w, 1024, header.src_port, VSOCK_OP_RESPONSE, 0);
	expect_bytes(w, fd, "OK 1073741824\n");
	assert_true(receive(w, &header, data));
	assert_int_equal(header.op, VSOCK_OP_RW);
	assert_memory_equal(data, "early", 5);
	close(fd);
}

static void connect_line_may_come_byte_by_byte(void **state)
{
	struct world *w = *state;
	const char *line = "CONNECT 4294967294\n";
	int fd = unix_connect(w->path, 1, NULL);

	for (; *line; line++) {
		assert_int_equal(write(fd, line, 1), 1);
		driver_run_rounds(&w->driver, 2);
	}
	expect_op(w, 4294967294u, 0x40000000u, VSOCK_OP_REQUEST);
	close(fd);
}

static void bad_connect_lines_are_hung_up_on(void **state)
{
	struct world *w = *state;
	static const char *const lines[] = {"CONNECT \n", "CONNECT -1\n", "CONNECT +1\n", "CONNECT 0x10\n",
	        "CONNECT 01\n", "CONNECT 4294967295\n", "CONNECT 99999999999\n", "CONNECT 1 \n",
	        "CONNECT 1\r\n", "connect 1\n", "CONNECT  1\n", "GET / HTTP/1.1\n", "\n",
	        "CONNECT 1024 and then no newline for ever"};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int fd = host_dials(w, lines[i]);

		expect_hang_up(w, fd);
		close(fd);
	}
	expect_silence(w);
	assert_int_equal(vsock_of(w)->n_conns, 0);
}

static void silent_client_is_hung_up_on_and_blocks_nobody(void **state)
{
	struct world *w = *state;
	uint32_t port;
	int silent, fd;

	vsock_of(w)->handshake_ns = 50000000;
	silent = host_dials(w, "CONN");
	driver_run_rounds(&w->driver, 2);
	fd = host_connects(w, 1024, &port);
	expect_end(w, silent);
	/* The one that got on has no deadline any more. */
	assert_int_equal(vsock_of(w)->n_conns, 1);
	close(silent);
	close(fd);
}

static void guest_that_does_not_answer_is_given_up_on(void **state)
{
	struct world *w = *state;
	int fd;

	vsock_of(w)->handshake_ns = 50000000;
	fd = host_dials(w, "CONNECT 7\n");
	expect_op(w, 7, 0x40000000u, VSOCK_OP_REQUEST);
	expect_end(w, fd);
	expect_op(w, 7, 0x40000000u, VSOCK_OP_RST);
	close(fd);
}

static void guest_refusal_closes_the_client(void **state)
{
	struct world *w = *state;
	int fd = host_dials(w, "CONNECT 9\n");

	expect_op(w, 9, 0x40000000u, VSOCK_OP_REQUEST);
	send_op(w, 9, 0x40000000u, VSOCK_OP_RST, 0);
	expect_end(w, fd);
	expect_silence(w);
	close(fd);
}

static void nobody_listening_is_refused(void **state)
{
	struct world *w = *state;

	send_op(w, 5000, 81, VSOCK_OP_REQUEST, 0);
	expect_op(w, 5000, 81, VSOCK_OP_RST);
	expect_silence(w);
}

/* ---- shutdown ---- */

static void host_half_close_leaves_the_other_half_open(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	int fd = guest_connects(w, 5000);

	shutdown(fd, SHUT_WR);
	header = expect_op(w, 5000, 80, VSOCK_OP_SHUTDOWN);
	assert_int_equal(header.flags, VSOCK_SHUTDOWN_SEND);
	send_data(w, 5000, 80, "still here", 10);
	expect_bytes(w, fd, "still here");
	close(fd);
	header = expect_op(w, 5000, 80, VSOCK_OP_SHUTDOWN);
	assert_int_equal(header.flags, VSOCK_SHUTDOWN_BOTH);
}

static void guest_half_close_leaves_the_other_half_open(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	int fd = guest_connects(w, 5000);

	send_data(w, 5000, 80, "last", 4);
	send_op(w, 5000, 80, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND);
	expect_bytes(w, fd, "last");
	expect_end(w, fd);
	assert_int_equal(write(fd, "answer", 6), 6);
	assert_true(receive(w, &header, NULL));
	assert_int_equal(header.op, VSOCK_OP_RW);
	/* Data after its own shutdown is a broken protocol. */
	send_data(w, 5000, 80, "more", 4);
	expect_op(w, 5000, 80, VSOCK_OP_RST);
	close(fd);
}

static void guest_that_stops_receiving_breaks_the_hosts_pipe(void **state)
{
	struct world *w = *state;
	int fd = guest_connects(w, 5000);

	send_op(w, 5000, 80, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_RECEIVE);
	driver_run_rounds(&w->driver, 2);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	send_data(w, 5000, 80, "but it sends", 12);
	expect_bytes(w, fd, "but it sends");
	close(fd);
}

/* Everything the guest sent before it closed arrives, however slowly the host reads. */
static void close_waits_for_what_was_sent(void **state)
{
	struct world *w = *state;
	static uint8_t data[65536], got[65536];
	int fd = guest_connects(w, 5000);
	uint32_t sent = 0, read_bytes = 0;

	/* Until the socket is full and some is queued with us. */
	while (LIST_FIRST(&vsock_of(w)->all)->queue.len == 0) {
		fill_pattern(data, sizeof(data), sent);
		send_data(w, 5000, 80, data, sizeof(data));
		sent += sizeof(data);
		while (driver_queue_has_used(&w->q[VSOCK_QUEUE_RX]))
			expect_op(w, 5000, 80, VSOCK_OP_CREDIT_UPDATE);
	}
	send_op(w, 5000, 80, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
	expect_silence(w);
	while (read_bytes < sent) {
		ssize_t n;

		assert_true(run_until_ready(w, fd, EPOLLIN));
		n = read(fd, got, sizeof(got));
		assert_true(n > 0);
		fill_pattern(data, (size_t)n, read_bytes);
		assert_memory_equal(got, data, (size_t)n);
		read_bytes += (uint32_t)n;
	}
	expect_end(w, fd);
	expect_op(w, 5000, 80, VSOCK_OP_RST);
	close(fd);
}

/* A guest that closes and then resets, as Linux does when our RST is late, loses nothing either. */
static void reset_after_close_still_flushes(void **state)
{
	struct world *w = *state;
	static uint8_t data[65536];
	int fd = guest_connects(w, 5000), again;
	uint32_t sent = 0, got = 0;
	ssize_t n;

	while (LIST_FIRST(&vsock_of(w)->all)->queue.len == 0) {
		send_data(w, 5000, 80, data, sizeof(data));
		sent += sizeof(data);
		while (driver_queue_has_used(&w->q[VSOCK_QUEUE_RX]))
			expect_op(w, 5000, 80, VSOCK_OP_CREDIT_UPDATE);
	}
	send_op(w, 5000, 80, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
	send_op(w, 5000, 80, VSOCK_OP_RST, 0);
	/* The ports are free again at once. */
	again = guest_connects(w, 5000);
	do {
		assert_true(run_until_ready(w, fd, EPOLLIN));
		n = read(fd, data, sizeof(data));
		assert_true(n >= 0);
		got += (uint32_t)n;
	} while (n);
	assert_int_equal(got, sent);
	assert_int_equal(vsock_of(w)->n_conns, 1);
	expect_silence(w);
	close(fd);
	close(again);
}

/* ---- a guest that lies ---- */

static void odd_packets_are_refused(void **state)
{
	struct world *w = *state;
	struct vsock_header header = packet(5000, 80, VSOCK_OP_REQUEST);
	int fd;

	header.src_cid = 99; /* forged: dropped without a word */
	send_raw(w, &header, NULL, 0);
	expect_silence(w);

	header = packet(5000, 80, VSOCK_OP_REQUEST);
	header.type = 2; /* SEQPACKET was not offered */
	send_raw(w, &header, NULL, 0);
	assert_int_equal(expect_op(w, 5000, 80, VSOCK_OP_RST).type, 2);

	send_op(w, 5000, 80, 77, 0);
	expect_op(w, 5000, 80, VSOCK_OP_RST);

	fd = guest_connects(w, 5000);
	send_op(w, 5000, 80, 77, 0); /* an unknown operation ends a connection */
	expect_op(w, 5000, 80, VSOCK_OP_RST);
	expect_end(w, fd);
	close(fd);

	fd = guest_connects(w, 5000);
	send_op(w, 5000, 80, VSOCK_OP_REQUEST, 0); /* and so does a second request */
	expect_op(w, 5000, 80, VSOCK_OP_RST);
	close(fd);

	fd = guest_connects(w, 5000);
	send_op(w, 5000, 80, VSOCK_OP_RESPONSE, 0);
	expect_op(w, 5000, 80, VSOCK_OP_RST);
	close(fd);
	expect_silence(w);
	assert_int_equal(driver_status(&w->driver) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

static void length_beyond_the_buffer_breaks_the_device(void **state)
{
	struct world *w = *state;
	struct vsock_header header = packet(5000, 80, VSOCK_OP_RW);
	int fd = guest_connects(w, 5000);

	header.len = 6;
	send_raw(w, &header, "short", 5);
	driver_run_rounds(&w->driver, 2);
	assert_int_equal(driver_status(&w->driver) & VIRTIO_STATUS_NEEDS_RESET, VIRTIO_STATUS_NEEDS_RESET);
	expect_end(w, fd);
	close(fd);
	/* After a reset it works again. */
	memset(w->fwd, 0, sizeof(w->fwd));
	w->next_tx = 0;
	world_start(w, QSIZE, QSIZE);
	fd = guest_connects(w, 5000);
	close(fd);
}

static void buffer_too_small_for_a_header_breaks_the_device(void **state)
{
	struct world *w = *state;

	driver_add(&w->q[VSOCK_QUEUE_TX], &(struct driver_buf){w->tx[0], VSOCK_HEADER_BYTES - 1, false}, 1);
	driver_kick(&w->driver, VSOCK_QUEUE_TX);
	assert_int_equal(driver_status(&w->driver) & VIRTIO_STATUS_NEEDS_RESET, VIRTIO_STATUS_NEEDS_RESET);
}

/* ---- save and load ---- */

static void load_tells_the_guest_that_its_connections_are_gone(void **state)
{
	struct world *w = *state;
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};
	gpa_t event = guest_alloc(&w->guest, 8, 8);
	uint16_t head;
	uint32_t len, port;
	int fd = host_connects(w, 1024, &port), other;

	/* Quiet: what comes now waits, and goes on afterwards. */
	virtio_dev_quiesce(w->dev);
	assert_int_equal(write(fd, "during", 6), 6);
	expect_silence(w);
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	virtio_dev_resume(w->dev);
	assert_int_equal(expect_op(w, 1024, port, VSOCK_OP_RW).len, 6);
	/* The saved rings lack that packet: take it back, as memory restored with the state would. */
	w->q[VSOCK_QUEUE_RX].last_used--;

	driver_done(&w->driver);
	virtio_dev_free(w->dev);
	world_make_device(w);
	expect_end(w, fd);
	close(fd);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	if (virtio_dev_load(w->dev, &reader, &err) < 0)
		fail_msg("%s", err.message);
	state_writer_done(&writer);
	virtio_dev_resume(w->dev);

	/* Nobody is let in before the guest has been told. */
	other = host_dials(w, "CONNECT 1024\n");
	expect_hang_up(w, other);
	close(other);
	driver_add(&w->q[VSOCK_QUEUE_EVENT], &(struct driver_buf){event, 8, true}, 1);
	driver_kick(&w->driver, VSOCK_QUEUE_EVENT);
	assert_true(driver_wait_used(&w->driver, &w->q[VSOCK_QUEUE_EVENT], &head, &len));
	assert_int_equal(len, 4);
	assert_int_equal(*(uint32_t *)guest_ptr(&w->guest, event), 0); /* TRANSPORT_RESET */
	assert_int_equal(vsock_of(w)->next_host_port, 0x40000001u);
}

/* It drops what comes before it has acted on the event, too, and tells nobody: then its buffer is back. */
static void nobody_is_let_in_before_the_guest_has_acted_on_a_restore(void **state)
{
	struct world *w = *state;
	struct driver_queue *events = &w->q[VSOCK_QUEUE_EVENT];
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};
	struct driver_buf buf = {guest_alloc(&w->guest, 8, 8), 8, true};
	struct vsock_header header;
	uint16_t head;
	uint32_t len;
	int early;

	driver_add(events, &buf, 1);
	virtio_dev_quiesce(w->dev);
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	driver_done(&w->driver);
	virtio_dev_free(w->dev);
	world_make_device(w);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	if (virtio_dev_load(w->dev, &reader, &err) < 0)
		fail_msg("%s", err.message);
	state_writer_done(&writer);
	virtio_dev_resume(w->dev);

	assert_true(driver_wait_used(&w->driver, events, &head, &len));
	early = host_dials(w, "CONNECT 1024\n");
	expect_silence(w);
	driver_add(events, &buf, 1);
	assert_true(receive(w, &header, NULL));
	assert_int_equal(header.op, VSOCK_OP_REQUEST);
	close(early);
}

static void who_waits_for_a_guest_that_gives_no_buffer_back_is_let_in_after_ten_seconds(void **state)
{
	struct world *w = *state;
	struct vsock_header header;
	int early;

	vsock_of(w)->event_unheard = true;
	vsock_of(w)->event_sent_ns = monotonic_ns() - 9990000000;
	early = host_dials(w, "CONNECT 1024\n");
	assert_true(receive(w, &header, NULL));
	assert_int_equal(header.op, VSOCK_OP_REQUEST);
	assert_true(monotonic_ns() - vsock_of(w)->event_sent_ns > 10000000000);
	close(early);
}

static void damaged_state_is_refused(void **state)
{
	struct world *w = *state;
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};

	vsock_of(w)->guest_cid = 2; /* the host's own */
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	vsock_of(w)->guest_cid = CID;
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_true(virtio_dev_load(w->dev, &reader, &err) < 0);
	assert_non_null(strstr(err.message, "guest_cid"));
	state_writer_done(&writer);
}

static void configuration_is_checked(void **state)
{
	struct world *w = *state;
	struct virtio_vsock_config config = {.guest_cid = 2, .uds_path = "/tmp/hull-vsock-never"};
	struct error err = {0};
	char long_path[200];

	assert_null(virtio_vsock_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "guest_cid");
	config.guest_cid = 3;
	config.uds_path = w->path; /* alive */
	assert_null(virtio_vsock_new(&config, w->loop, &w->guest.mem, &err));
	assert_string_equal(err.field, "uds_path");
	memset(long_path, 'x', sizeof(long_path));
	long_path[0] = '/';
	long_path[sizeof(long_path) - 1] = 0;
	config.uds_path = long_path;
	assert_null(virtio_vsock_new(&config, w->loop, &w->guest.mem, &err));
	assert_int_equal(err.errnum, ENAMETOOLONG);
	assert_int_equal(access(w->path, F_OK), 0);
}

static void config_space_holds_the_cid(void **state)
{
	struct world *w = *state;
	uint8_t bytes[8];
	const uint8_t want[8] = {CID};

	virtio_dev_config_read(w->dev, 0, bytes, 8);
	assert_memory_equal(bytes, want, 8);
	virtio_dev_config_read(w->dev, 4, bytes, 4);
	assert_memory_equal(bytes, want + 4, 4);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(guest_connects_talks_and_closes),
	        CASE(host_connects_talks_and_closes),
	        CASE(bytes_behind_the_connect_line_are_the_stream),
	        CASE(connect_line_may_come_byte_by_byte),
	        CASE(bad_connect_lines_are_hung_up_on),
	        CASE(silent_client_is_hung_up_on_and_blocks_nobody),
	        CASE(guest_that_does_not_answer_is_given_up_on),
	        CASE(guest_refusal_closes_the_client),
	        CASE(nobody_listening_is_refused),
	        CASE(host_half_close_leaves_the_other_half_open),
	        CASE(guest_half_close_leaves_the_other_half_open),
	        CASE(guest_that_stops_receiving_breaks_the_hosts_pipe),
	        CASE(close_waits_for_what_was_sent),
	        CASE(reset_after_close_still_flushes),
	        CASE(odd_packets_are_refused),
	        CASE(length_beyond_the_buffer_breaks_the_device),
	        CASE(buffer_too_small_for_a_header_breaks_the_device),
	        CASE(load_tells_the_guest_that_its_connections_are_gone),
	        CASE(nobody_is_let_in_before_the_guest_has_acted_on_a_restore),
	        CASE(who_waits_for_a_guest_that_gives_no_buffer_back_is_let_in_after_ten_seconds),
	        CASE(damaged_state_is_refused),
	        CASE(configuration_is_checked),
	        CASE(config_space_holds_the_cid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
