/* The front-end's side of vhost-user: another process works the rings, told what to do over a Unix socket.
 *
 * Theory of operation. One request is under way at a time: it is written, and where there is an answer, it is waited for until
 * the deadline. An answer must be the one that was asked for, of exactly the size that it has to have; nothing else may come on
 * that socket. Whoever breaks these rules is lost: the socket is shut down, which the loop notices too, and no more is said. What
 * a back-end refuses by REPLY_ACK is an error of that request only. Descriptors it sends are not taken (recv() without room for
 * them drops them). Guest memory is another matter: a back-end that was given it can do there what it wants. */
#include "devices/vhost.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/loop.h"
#include "devices/vhost_user_protocol.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BIT(n) (1ull << (n))

/* All that we have a use for. */
#define PROTOCOL_FEATURES                                                                                    \
	(BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                              \
		BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) | BIT(VHOST_USER_PROTOCOL_F_CONFIG) |                 \
		BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE))

/* A request of the back-end's with more payload than this is none that we know. */
#define BACKEND_REQUEST_MAX 64
/* In one go, before others on the loop get their turn. */
#define BACKEND_REQUESTS_BUDGET 16

#define CLOSED "the back-end closed the connection"

struct vhost_user {
	struct vhost vhost;
	bool has_protocol_features; /* rings are to be enabled */
	uint64_t protocol_features;
	/* A request of the back-end's, as far as it has come. */
	uint8_t incoming[sizeof(struct vhost_user_header) + BACKEND_REQUEST_MAX];
	size_t n_incoming;
};

/* One request: what goes out. */
struct request {
	enum vhost_user_request type;
	const void *payload;
	uint32_t size;
	const int *fds;
	unsigned n_fds;
};

