/* virtio-net over a stream socket (common/stream_frame.h). */
#include "devices/net_backend.h"
#include "devices/virtio_net.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/stream_frame.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/ethernet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Room for the largest frame and, mostly, for many at a time: one recv() then serves them all. */
#define RX_BYTES              (2 * (STREAM_FRAME_LENGTH_BYTES + NET_FRAME_MAX))
#define ETHERNET_HEADER_BYTES 14
/* Of a frame, as far as a destination's address reaches: behind the Ethernet header in IPv4's, in IPv6's. */
#define IPV4_TO_OFFSET (ETHERNET_HEADER_BYTES + 16)
#define IPV6_TO_OFFSET (ETHERNET_HEADER_BYTES + 24)
#define HEAD_BYTES     (IPV6_TO_OFFSET + 16)

struct net_stream {
	struct net_backend backend;
	/* From the peer: [start, end) of `rx` is not delivered yet. */
	size_t rx_start, rx_end;
	/* To the peer: what is left of a frame that the socket took in part. */
	size_t tx_start, tx_end;
	uint8_t rx[RX_BYTES];
	uint8_t tx[STREAM_FRAME_LENGTH_BYTES + NET_FRAME_MAX];
};

static struct net_stream *from_backend(struct net_backend *backend)
{
	return container_of(backend, struct net_stream, backend);
}

static int stream_set_features(struct net_backend *backend, uint64_t driver_features)
{
	(void)backend;
	(void)driver_features;
	return 0; /* none were offered */
}

