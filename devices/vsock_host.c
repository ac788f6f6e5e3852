/* virtio-vsock's host side: the Unix sockets. See vsock_device.h for the whole. */
#include "devices/vsock_device.h"

#include "common/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LISTEN_BACKLOG 4096 /* the kernel has a limit of its own (somaxconn) */
/* Connections taken in one go. */
#define ACCEPT_BUDGET 16
/* How long to leave connections waiting when there are no descriptors for them. */
#define ACCEPT_PAUSE_NS 100000000ull
#define DROPS_PAUSE_NS  1000000ull
/* Receive buffers filled by one readv(): 64 KiB of the 4 KiB that Linux provides. */
#define READ_AHEAD_MAX 16

/* Connections. */

void vsock_host_detach(struct vsock_conn *conn)
{
	loop_remove(conn->source);
	conn->source = NULL;
	conn->fd = close_fd(conn->fd);
	if (conn->sink)
		vsock_sink_wait(conn, false);
	conn->sink = NULL;
}

static bool wants_read(const struct vsock_conn *conn)
{
	if (conn->state == VSOCK_CONN_GREETING)
		return true;
	/* Nothing may overtake our RESPONSE. */
	return conn->state == VSOCK_CONN_ESTABLISHED && conn->fd >= 0 && !conn->host_eof &&
	       !(conn->owed & VSOCK_OWED_RESPONSE) && !(conn->guest_shut & VSOCK_SHUTDOWN_RECEIVE);
}

bool vsock_host_lacks_credit(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_CONN_ESTABLISHED && wants_read(conn) && !vsock_conn_credit(conn);
}

void vsock_host_watch(struct vsock_conn *conn)
{
	uint32_t events = 0;

	if (conn->sink) {
		vsock_sink_wait(conn, conn->queue.len > 0);
		return;
	}
	if (!conn->source)
		return;
	if (wants_read(conn) && !conn->waits_for_ring &&
	        (conn->state == VSOCK_CONN_GREETING || vsock_conn_credit(conn)))
		events |= EPOLLIN;
	if (conn->queue.len)
		events |= EPOLLOUT;
	/* Otherwise only its end is of interest, once: level-triggered it would be reported without end. */
	if (!events && !conn->hung_up)
		events = EPOLLET;
	if (events == conn->watched)
		return;
	if (loop_set_events(conn->source, events) == 0)
		conn->watched = events;
}

/* Nobody reads the host socket any more: what the guest sends now goes nowhere, and it is told so. */
static void host_is_gone(struct vsock_conn *conn)
{
	uint32_t lost = conn->queue.len;

	conn->host_gone = true;
	vsock_queue_drop(&conn->queue, lost);
	vsock_conn_forwarded(conn, lost);
	vsock_conn_host_shut(conn, VSOCK_SHUTDOWN_RECEIVE);
}

/* The host socket has ended in both directions. What can still be read from it is read first. */
static void check_hang_up(struct vsock_conn *conn)
{
	if (!conn->hung_up)
		return;
	if (conn->state == VSOCK_CONN_REQUESTED)
		vsock_conn_close(conn);
	else if (!wants_read(conn))
		vsock_conn_host_shut(conn, VSOCK_SHUTDOWN_BOTH);
}

/* Guest to host. */

/* Bytes written; 0 when the socket is full or nobody reads it. */
static size_t host_write(struct vsock_conn *conn, struct iovec *iov, int n)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
	ssize_t sent;

	if (conn->sink)
		return vsock_sink_write(conn->sink, iov, n);
	do
		sent = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return (size_t)sent;
	if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM) {
		metric_inc(&conn->vsock->metrics.tx_write_fails);
		host_is_gone(conn);
	}
	return 0;
}

void vsock_host_deliver(
        struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t offset, uint32_t len)
{
	struct iovec iov[VIRTQ_IOV_MAX];
	uint32_t written = 0;

	metric_add(&conn->vsock->metrics.tx_bytes_count, len);
	/* Straight from the guest's buffers, unless something is waiting before it. */
	if (!conn->host_gone && !conn->queue.len) {
		int n = virtq_chain_slice(chain, offset, len, iov);

		written = (uint32_t)host_write(conn, iov, n);
	}
	if (conn->host_gone)
		written = len;
	else if (vsock_queue_put(&conn->queue, chain->iov, offset + written, len - written) < 0) {
		vsock_conn_close(conn); /* no memory: vsock_conn_packet() has seen that there is room */
		return;
	}
	vsock_conn_forwarded(conn, written);
}