static const char *const request_names[] = {
	[VHOST_USER_GET_FEATURES] = "GET_FEATURES",
	[VHOST_USER_SET_FEATURES] = "SET_FEATURES",
	[VHOST_USER_SET_OWNER] = "SET_OWNER",
	[VHOST_USER_SET_MEM_TABLE] = "SET_MEM_TABLE",
	[VHOST_USER_SET_VRING_NUM] = "SET_VRING_NUM",
	[VHOST_USER_SET_VRING_ADDR] = "SET_VRING_ADDR",
	[VHOST_USER_SET_VRING_BASE] = "SET_VRING_BASE",
	[VHOST_USER_GET_VRING_BASE] = "GET_VRING_BASE",
	[VHOST_USER_SET_VRING_KICK] = "SET_VRING_KICK",
	[VHOST_USER_SET_VRING_CALL] = "SET_VRING_CALL",
	[VHOST_USER_SET_VRING_ERR] = "SET_VRING_ERR",
	[VHOST_USER_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
	[VHOST_USER_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
	[VHOST_USER_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
	[VHOST_USER_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
	[VHOST_USER_SET_BACKEND_REQ_FD] = "SET_BACKEND_REQ_FD",
	[VHOST_USER_GET_CONFIG] = "GET_CONFIG",
	[VHOST_USER_RESET_DEVICE] = "RESET_DEVICE",
};

static struct vhost_user *from_vhost(struct vhost *vhost)
{
	return container_of(vhost, struct vhost_user, vhost);
}

static bool speaks(const struct vhost_user *u, enum vhost_user_protocol_feature feature)
{
	return u->protocol_features & BIT(feature);
}

/* For good. Returns -errnum. */
static int lose(struct vhost_user *u, int errnum)
{
	u->vhost.lost = true;
	shutdown(u->vhost.fd, SHUT_RDWR); /* the loop sees it, whichever thread this is */
	return -errnum;
}

/* ---- the socket ---- */

/* Until it is ready for one of `events`: 0, -ETIMEDOUT at the deadline, -errno. */
static int wait_for(const struct vhost_user *u, short events)
{
	struct pollfd fd = {.fd = u->vhost.fd, .events = events};
	uint64_t now = monotonic_ns();
	int n = 0;

	while (n == 0 && now < u->vhost.deadline_ns) {
		n = poll(&fd, 1, (int)((u->vhost.deadline_ns - now) / 1000000) + 1);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n < 0)
			n = 0; /* a vCPU's thread is called to pause: after this */
		now = monotonic_ns();
	}
	return n > 0 ? 0 : -ETIMEDOUT;
}

static void advance(struct iovec iov[2], size_t sent)
{
	for (int i = 0; i < 2; i++) {
		size_t part = sent < iov[i].iov_len ? sent : iov[i].iov_len;

		if (part > 0) /* a request without a payload has no address */
			iov[i].iov_base = (char *)iov[i].iov_base + part;
		iov[i].iov_len -= part;
		sent -= part;
	}
}

/* The descriptors go with the first byte. 0 or -errno. */
static int send_all(const struct vhost_user *u, struct iovec iov[2], const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(VHOST_USER_REGIONS_MAX * sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t sent;
	int r;

	assert(n_fds <= VHOST_USER_REGIONS_MAX);
	if (n_fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		control.header = (struct cmsghdr){CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
	}
	while (iov[0].iov_len + iov[1].iov_len > 0) {
		sent = sendmsg(u->vhost.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EAGAIN) {
			r = wait_for(u, POLLOUT);
			if (r < 0)
				return r;
		} else if (sent < 0 && errno != EINTR) {
			return -errno;
		} else if (sent > 0) {
			advance(iov, (size_t)sent);
			message.msg_control = NULL;
			message.msg_controllen = 0;
		}
	}
	return 0;
}

/* 0, -ECONNRESET at the end, -errno. */
static int receive_all(const struct vhost_user *u, void *data, size_t len)
{
	uint8_t *at = data;
	ssize_t got;
	int r;

	while (len > 0) {
		got = recv(u->vhost.fd, at, len, MSG_DONTWAIT);
		if (got == 0)
			return -ECONNRESET;
		if (got > 0) {
			at += got;
			len -= (size_t)got;
		} else if (errno == EAGAIN) {
			r = wait_for(u, POLLIN);
			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

/* ---- requests and answers ---- */

static int send_request(struct vhost_user *u, const struct request *request, uint32_t flags, struct error *err)
{
	struct vhost_user_header header = {request->type, VHOST_USER_VERSION | flags, request->size};
	struct iovec iov[2] = {
		{&header, sizeof(header)},
		{(void *)(uintptr_t)request->payload, request->size},
	};
	const char *name = request_names[request->type];
	int r;

	if (u->vhost.lost)
		return error_set(err, ENOTCONN, "the back-end is gone");
	r = send_all(u, iov, request->fds, request->n_fds);
	if (r == 0)
		return 0;
	error_set(err, -r, "the back-end did not take %s: %s", name, strerror(-r));
	return lose(u, -r);
}

/* The answer to what was asked last: exactly `size` bytes of payload into `ret`. */
static int receive_answer(struct vhost_user *u, enum vhost_user_request type, void *ret, uint32_t size, struct error *err)
{
	struct vhost_user_header header;
	int r = receive_all(u, &header, sizeof(header));

	if (r == 0 && (header.request != type ||
			(header.flags & (VHOST_USER_VERSION_MASK | VHOST_USER_IS_REPLY)) !=
				(VHOST_USER_VERSION | VHOST_USER_IS_REPLY))) {
		error_set(err, EPROTO, "the back-end answered %s with request %u, flags 0x%x", request_names[type],
			header.request, header.flags);
		return lose(u, EPROTO);
	}
	if (r == 0 && header.size != size) {
		error_set(err, EPROTO, "the back-end answered %s with %u bytes instead of %u", request_names[type],
			header.size, size);
		return lose(u, EPROTO);
	}
	if (r == 0)
		r = receive_all(u, ret, size);
	if (r == 0)
		return 0;
	error_set(err, -r, "the back-end did not answer %s: %s", request_names[type], strerror(-r));
	return lose(u, -r);
}

/* A request that has an answer of its own, as long as what was asked. */
static int ask(struct vhost_user *u, enum vhost_user_request type, const void *asked, void *ret, uint32_t size, struct error *err)
{
	int r = send_request(u, &(struct request){.type = type, .payload = asked, .size = size}, 0, err);

	return r == 0 ? receive_answer(u, type, ret, size, err) : r;
}

static int ask_u64(struct vhost_user *u, enum vhost_user_request type, uint64_t *ret, struct error *err)
{
	int r = send_request(u, &(struct request){.type = type}, 0, err);

	return r == 0 ? receive_answer(u, type, ret, sizeof(*ret), err) : r;
}

/* A request that has none, but for whether it was followed, if the back-end tells that. */
static int tell_with_fds(struct vhost_user *u, const struct request *request, struct error *err)
{
	bool acknowledged = speaks(u, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	uint64_t result = 0;
	int r = send_request(u, request, acknowledged ? VHOST_USER_NEEDS_REPLY : 0, err);

	if (r == 0 && acknowledged)
		r = receive_answer(u, request->type, &result, sizeof(result), err);
	if (r == 0 && result)
		r = error_set(err, EREMOTEIO, "the back-end refuses %s", request_names[request->type]);
	return r;
}

static int tell(struct vhost_user *u, enum vhost_user_request type, const void *payload, uint32_t size, struct error *err)
{
	return tell_with_fds(u, &(struct request){.type = type, .payload = payload, .size = size}, err);
}

static int tell_u64(struct vhost_user *u, enum vhost_user_request type, uint64_t value, struct error *err)
{
	return tell(u, type, &value, sizeof(value), err);
}

static int tell_vring(struct vhost_user *u, enum vhost_user_request type, uint16_t index, uint32_t num, struct error *err)
{
	struct vhost_vring_state state = {index, num};

	return tell(u, type, &state, sizeof(state), err);
}

static int tell_vring_fd(struct vhost_user *u, enum vhost_user_request type, uint16_t index, int fd, struct error *err)
{
	uint64_t value = index;

	return tell_with_fds(u, &(struct request){type, &value, sizeof(value), &fd, 1}, err);
}

/* ---- the device's life ---- */

static int user_set_memory(struct vhost *vhost, const struct vhost_memory_map *map, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);
	struct vhost_user_memory table = {.n = map->n};
	int fds[VHOST_USER_REGIONS_MAX];
	struct request request = {.type = VHOST_USER_SET_MEM_TABLE, .payload = &table, .fds = fds, .n_fds = map->n};

	if (map->n > VHOST_USER_REGIONS_MAX)
		return error_set(err, E2BIG, "guest memory has %u parts, and a back-end takes %u", map->n, VHOST_USER_REGIONS_MAX);
	for (unsigned i = 0; i < map->n; i++) {
		const struct gmem_region *region = map->regions[i];

		table.regions[i] = (struct vhost_user_region){
			region->gpa, region->size_bytes, (uintptr_t)region->host, region->fd_offset};
		fds[i] = region->fd;
	}
	request.size = (uint32_t)(offsetof(struct vhost_user_memory, regions) + map->n * sizeof(table.regions[0]));
	return tell_with_fds(u, &request, err);
}

static int user_start(struct vhost *vhost, uint64_t driver_features, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);
	uint64_t features = driver_features & vhost->features;

	if (u->has_protocol_features)
		features |= BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	return tell_u64(u, VHOST_USER_SET_FEATURES, features, err);
}

static int user_start_queue(struct vhost *vhost, const struct vhost_queue *queue, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);
	struct vhost_vring_addr address = {
		.index = queue->index,
		.desc_user_addr = (uintptr_t)queue->vq->desc_table,
		.used_user_addr = (uintptr_t)queue->vq->used_ring,
		.avail_user_addr = (uintptr_t)queue->vq->avail_ring,
	};
	uint64_t ignored;
	int r = tell_vring(u, VHOST_USER_SET_VRING_NUM, queue->index, queue->vq->size, err);

	if (r == 0)
		r = tell_vring(u, VHOST_USER_SET_VRING_BASE, queue->index, queue->vq->next_avail, err);
	if (r == 0)
		r = tell(u, VHOST_USER_SET_VRING_ADDR, &address, sizeof(address), err);
	if (r == 0)
		r = tell_vring_fd(u, VHOST_USER_SET_VRING_CALL, queue->index, queue->call_fd, err);
	if (r == 0)
		r = tell_vring_fd(u, VHOST_USER_SET_VRING_ERR, queue->index, queue->error_fd, err);
	if (r == 0) /* from here on the back-end may work on it, so it comes last */
		r = tell_vring_fd(u, VHOST_USER_SET_VRING_KICK, queue->index, queue->kick_fd, err);
	if (r == 0 && u->has_protocol_features)
		r = tell_vring(u, VHOST_USER_SET_VRING_ENABLE, queue->index, 1, err);
	/* One that acknowledges nothing has read all of it once it answers this. */
	if (r == 0 && !speaks(u, VHOST_USER_PROTOCOL_F_REPLY_ACK))
		r = ask_u64(u, VHOST_USER_GET_FEATURES, &ignored, err);
	return r;
}

static int user_stop_queue(struct vhost *vhost, uint16_t index, uint16_t *ret_next_avail, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);
	struct vhost_vring_state asked = {index, 0}, answer;
	int r = ask(u, VHOST_USER_GET_VRING_BASE, &asked, &answer, sizeof(answer), err);

	if (r < 0)
		return r;
	if (answer.index != index || answer.num > UINT16_MAX) {
		error_set(err, EPROTO, "the back-end answered GET_VRING_BASE with queue %u, index %u", answer.index, answer.num);
		return lose(u, EPROTO);
	}
	*ret_next_avail = (uint16_t)answer.num;
	return 0;
}

static int user_reset(struct vhost *vhost, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);

	if (!speaks(u, VHOST_USER_PROTOCOL_F_RESET_DEVICE))
		return 0;
	return tell(u, VHOST_USER_RESET_DEVICE, NULL, 0, err);
}

static int user_read_config(struct vhost *vhost, void *ret, uint32_t len, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);
	const uint32_t head_bytes = offsetof(struct vhost_user_config, data);
	struct vhost_user_config asked = {.size = len}, answer;
	int r;

	assert(len <= VHOST_USER_CONFIG_MAX);
	if (!speaks(u, VHOST_USER_PROTOCOL_F_CONFIG))
		return error_set(err, ENOTSUP, "the back-end has no configuration space (it lacks PROTOCOL_F_CONFIG)");
	r = ask(u, VHOST_USER_GET_CONFIG, &asked, &answer, head_bytes + len, err);
	if (r < 0)
		return r;
	if (answer.offset != 0 || answer.size != len) {
		error_set(err, EPROTO, "the back-end answered GET_CONFIG with %u bytes at %u", answer.size, answer.offset);
		return lose(u, EPROTO);
	}
	memcpy(ret, answer.data, len);
	return 0;
}

static int user_check(struct vhost *vhost, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);
	char byte;
	ssize_t n;

	if (vhost->lost)
		return error_set(err, ENOTCONN, "the back-end is gone");
	n = recv(vhost->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0; /* an answer that somebody has read by now */
	error_set(err, n > 0 ? EPROTO : ECONNRESET, n > 0 ? "the back-end answered what nobody had asked" : CLOSED);
	return lose(u, n > 0 ? EPROTO : ECONNRESET);
}

/* ---- what the back-end asks ---- */

/* The message that u->incoming begins with, when it is there whole: its bytes; 0 when more has to come; -EPROTO. */
static int next_backend_request(const struct vhost_user *u, struct vhost_user_header *ret)
{
	if (u->n_incoming < sizeof(*ret))
		return 0;
	memcpy(ret, u->incoming, sizeof(*ret));
	if ((ret->flags & (VHOST_USER_VERSION_MASK | VHOST_USER_IS_REPLY)) != VHOST_USER_VERSION ||
		ret->size > BACKEND_REQUEST_MAX)
		return -EPROTO;
	return u->n_incoming >= sizeof(*ret) + ret->size ? (int)(sizeof(*ret) + ret->size) : 0;
}

/* 0 or -errno. One who asks without reading the answers is not waited for. */
static int answer_backend(const struct vhost_user *u, const struct vhost_user_header *request, uint64_t result)
{
	struct {
		struct vhost_user_header header;
		uint64_t result;
	} __attribute__((packed)) answer = {
		{request->request, VHOST_USER_VERSION | VHOST_USER_IS_REPLY, sizeof(result)}, result};
	ssize_t n = send(u->vhost.request_fd, &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(answer) ? 0 : -EAGAIN;
}

/* 0 or -errno. */
static int serve_backend_request(
	const struct vhost_user *u, const struct vhost_user_header *request, bool *ret_config_changed)
{
	bool known = request->request == VHOST_USER_BACKEND_CONFIG_CHANGE && request->size == 0;

	if (known)
		*ret_config_changed = true;
	if (!(request->flags & VHOST_USER_NEEDS_REPLY) || !speaks(u, VHOST_USER_PROTOCOL_F_REPLY_ACK))
		return 0;
	return answer_backend(u, request, known ? 0 : 1);
}

static int user_serve_requests(struct vhost *vhost, bool *ret_config_changed, struct error *err)
{
	struct vhost_user *u = from_vhost(vhost);
	struct vhost_user_header request;
	ssize_t got = 1;
	int r = 0, len;

	*ret_config_changed = false;
	for (int budget = BACKEND_REQUESTS_BUDGET; r == 0 && budget > 0; budget--) {
		len = next_backend_request(u, &request);
		if (len > 0) {
			r = serve_backend_request(u, &request, ret_config_changed);
			u->n_incoming -= (size_t)len;
			memmove(u->incoming, u->incoming + len, u->n_incoming);
		} else if (len < 0) {
			r = len;
		} else {
			got = recv(vhost->request_fd, u->incoming + u->n_incoming, sizeof(u->incoming) - u->n_incoming,
				MSG_DONTWAIT);
			if (got < 0 && (errno == EAGAIN || errno == EINTR))
				break;
			r = got > 0 ? 0 : got == 0 ? -ECONNRESET : -errno;
			u->n_incoming += got > 0 ? (size_t)got : 0;
		}
	}
	if (r == 0)
		return 0;
	if (r == -ECONNRESET)
		error_set(err, ECONNRESET, CLOSED);
	else
		error_set(err, -r, r == -EPROTO ? "the back-end sent a malformed request" : "the back-end's requests: %s", strerror(-r));
	return lose(u, -r);
}

static void user_free(struct vhost *vhost)
{
	close_fd(vhost->fd);
	close_fd(vhost->request_fd);
	free(from_vhost(vhost));
}

static const struct vhost_ops user_ops = {
	.needs_shared_memory = true,
	.start = user_start,
	.set_memory = user_set_memory,
	.start_queue = user_start_queue,
	.stop_queue = user_stop_queue,
	.reset = user_reset,
	.read_config = user_read_config,
	.check = user_check,
	.serve_requests = user_serve_requests,
	.free = user_free,
};

/* ---- getting to know each other ---- */

/* A socket for what the back-end has to say by itself. */
static int open_request_channel(struct vhost_user *u, struct error *err)
{
	cleanup_close int theirs = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set_errno(err, errno, "cannot create a socket");
	u->vhost.request_fd = pair[0];
	theirs = pair[1];
	r = tell_with_fds(u, &(struct request){.type = VHOST_USER_SET_BACKEND_REQ_FD, .fds = &theirs, .n_fds = 1}, err);
	if (r < 0)
		u->vhost.request_fd = close_fd(u->vhost.request_fd);
	return r;
}

static int agree_on_protocol(struct vhost_user *u, struct error *err)
{
	uint64_t offered, n_queues;
	int r = ask_u64(u, VHOST_USER_GET_PROTOCOL_FEATURES, &offered, err);

	if (r < 0)
		return r;
	offered &= PROTOCOL_FEATURES;
	/* It would only tell of changes to what cannot be read. */
	if (!(offered & BIT(VHOST_USER_PROTOCOL_F_CONFIG)))
		offered &= ~BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ);
	r = tell_u64(u, VHOST_USER_SET_PROTOCOL_FEATURES, offered, err); /* not acknowledged yet */
	u->protocol_features = offered;
	if (r == 0 && speaks(u, VHOST_USER_PROTOCOL_F_MQ)) {
		r = ask_u64(u, VHOST_USER_GET_QUEUE_NUM, &n_queues, err);
		if (r == 0)
			u->vhost.queues_max = n_queues < UINT16_MAX ? (uint16_t)n_queues : UINT16_MAX;
	}
	if (r == 0 && speaks(u, VHOST_USER_PROTOCOL_F_BACKEND_REQ))
		r = open_request_channel(u, err);
	return r;
}

static int meet(struct vhost_user *u, struct error *err)
{
	int r;

	u->vhost.deadline_ns = u->vhost.begun_ns + u->vhost.patience_ns;
	r = tell(u, VHOST_USER_SET_OWNER, NULL, 0, err);
	if (r == 0)
		r = ask_u64(u, VHOST_USER_GET_FEATURES, &u->vhost.features, err);
	if (r < 0)
		return r;
	u->has_protocol_features = u->vhost.features & BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	u->vhost.features &= ~BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	if (!(u->vhost.features & BIT(VIRTIO_F_VERSION_1)))
		return error_set(err, ENOTSUP, "the back-end knows legacy drivers only (it lacks VIRTIO_F_VERSION_1)");
	return u->has_protocol_features ? agree_on_protocol(u, err) : 0;
}

struct vhost *vhost_user_new(int fd, struct error *err)
{
	struct vhost_user *u = calloc(1, sizeof(*u));

	if (!u) {
		close_fd(fd);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	u->vhost = (struct vhost){.ops = &user_ops,
		.queues_max = UINT16_MAX,
		.fd = fd,
		.request_fd = -1,
		.begun_ns = monotonic_ns(),
		.patience_ns = VHOST_PATIENCE_NS};
	if (meet(u, err) == 0)
		return &u->vhost;
	user_free(&u->vhost);
	return NULL;
}
