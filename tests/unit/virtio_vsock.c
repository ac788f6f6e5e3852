/* virtio-vsock, driven by a small virtio driver on one side and Unix sockets on the other. */
#include "tests/unit/virtq_driver.h"

#include "common/io.h"
#include "devices/vsock_device.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define CID       42
#define RX_BYTES  4096u
#define TX_BYTES  (VSOCK_HEADER_BYTES + 65536u)
#define TX_SLOTS  8u
#define QSIZE     64u
#define BUF_ALLOC 262144u /* what our guest claims to have for each connection */

struct world {
	char dir[64], path[96], host_path[112];
	struct guest guest;
	struct loop *loop;
	struct virtio_dev *dev;
	struct driver driver;
	struct driver_queue q[VSOCK_QUEUES];
	gpa_t rx[QSIZE], tx[TX_SLOTS], event;
	unsigned next_tx;
	bool rx_held;    /* used receive buffers are not given back */
	uint32_t fwd[8]; /* bytes this guest has consumed, by the last digit of its port */
	int listener;    /* at host port 80 */
	int out[2];      /* a pipe: the sink at port 1025 is its writing end */
};

static struct virtio_vsock *vsock_of(struct world *w)
{
	return container_of(w->dev, struct virtio_vsock, dev);
}

static void post_rx(struct world *w, gpa_t at)
{
	driver_add(&w->q[VSOCK_QUEUE_RX], &(struct driver_buf){at, RX_BYTES, true}, 1);
}

static bool is_settled(void *ctx)
{
	struct virtio_vsock *v = ctx;

	return loop_kick_is_loop_thread(&v->kick);
}

static void on_stop(void *ctx, uint32_t events)
{
	(void)events;
	loop_stop(ctx);
}

/* Runs the loop until `fd` is ready. False after the deadline. */
static bool run_until_ready(struct world *w, int fd, uint32_t events)
{
	struct pollfd p = {.fd = fd, .events = (short)events};
	struct loop_source *source = loop_add_fd(w->loop, fd, events, on_stop, w->loop);
	bool ready;

	assert_non_null(source);
	w->driver.late = false;
	loop_timer_arm(w->driver.deadline, DRIVER_DEADLINE_NS);
	while (!(ready = poll(&p, 1, 0) == 1) && !w->driver.late)
		assert_int_equal(loop_run(w->loop), 0);
	loop_timer_arm(w->driver.deadline, UINT64_MAX);
	loop_remove(source);
	return ready;
}

static void world_start(struct world *w, uint16_t rx_size, unsigned n_rx)
{
	w->driver.late = false;
	for (int i = 0; i < VSOCK_QUEUES; i++)
		driver_queue_init(&w->q[i], &w->guest, i == VSOCK_QUEUE_RX ? rx_size : QSIZE);
	for (unsigned i = 0; i < n_rx; i++) {
		w->rx[i] = guest_alloc(&w->guest, RX_BYTES, 16);
		post_rx(w, w->rx[i]);
	}
	for (unsigned i = 0; i < TX_SLOTS; i++)
		w->tx[i] = guest_alloc(&w->guest, TX_BYTES, 16);
	assert_int_equal(driver_start(&w->driver, 0, w->q, VSOCK_QUEUES) & VIRTIO_STATUS_NEEDS_RESET, 0);
	driver_run_rounds(&w->driver, 2);
	assert_true(is_settled(vsock_of(w)));
}

static void world_make_device(struct world *w)
{
	struct virtio_vsock_sink sink = {.port = 1025, .fd = w->out[1]};
	struct virtio_vsock_config config = {
	        .guest_cid = CID, .uds_path = w->path, .sinks = &sink, .n_sinks = 1};
	struct error err = {0};

	w->dev = virtio_vsock_new(&config, w->loop, &w->guest.mem, &err);
	if (!w->dev)
		fail_msg("%s: %s", err.field, err.message);
	driver_init(&w->driver, w->dev, w->loop);
}