/* The guest has shut a half: the host sees that once it has got all that was sent before. */
static void pass_shutdown_on(struct vsock_conn *conn)
{
	if (conn->guest_shut & VSOCK_SHUTDOWN_RECEIVE && conn->fd >= 0 && !conn->shut_receive_done) {
		shutdown(conn->fd, SHUT_RD);
		conn->shut_receive_done = true;
	}
	if (conn->queue.len)
		return;
	if (conn->state == VSOCK_CONN_CLOSING) {
		vsock_conn_close(conn);
	} else if (conn->guest_shut & VSOCK_SHUTDOWN_SEND && conn->fd >= 0 && !conn->shut_send_done) {
		shutdown(conn->fd, SHUT_WR);
		conn->shut_send_done = true;
	}
}

void vsock_host_flush(struct vsock_conn *conn)
{
	struct iovec iov[2];
	size_t written;
	int n;

	while ((n = vsock_queue_peek(&conn->queue, iov)) > 0) {
		written = host_write(conn, iov, n);
		if (!written)
			break; /* full, or gone and the queue with it */
		vsock_queue_drop(&conn->queue, (uint32_t)written);
		vsock_conn_forwarded(conn, (uint32_t)written);
	}
	pass_shutdown_on(conn);
}

/* Host to guest. */

void vsock_host_unpark(struct virtio_vsock *v)
{
	struct vsock_conn *conn;

	v->parked = false;
	loop_set_events(v->listen_source, EPOLLIN);
	LIST_FOREACH(conn, &v->all, all)
	vsock_host_watch(conn);
}

/* Hands `got` bytes in the batch to the guest, a packet for each buffer. 0 or -EFAULT. */
static int send_data(struct virtio_vsock *v, struct vsock_conn *conn, size_t got)
{
	uint8_t bytes[VSOCK_HEADER_BYTES];
	struct vsock_header header;

	while (got) {
		uint32_t room = v->batch.chains[v->batch.taken].bytes;
		uint32_t len = got < room ? (uint32_t)got : room;

		vsock_conn_data_header(conn, len, &header);
		vsock_header_encode(&header, bytes);
		virtq_batch_write_head(&v->batch, v->batch.taken, 0, bytes, sizeof(bytes));
		if (virtq_batch_take(&v->batch, len, false) < 0)
			return -EFAULT;
		metric_inc(&v->metrics.rx_packets_count);
		metric_add(&v->metrics.rx_bytes_count, len);
		v->rx_used = true;
		got -= len;
	}
	return 0;
}

/* readv() of at most `limit` bytes into the batch. As readv(). */
static ssize_t read_into_batch(struct virtio_vsock *v, int fd, uint32_t limit)
{
	uint16_t n;
	struct iovec *iov = virtq_batch_iov(&v->batch, &n), saved;
	uint64_t total = 0;
	ssize_t got;
	uint16_t i;

	for (i = 0; i < n && total + iov[i].iov_len <= limit; i++)
		total += iov[i].iov_len;
	if (i < n && total < limit) {
		saved = iov[i];
		iov[i].iov_len = limit - total;
		got = readv(fd, iov, i + 1);
		iov[i] = saved;
		return got;
	}
	return readv(fd, iov, i);
}

static void host_read(struct virtio_vsock *v, struct vsock_conn *conn)
{
	uint32_t credit = vsock_conn_credit(conn);
	uint64_t room;
	ssize_t got;

	if (!credit || !v->dev.queues[VSOCK_QUEUE_RX].ready)
		return;
	virtq_batch_begin(&v->batch, &v->dev.queues[VSOCK_QUEUE_RX], VSOCK_HEADER_BYTES);
	if (virtq_batch_fill(&v->batch, conn->read_ahead, credit) < 0) {
		vsock_break(v, "malformed buffer in the receive queue");
		return;
	}
	if (!v->batch.n) {
		TAILQ_INSERT_TAIL(&v->ring_wait, conn, ring_wait);
		conn->waits_for_ring = true;
		return;
	}
	room = v->batch.bytes;
	got = read_into_batch(v, conn->fd, credit);
	if (got > 0 && send_data(v, conn, (size_t)got) < 0) {
		vsock_break(v, "receive queue outside memory");
		return;
	}
	virtq_batch_return(&v->batch);
	if (got < 0 && errno != EAGAIN && errno != EINTR)
		metric_inc(&v->metrics.rx_read_fails);
	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
		/* ECONNRESET: it closed without reading all that the guest sent. The guest has had all it
		 * sent. */
		conn->host_eof = true;
		vsock_conn_host_shut(conn, VSOCK_SHUTDOWN_SEND);
		return;
	}
	/* Popping buffers that are then given back costs: ask for more only of one that fills them. */
	if (got > 0 && (uint64_t)got == room)
		conn->read_ahead =
		        conn->read_ahead * 2 <= READ_AHEAD_MAX ? conn->read_ahead * 2 : READ_AHEAD_MAX;
	else
		conn->read_ahead = 1;
}