/* 0 when something was read, -EAGAIN, or the link is lost. */
static int fill(struct net_stream *s)
{
	ssize_t got;

	/* The rest of a frame moves to the front; it is less than half of the room, which hence is never
	 * full. */
	memmove(s->rx, s->rx + s->rx_start, s->rx_end - s->rx_start);
	s->rx_end -= s->rx_start;
	s->rx_start = 0;
	assert(s->rx_end < sizeof(s->rx));
	got = recv(s->backend.fd, s->rx + s->rx_end, sizeof(s->rx) - s->rx_end, MSG_DONTWAIT);
	if (got == 0)
		return -EPIPE;
	if (got < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	s->rx_end += (size_t)got;
	return 0;
}

/* `len` bytes to `offset` bytes into iov. */
static void scatter(const struct iovec *iov, int n, size_t offset, const uint8_t *data, size_t len)
{
	for (int i = 0; i < n && len; i++) {
		size_t part;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		part = iov[i].iov_len - offset < len ? iov[i].iov_len - offset : len;
		memcpy((uint8_t *)iov[i].iov_base + offset, data, part);
		data += part;
		len -= part;
		offset = 0;
	}
}

static ssize_t stream_receive(struct net_backend *backend, const struct iovec *iov, int n)
{
	static const uint8_t no_offload[NET_HEADER_BYTES];
	struct net_stream *s = from_backend(backend);
	ssize_t length;

	while ((length = stream_frame_next(s->rx + s->rx_start, s->rx_end - s->rx_start, NET_FRAME_MAX)) == 0) {
		int r = fill(s);

		if (r < 0)
			return r;
	}
	if (length < 0)
		return length;
	s->rx_start += STREAM_FRAME_LENGTH_BYTES + (size_t)length;
	if (length < ETHERNET_HEADER_BYTES)
		return 0; /* not skipped here: a peer could keep us here for ever */
	scatter(iov, n, 0, no_offload, sizeof(no_offload));
	scatter(iov, n, NET_HEADER_BYTES, s->rx + s->rx_start - length, (size_t)length);
	return NET_HEADER_BYTES + length;
}

static int stream_flush(struct net_backend *backend)
{
	struct net_stream *s = from_backend(backend);

	while (s->tx_start < s->tx_end) {
		ssize_t sent = send(backend->fd, s->tx + s->tx_start, s->tx_end - s->tx_start,
		        MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
		s->tx_start += (size_t)sent;
	}
	s->tx_start = s->tx_end = 0;
	return 0;
}

/* Keeps what lies behind the first `sent` bytes of the length and the frame. */
static void keep_rest(struct net_stream *s, const struct iovec *iov, int n, size_t sent)
{
	for (int i = 0; i < n; i++) {
		size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;

		memcpy(s->tx + s->tx_end, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
		s->tx_end += iov[i].iov_len - skip;
		sent -= skip;
	}
}

/* A destination that no wire carries: this host, or its loopback (RFC 1122, 3.2.1.3; RFC 4291, 2.5.2, 2.5.3, 2.5.5). A peer
 * that opens a socket of its own for what the guest sends, as passt does, would connect the guest to what listens on the
 * host's loopback only. */
static bool is_for_loopback(const uint8_t *head, size_t len)
{
	static const uint8_t zeroes[10];
	const uint8_t *to = head + IPV6_TO_OFFSET;
	unsigned type = len < ETHERNET_HEADER_BYTES ? 0 : (unsigned)head[12] << 8 | head[13];

	if (type == ETHERTYPE_IP && len >= IPV4_TO_OFFSET + 4)
		return head[IPV4_TO_OFFSET] == 127 || head[IPV4_TO_OFFSET] == 0;
	/* ::, ::1, and whatever is an IPv4 address in disguise. */
	if (type == ETHERTYPE_IPV6 && len >= HEAD_BYTES)
		return memcmp(to, zeroes, sizeof(zeroes)) == 0 && to[10] == to[11] && (to[10] == 0 || to[10] == 0xff);
	return false;
}

/* Copies the first bytes of the pieces, HEAD_BYTES at most, to `head`: the guest may change its own meanwhile. What lies
 * behind goes to `ret`. Returns how many pieces that are. */
static int split(const struct iovec *iov, int n, uint8_t *head, size_t *ret_head_len, struct iovec *ret)
{
	size_t len = 0;
	int pieces = 0;

	for (int i = 0; i < n; i++) {
		size_t part = iov[i].iov_len < HEAD_BYTES - len ? iov[i].iov_len : HEAD_BYTES - len;

		memcpy(head + len, iov[i].iov_base, part);
		len += part;
		if (part < iov[i].iov_len)
			ret[pieces++] = (struct iovec){(uint8_t *)iov[i].iov_base + part, iov[i].iov_len - part};
	}
	*ret_head_len = len;
	return pieces;
}

static int stream_send(struct net_backend *backend, const struct iovec *iov, int n)
{
	struct net_stream *s = from_backend(backend);
	struct iovec out[IOV_MAX];
	struct msghdr msg = {.msg_iov = out};
	uint8_t head[HEAD_BYTES];
	size_t total = 0, head_len;
	uint32_t length;
	ssize_t sent;
	int r = stream_flush(backend);

	if (r < 0)
		return r;
	assert(n >= 1 && n < IOV_MAX);
	for (int i = 1; i < n; i++)
		total += iov[i].iov_len;
	if (total < 1 || total > NET_FRAME_MAX)
		return 0;
	/* Where the header was, the length. */
	n = 2 + split(iov + 1, n - 1, head, &head_len, out + 2);
	if (is_for_loopback(head, head_len))
		return 0;
	length = htobe32((uint32_t)total);
	out[0] = (struct iovec){&length, sizeof(length)};
	out[1] = (struct iovec){head, head_len};
	msg.msg_iovlen = (size_t)n;
	total += sizeof(length);
	do
		sent = sendmsg(backend->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
	if ((size_t)sent < total)
		keep_rest(s, out, n, (size_t)sent);
	return 0;
}

static void stream_free(struct net_backend *backend)
{
	close_fd(backend->fd);
	free(from_backend(backend));
}

static const struct net_backend_ops stream_ops = {
        .set_features = stream_set_features,
        .receive = stream_receive,
        .send = stream_send,
        .flush = stream_flush,
        .free = stream_free,
};

/* A duplicate, as others may have been told the same number: what is closed is never theirs. */
int net_open_given(const char *path, struct error *err)
{
	const char *number = path + strlen(NET_GIVEN_FOLDER);
	char *end;
	long fd = strtol(number, &end, 10);
	int copy;

	if (*number < '0' || *number > '9' || *end || fd > INT_MAX)
		return error_set(err, EINVAL, "\"%s\" is no number of a descriptor", number);
	copy = fcntl((int)fd, F_DUPFD_CLOEXEC, 0);
	return copy < 0 ? error_set_errno(err, errno, "cannot use descriptor %s", number) : copy;
}

bool net_is_given(const char *path)
{
	return strncmp(path, NET_GIVEN_FOLDER, strlen(NET_GIVEN_FOLDER)) == 0;
}

int virtio_net_open_stream(const char *path, struct error *err)
{
	if (net_is_given(path))
		return net_open_given(path, err);
	return unix_connect(path, 1, err);
}

struct net_backend *net_stream_new(int stream_fd, struct error *err)
{
	cleanup_close int fd = stream_fd;
	struct net_stream *s;
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM) {
		error_set_field(err, EINVAL, "stream_socket_path", "the descriptor is not a stream socket");
		return NULL;
	}
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		error_set_errno(err, errno, "cannot set up the network's stream socket");
		return NULL;
	}
	s = malloc(sizeof(*s)); /* the buffers' pages come with their first use */
	if (!s) {
		error_set_errno(err, ENOMEM, "cannot use the network's stream socket");
		return NULL;
	}
	s->backend = (struct net_backend){.ops = &stream_ops, .fd = steal_fd(&fd)};
	s->rx_start = s->rx_end = s->tx_start = s->tx_end = 0;
	return &s->backend;
}