static int setup_with(void **state, unsigned n_rx)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	strcpy(w->dir, "/tmp/hull-vsock-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/v.sock", w->dir);
	snprintf(w->host_path, sizeof(w->host_path), "%s_80", w->path);
	guest_init(&w->guest, 8 << 20);
	w->loop = loop_new();
	assert_non_null(w->loop);
	assert_int_equal(pipe2(w->out, O_CLOEXEC), 0);
	world_make_device(w);
	w->listener = unix_listen(w->host_path, 8, 0600, NULL);
	assert_true(w->listener >= 0);
	world_start(w, QSIZE, n_rx);
	*state = w;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, QSIZE);
}

static int setup_without_buffers(void **state)
{
	return setup_with(state, 0);
}

static int teardown(void **state)
{
	struct world *w = *state;

	driver_done(&w->driver);
	virtio_dev_free(w->dev);
	assert_int_equal(access(w->path, F_OK), -1); /* what it made it removes */
	loop_free(w->loop);
	guest_done(&w->guest);
	close(w->listener);
	close(w->out[0]);
	close_fd(w->out[1]);
	unlink(w->host_path);
	assert_int_equal(rmdir(w->dir), 0);
	free(w);
	return 0;
}

/* ---- the guest's side ---- */

static struct vsock_header packet(uint32_t guest_port, uint32_t host_port, uint16_t op)
{
	return (struct vsock_header){.src_cid = CID,
	        .dst_cid = VSOCK_CID_HOST,
	        .src_port = guest_port,
	        .dst_port = host_port,
	        .type = VSOCK_TYPE_STREAM,
	        .op = op,
	        .buf_alloc = BUF_ALLOC};
}

static void reap_tx(struct world *w)
{
	uint16_t head;
	uint32_t len;

	while (driver_get_used(&w->q[VSOCK_QUEUE_TX], &head, &len))
		assert_int_equal(len, 0);
}

static uint16_t tx_in_flight(struct world *w)
{
	reap_tx(w);
	return (uint16_t)(w->q[VSOCK_QUEUE_TX].next_avail - w->q[VSOCK_QUEUE_TX].last_used);
}

static bool tx_has_slot(void *ctx)
{
	return tx_in_flight(ctx) < TX_SLOTS;
}

/* `bytes` is how long the buffer really is behind the header. */
static void send_raw(struct world *w, const struct vsock_header *header, const void *data, uint32_t bytes)
{
	gpa_t at;

	assert_true(driver_run_until(&w->driver, tx_has_slot, w));
	at = w->tx[w->next_tx++ % TX_SLOTS];
	vsock_header_encode(header, guest_ptr(&w->guest, at));
	if (bytes)
		memcpy((uint8_t *)guest_ptr(&w->guest, at) + VSOCK_HEADER_BYTES, data, bytes);
	driver_add(&w->q[VSOCK_QUEUE_TX], &(struct driver_buf){at, VSOCK_HEADER_BYTES + bytes, false}, 1);
	driver_kick(&w->driver, VSOCK_QUEUE_TX);
}

static void send_op(struct world *w, uint32_t guest_port, uint32_t host_port, uint16_t op, uint32_t flags)
{
	struct vsock_header header = packet(guest_port, host_port, op);

	header.flags = flags;
	header.fwd_cnt = w->fwd[guest_port % 8];
	send_raw(w, &header, NULL, 0);
}

static void send_data(
        struct world *w, uint32_t guest_port, uint32_t host_port, const void *data, uint32_t len)
{
	struct vsock_header header = packet(guest_port, host_port, VSOCK_OP_RW);

	header.len = len;
	header.fwd_cnt = w->fwd[guest_port % 8];
	send_raw(w, &header, data, len);
}

/* The next packet to the guest; its payload into `data` if given. */
static bool receive(struct world *w, struct vsock_header *ret, uint8_t *data)
{
	struct driver_queue *q = &w->q[VSOCK_QUEUE_RX];
	uint16_t head;
	uint32_t len;
	uint8_t *at;

	if (!driver_wait_used(&w->driver, q, &head, &len))
		return false;
	at = guest_ptr(&w->guest, q->desc_table[head].addr);
	vsock_header_decode(ret, at);
	assert_int_equal(len, VSOCK_HEADER_BYTES + ret->len);
	assert_int_equal(ret->src_cid, VSOCK_CID_HOST);
	assert_int_equal(ret->dst_cid, CID);
	if (data)
		memcpy(data, at + VSOCK_HEADER_BYTES, ret->len);
	if (!w->rx_held) {
		post_rx(w, q->desc_table[head].addr);
		driver_kick(&w->driver, VSOCK_QUEUE_RX);
	}
	return true;
}