/* The CONNECT line. */

static uint32_t free_host_port(struct virtio_vsock *v, uint32_t guest_port)
{
	const uint32_t first = 0x40000000u;
	uint32_t port;

	do {
		port = v->next_host_port;
		v->next_host_port = first | ((port + 1) & (first - 1));
	} while (vsock_conn_find(v, guest_port, port)); /* ends: there are far more ports than connections */
	return port;
}

static void greeted(struct virtio_vsock *v, struct vsock_conn *conn)
{
	uint32_t port;

	if (vsock_greeting_parse(conn->greeting, conn->greeting_len, &port) < 0) {
		vsock_conn_close(conn);
		return;
	}
	conn->guest_port = port;
	conn->host_port = free_host_port(v, port);
	conn->state = VSOCK_CONN_REQUESTED;
	conn->owed = VSOCK_OWED_REQUEST;
	vsock_conn_enter(conn);
	vsock_conn_set_deadline(conn, true);
}

/* Takes no byte behind the newline: that is already the stream. */
static void read_greeting(struct virtio_vsock *v, struct vsock_conn *conn)
{
	char *end = conn->greeting + conn->greeting_len, *newline;
	size_t room = sizeof(conn->greeting) - conn->greeting_len;
	ssize_t got = recv(conn->fd, end, room, MSG_PEEK | MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		vsock_conn_close(conn);
		return;
	}
	newline = memchr(end, '\n', (size_t)got);
	got = recv(conn->fd, end, newline ? (size_t)(newline + 1 - end) : (size_t)got, MSG_DONTWAIT);
	if (got < 0) {
		vsock_conn_close(conn);
		return;
	}
	conn->greeting_len += (uint8_t)(newline ? got - 1 : got);
	if (newline)
		greeted(v, conn);
	else if (conn->greeting_len == sizeof(conn->greeting))
		vsock_conn_close(conn);
}

void vsock_host_opened(struct vsock_conn *conn)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "OK %" PRIu32 "\n", conn->host_port);

	/* The first bytes into a new socket: they fit, or the peer is gone. */
	if (send(conn->fd, line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) != len)
		vsock_conn_close(conn);
}

/* Events. */

static void on_conn(void *ctx, uint32_t epoll_events)
{
	struct vsock_conn *conn = ctx;
	struct virtio_vsock *v = conn->vsock;

	virtio_dev_enter(&v->dev);
	if (!vsock_is_running(v)) {
		/* Nothing can move. vsock_service() sets the watch anew when it can. */
		loop_set_events(conn->source, 0);
		conn->watched = 0;
		v->parked = true;
		vsock_service(v);
		virtio_dev_leave(&v->dev);
		return;
	}
	if (epoll_events & (EPOLLHUP | EPOLLERR))
		conn->hung_up = true;
	if (conn->state == VSOCK_CONN_GREETING) {
		read_greeting(v, conn);
	} else {
		if (conn->queue.len && epoll_events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
			vsock_host_flush(conn);
		if (wants_read(conn) && !conn->waits_for_ring &&
		        epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			host_read(v, conn);
		check_hang_up(conn);
	}
	vsock_conn_settle(conn);
	vsock_service(v);
	virtio_dev_leave(&v->dev);
}

static int watch_conn(struct vsock_conn *conn, uint32_t events)
{
	conn->source = loop_add_fd(conn->vsock->loop, conn->fd, events, on_conn, conn);
	if (!conn->source)
		return -errno;
	conn->watched = events;
	return 0;
}

int vsock_host_connect(struct vsock_conn *conn, uint32_t port)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 16];
	int len = snprintf(path, sizeof(path), "%s_%" PRIu32, conn->vsock->uds_path, port);
	int fd;

	if (len < 0 || (size_t)len >= sizeof(path))
		return -ENAMETOOLONG;
	/* A Unix socket connects at once or not at all (a full backlog is EAGAIN): there is nothing to wait
	 * for. */
	fd = unix_connect(path, 1, NULL);
	if (fd < 0)
		return fd;
	conn->fd = fd;
	return watch_conn(conn, EPOLLET);
}

