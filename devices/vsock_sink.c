/* virtio-vsock ports that end in a descriptor of the monitor: the guest's output. See vsock_device.h for the
 * whole.
 *
 * What the sink does not take at once stays queued, and with the queue the guest's credit fills: a slow
 * reader slows the guest down and loses nothing. A sink that fails (the disk is full, the reader is gone)
 * swallows: a workload must not hang because nobody reads its log. */
#include "devices/vsock_device.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

static void on_sink(void *ctx, uint32_t epoll_events)
{
	struct vsock_sink *sink = ctx;
	struct virtio_vsock *v = sink->vsock;
	struct vsock_conn *conn;

	(void)epoll_events;
	virtio_dev_enter(&v->dev);
	conn = TAILQ_FIRST(&sink->waiting);
	if (conn) {
		/* One, then to the end of the line: the source stays ready while there is room. */
		vsock_sink_wait(conn, false);
		vsock_host_flush(conn);
		vsock_conn_settle(conn);
	}
	vsock_service(v);
	virtio_dev_leave(&v->dev);
}

void vsock_sink_wait(struct vsock_conn *conn, bool waits)
{
	struct vsock_sink *sink = conn->sink;

	if (conn->waits_for_sink == waits)
		return;
	conn->waits_for_sink = waits;
	if (waits)
		TAILQ_INSERT_TAIL(&sink->waiting, conn, sink_wait);
	else
		TAILQ_REMOVE(&sink->waiting, conn, sink_wait);
	if (sink->source)
		loop_set_events(sink->source, TAILQ_EMPTY(&sink->waiting) ? 0 : EPOLLOUT);
}

struct vsock_sink *vsock_sink_find(struct virtio_vsock *v, uint32_t port)
{
	for (size_t i = 0; i < v->n_sinks; i++)
		if (v->sinks[i].port == port)
			return &v->sinks[i];
	return NULL;
}

/* A descriptor shared with others cannot be made non-blocking behind their backs. A pipe that polls as
 * writable takes PIPE_BUF bytes without blocking. */
static ssize_t write_some(struct vsock_sink *sink, const void *data, size_t len)
{
	struct pollfd room = {.fd = sink->fd, .events = POLLOUT};

	if (!sink->always_writable && !sink->nonblocking) {
		if (poll(&room, 1, 0) == 0) {
			errno = EAGAIN;
			return -1;
		}
		if (len > PIPE_BUF)
			len = PIPE_BUF;
	}
	return write(sink->fd, data, len);
}

static size_t total_bytes(const struct iovec *iov, int n)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	return total;
}

size_t vsock_sink_write(struct vsock_sink *sink, const struct iovec *iov, int n)
{
	size_t done = 0;

	for (int i = 0; i < n && !sink->failed; i++) {
		for (size_t at = 0; at < iov[i].iov_len;) {
			ssize_t written =
			        write_some(sink, (const char *)iov[i].iov_base + at, iov[i].iov_len - at);

			if (written < 0 && errno == EINTR)
				continue;
			if (written < 0 && errno == EAGAIN)
				return done;
			if (written <= 0) {
				metric_inc(&sink->vsock->metrics.tx_write_fails);
				log_warn("output of the guest to port %u is lost from here on: %s",
				        sink->port, strerror(errno));
				sink->failed = true;
				break;
			}
			bounded_file_wrote(&sink->limit, sink->fd, (uint64_t)written);
			at += (size_t)written;
			done += (size_t)written;
		}
	}
	return sink->failed ? total_bytes(iov, n) : done;
}

static int sink_open(struct vsock_sink *sink, struct virtio_vsock *v, const struct virtio_vsock_sink *config)
{
	int flags = fcntl(config->fd, F_GETFL);

	if (flags < 0)
		return -errno;
	*sink = (struct vsock_sink){
	        .vsock = v, .port = config->port, .fd = config->fd, .nonblocking = flags & O_NONBLOCK,
	        .limit = bounded_file(config->limit_bytes)};
	TAILQ_INIT(&sink->waiting);
	sink->source = loop_add_fd(v->loop, sink->fd, EPOLLOUT, on_sink, sink);
	if (sink->source)
		return loop_set_events(sink->source, 0);
	if (errno != EPERM)
		return -errno;
	sink->always_writable = true; /* epoll's answer to a regular file */
	return 0;
}

int vsock_sinks_open(
        struct virtio_vsock *v, const struct virtio_vsock_sink *sinks, size_t n, struct error *err)
{
	if (!n)
		return 0;
	v->sinks = calloc(n, sizeof(*v->sinks));
	if (!v->sinks)
		return error_set_errno(err, ENOMEM, "cannot keep the vsock sinks");
	for (; v->n_sinks < n; v->n_sinks++) {
		int r = sink_open(&v->sinks[v->n_sinks], v, &sinks[v->n_sinks]);

		if (r < 0)
			return error_set_errno(err, -r, "cannot write to the descriptor for port %u",
			        sinks[v->n_sinks].port);
	}
	return 0;
}

void vsock_sinks_close(struct virtio_vsock *v)
{
	for (size_t i = 0; i < v->n_sinks; i++)
		loop_remove(v->sinks[i].source);
	free(v->sinks);
	v->sinks = NULL;
	v->n_sinks = 0;
}