static struct vsock_header expect_op(struct world *w, uint32_t guest_port, uint32_t host_port, uint16_t op)
{
	struct vsock_header header;

	assert_true(receive(w, &header, NULL));
	assert_int_equal(header.op, op);
	assert_int_equal(header.dst_port, guest_port);
	assert_int_equal(header.src_port, host_port);
	return header;
}

static void expect_silence(struct world *w)
{
	driver_run_rounds(&w->driver, 4);
	assert_false(driver_queue_has_used(&w->q[VSOCK_QUEUE_RX]));
}

/* ---- both sides ---- */

/* A connection from the guest's port to the listener: the host's end. */
static int guest_connects(struct world *w, uint32_t guest_port)
{
	int fd;

	send_op(w, guest_port, 80, VSOCK_OP_REQUEST, 0);
	expect_op(w, guest_port, 80, VSOCK_OP_RESPONSE);
	fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int host_dials(struct world *w, const char *line)
{
	int fd = unix_connect(w->path, 1, NULL);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, line, strlen(line)), (ssize_t)strlen(line));
	return fd;
}

static void expect_bytes(struct world *w, int fd, const char *text)
{
	char got[128];
	size_t len = 0, want = strlen(text);

	while (len < want) {
		ssize_t n;

		assert_true(run_until_ready(w, fd, EPOLLIN));
		n = read(fd, got + len, want - len);
		assert_true(n > 0);
		len += (size_t)n;
	}
	assert_memory_equal(got, text, want);
}

static void expect_end(struct world *w, int fd)
{
	char c;

	assert_true(run_until_ready(w, fd, EPOLLIN));
	assert_int_equal(read(fd, &c, 1), 0);
}

/* As expect_end(), or a reset where we had written what was not read. */
static void expect_hang_up(struct world *w, int fd)
{
	char c;

	assert_true(run_until_ready(w, fd, EPOLLIN));
	assert_true(read(fd, &c, 1) <= 0);
}

/* A connection from the host to the guest's port: the host's end, and the port it was given. */
static int host_connects(struct world *w, uint32_t guest_port, uint32_t *ret_host_port)
{
	struct vsock_header header;
	char line[40];
	int fd;

	snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
	fd = host_dials(w, line);
	assert_true(receive(w, &header, NULL));
	assert_int_equal(header.op, VSOCK_OP_REQUEST);
	assert_int_equal(header.dst_port, guest_port);
	assert_int_equal(header.type, VSOCK_TYPE_STREAM);
	*ret_host_port = header.src_port;
	send_op(w, guest_port, header.src_port, VSOCK_OP_RESPONSE, 0);
	snprintf(line, sizeof(line), "OK %u\n", header.src_port);
	expect_bytes(w, fd, line);
	return fd;
}

static void fill_pattern(uint8_t *data, size_t len, uint64_t offset)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)((offset + i) * 31 >> 3);
}

/* ---- what the driver does at a chosen instant ---- */

/* The linker sends the device's calls here (see devices.mk): the driver adds a buffer after the device has
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

/* ---- connections ---- */

static void guest_connects_talks_and_closes(void **state)
{
	struct world *w = *state;
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

#define CASE(fn)     cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define CASE_DRY(fn) cmocka_unit_test_setup_teardown(fn, setup_without_buffers, teardown)

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
	        CASE(odd_packets_are_refused),
	        CASE(length_beyond_the_buffer_breaks_the_device),
	        CASE(buffer_too_small_for_a_header_breaks_the_device),
	        CASE(sink_gets_the_bytes_and_slows_the_guest_down),
	        CASE(sink_without_a_reader_swallows),
	        CASE(load_tells_the_guest_that_its_connections_are_gone),
	        CASE(damaged_state_is_refused),
	        CASE(configuration_is_checked),
	        CASE(config_space_holds_the_cid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
