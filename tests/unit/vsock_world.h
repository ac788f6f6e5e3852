/* A machine as virtio-vsock sees it: a small virtio driver on one side and Unix sockets on the other. */
#ifndef HULL_TESTS_UNIT_VSOCK_WORLD_H
#define HULL_TESTS_UNIT_VSOCK_WORLD_H

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

static inline struct virtio_vsock *vsock_of(struct world *w)
{
	return container_of(w->dev, struct virtio_vsock, dev);
}

static inline void post_rx(struct world *w, gpa_t at)
{
	driver_add(&w->q[VSOCK_QUEUE_RX], &(struct driver_buf){at, RX_BYTES, true}, 1);
}

static inline bool is_settled(void *ctx)
{
	struct virtio_vsock *v = ctx;

	return loop_kick_is_loop_thread(&v->kick);
}

static inline void on_stop(void *ctx, uint32_t events)
{
	(void)events;
	loop_stop(ctx);
}

/* Runs the loop until `fd` is ready. False after the deadline. */
static inline bool run_until_ready(struct world *w, int fd, uint32_t events)
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

static inline void world_start(struct world *w, uint16_t rx_size, unsigned n_rx)
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

static inline void world_make_device(struct world *w)
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

static inline int setup_with(void **state, unsigned n_rx)
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

static inline int setup(void **state)
{
	return setup_with(state, QSIZE);
}

static inline int setup_without_buffers(void **state)
{
	return setup_with(state, 0);
}

static inline int teardown(void **state)
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

static inline struct vsock_header packet(uint32_t guest_port, uint32_t host_port, uint16_t op)
{
	return (struct vsock_header){.src_cid = CID,
	        .dst_cid = VSOCK_CID_HOST,
	        .src_port = guest_port,
	        .dst_port = host_port,
	        .type = VSOCK_TYPE_STREAM,
	        .op = op,
	        .buf_alloc = BUF_ALLOC};
}

static inline void reap_tx(struct world *w)
{
	uint16_t head;
	uint32_t len;

	while (driver_get_used(&w->q[VSOCK_QUEUE_TX], &head, &len))
		assert_int_equal(len, 0);
}

static inline uint16_t tx_in_flight(struct world *w)
{
	reap_tx(w);
	return (uint16_t)(w->q[VSOCK_QUEUE_TX].next_avail - w->q[VSOCK_QUEUE_TX].last_used);
}

static inline bool tx_has_slot(void *ctx)
{
	return tx_in_flight(ctx) < TX_SLOTS;
}

/* `bytes` is how long the buffer really is behind the header. */
static inline void send_raw(struct world *w, const struct vsock_header *header, const void *data, uint32_t bytes)
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

static inline void send_op(struct world *w, uint32_t guest_port, uint32_t host_port, uint16_t op, uint32_t flags)
{
	struct vsock_header header = packet(guest_port, host_port, op);

	header.flags = flags;
	header.fwd_cnt = w->fwd[guest_port % 8];
	send_raw(w, &header, NULL, 0);
}

static inline void send_data(
        struct world *w, uint32_t guest_port, uint32_t host_port, const void *data, uint32_t len)
{
	struct vsock_header header = packet(guest_port, host_port, VSOCK_OP_RW);

	header.len = len;
	header.fwd_cnt = w->fwd[guest_port % 8];
	send_raw(w, &header, data, len);
}

/* The next packet to the guest; its payload into `data` if given. */
static inline bool receive(struct world *w, struct vsock_header *ret, uint8_t *data)
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

static inline struct vsock_header expect_op(struct world *w, uint32_t guest_port, uint32_t host_port, uint16_t op)
{
	struct vsock_header header;

	assert_true(receive(w, &header, NULL));
	assert_int_equal(header.op, op);
	assert_int_equal(header.dst_port, guest_port);
	assert_int_equal(header.src_port, host_port);
	return header;
}

static inline void expect_silence(struct world *w)
{
	driver_run_rounds(&w->driver, 4);
	assert_false(driver_queue_has_used(&w->q[VSOCK_QUEUE_RX]));
}

/* ---- both sides ---- */

/* A connection from the guest's port to the listener: the host's end. */
static inline int guest_connects(struct world *w, uint32_t guest_port)
{
	int fd;

	send_op(w, guest_port, 80, VSOCK_OP_REQUEST, 0);
	expect_op(w, guest_port, 80, VSOCK_OP_RESPONSE);
	fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static inline int host_dials(struct world *w, const char *line)
{
	int fd = unix_connect(w->path, 1, NULL);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, line, strlen(line)), (ssize_t)strlen(line));
	return fd;
}

static inline void expect_bytes(struct world *w, int fd, const char *text)
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

static inline void expect_end(struct world *w, int fd)
{
	char c;

	assert_true(run_until_ready(w, fd, EPOLLIN));
	assert_int_equal(read(fd, &c, 1), 0);
}

/* As expect_end(), or a reset where we had written what was not read. */
static inline void expect_hang_up(struct world *w, int fd)
{
	char c;

	assert_true(run_until_ready(w, fd, EPOLLIN));
	assert_true(read(fd, &c, 1) <= 0);
}

/* A connection from the host to the guest's port: the host's end, and the port it was given. */
static inline int host_connects(struct world *w, uint32_t guest_port, uint32_t *ret_host_port)
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

static inline void fill_pattern(uint8_t *data, size_t len, uint64_t offset)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)((offset + i) * 31 >> 3);
}

#endif