static void add_client(struct virtio_vsock *v, int fd)
{
	struct vsock_conn *conn = NULL;

	if (vsock_is_running(v) && !v->event_owed)
		conn = vsock_conn_add(v, VSOCK_CONN_GREETING, 0, 0);
	if (!conn) {
		close_fd(fd); /* nobody inside, or too many: an end of file tells */
		return;
	}
	conn->fd = fd;
	if (watch_conn(conn, EPOLLIN) < 0)
		vsock_conn_close(conn);
	else
		vsock_conn_set_deadline(conn, true);
	vsock_conn_settle(conn);
}

static void pause_accepting(struct virtio_vsock *v, uint64_t ns)
{
	loop_set_events(v->listen_source, 0);
	loop_timer_arm(v->accept_timer, ns);
}

static void on_accept(void *ctx, uint32_t epoll_events)
{
	struct virtio_vsock *v = ctx;

	(void)epoll_events;
	virtio_dev_enter(&v->dev);
	if (v->quiet) {
		/* A snapshot is being taken: they wait a moment. */
		loop_set_events(v->listen_source, 0);
		v->parked = true;
		virtio_dev_leave(&v->dev);
		return;
	}
	if (vsock_is_running(v) && vsock_drops_connections(v)) {
		pause_accepting(v, DROPS_PAUSE_NS);
		virtio_dev_leave(&v->dev);
		return;
	}
	for (int i = 0; i < ACCEPT_BUDGET; i++) {
		int fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			add_client(v, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			/* It stays readable: looking again at once would burn the processor for nothing. */
			pause_accepting(v, ACCEPT_PAUSE_NS);
		}
		break;
	}
	vsock_service(v);
	virtio_dev_leave(&v->dev);
}

static void on_accept_timer(void *ctx)
{
	struct virtio_vsock *v = ctx;

	loop_set_events(v->listen_source, EPOLLIN);
}

static void on_deadline(void *ctx)
{
	struct virtio_vsock *v = ctx;
	struct vsock_conn *conn;
	uint64_t now = monotonic_ns();

	virtio_dev_enter(&v->dev);
	while ((conn = TAILQ_FIRST(&v->deadlines)) && conn->deadline_ns <= now) {
		metric_inc(&v->metrics.conns_killed);
		vsock_conn_close(conn);
		vsock_conn_settle(conn);
	}
	if (conn)
		loop_timer_arm(v->timer, conn->deadline_ns - now);
	vsock_service(v);
	virtio_dev_leave(&v->dev);
}

/* The listening socket. */

int vsock_host_listen(struct virtio_vsock *v, const char *path, struct error *err)
{
	struct stat st;

	v->listen_fd = unix_listen(path, LISTEN_BACKLOG, 0660, err);
	if (v->listen_fd < 0) {
		int r = v->listen_fd;

		v->listen_fd = -1;
		if (err && !err->field[0])
			error_in_field(err, "uds_path");
		return r;
	}
	v->uds_path = strdup(path);
	if (!v->uds_path || lstat(path, &st) < 0) {
		unlink(path);
		return error_set_errno(err, v->uds_path ? errno : ENOMEM, "cannot keep %s", path);
	}
	v->uds_dev = st.st_dev;
	v->uds_ino = st.st_ino;
	v->listen_source = loop_add_fd(v->loop, v->listen_fd, EPOLLIN, on_accept, v);
	v->timer = loop_add_timer(v->loop, on_deadline, v);
	v->accept_timer = loop_add_timer(v->loop, on_accept_timer, v);
	if (!v->listen_source || !v->timer || !v->accept_timer)
		return error_set_errno(err, errno, "cannot watch %s", path);
	return 0;
}

void vsock_host_close(struct virtio_vsock *v)
{
	struct stat st;

	loop_remove(v->listen_source);
	loop_remove(v->timer);
	loop_remove(v->accept_timer);
	v->listen_source = v->timer = v->accept_timer = NULL;
	v->listen_fd = close_fd(v->listen_fd);
	/* Not one that a successor has put in its place. */
	if (v->uds_path && lstat(v->uds_path, &st) == 0 && st.st_dev == v->uds_dev && st.st_ino == v->uds_ino)
		unlink(v->uds_path);
	free(v->uds_path);
	v->uds_path = NULL;
}
