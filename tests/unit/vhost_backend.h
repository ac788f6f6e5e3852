/* A vhost-user back-end for tests, on a thread of its own: it answers as the protocol has it, works the rings it is given by our
 * own device side of a virtqueue, and can be told to lie.
 *
 *	struct backend b;   backend_init(&b);   ... what it is to be ...   fd = backend_start(&b);   backend_stop(&b); */
#ifndef HULL_TESTS_UNIT_VHOST_BACKEND_H
#define HULL_TESTS_UNIT_VHOST_BACKEND_H

#include "common/checked.h"
#include "common/cleanup.h"
#include "devices/vhost_user_protocol.h"
#include "devices/virtio.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* As assert(), in every build and on every thread. */
#define BACKEND_CHECK(condition)                                                                             \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                      \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

#define BACKEND_PAYLOAD_MAX 512

struct backend_message {
	struct vhost_user_header header;
	uint8_t payload[BACKEND_PAYLOAD_MAX];
	int fds[VHOST_USER_REGIONS_MAX];
	unsigned n_fds;
};

struct backend_ring {
	struct virtq vq;
	struct vhost_vring_addr address;
	uint16_t base;
	bool enabled, started;
	int kick_fd, call_fd, error_fd;
};

struct backend {
	/* What it is; to be set before it is started. */
	uint64_t features, protocol_features, n_queues;
	uint8_t config[BACKEND_PAYLOAD_MAX];
	/* Each chain: how many bytes were written into it; -1: it is held, and asked for again at the next kick. NULL: nothing. */
	int (*serve)(struct backend *b, uint16_t q, const struct virtq_chain *chain);
	/* Before a request is dealt with: true when it is not to be. NULL: it is always. */
	bool (*lie)(struct backend *b, const struct backend_message *request);
	void *ctx; /* theirs */
	int source_fd; /* readable: there may be something for the chains of queue 0; -1 */

	/* What it was told; to be read when the front-end has had its answer. */
	unsigned told[64]; /* how often, by request */
	uint64_t driver_features, chosen_protocol_features;
	struct gmem mem;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
	void *mapped[VHOST_USER_REGIONS_MAX];
	size_t n_regions;
	struct backend_ring rings[VIRTIO_QUEUES_MAX];
	int request_fd; /* for what it asks itself; -1 */

	int fd, stop_fd;
	bool starved; /* queue 0 had no chain for what `source_fd` has */
	pthread_t thread;
	bool running;
};

static inline void backend_init(struct backend *b)
{
	*b = (struct backend){.n_queues = VIRTIO_QUEUES_MAX, .source_fd = -1, .request_fd = -1, .fd = -1, .stop_fd = -1};
	b->features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
		      1ull << VHOST_USER_F_PROTOCOL_FEATURES;
	b->protocol_features = 1ull << VHOST_USER_PROTOCOL_F_MQ | 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK |
			       1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ | 1ull << VHOST_USER_PROTOCOL_F_CONFIG |
			       1ull << VHOST_USER_PROTOCOL_F_RESET_DEVICE;
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
		b->rings[q].kick_fd = b->rings[q].call_fd = b->rings[q].error_fd = -1;
}

/* ---- messages ---- */

/* False at the end. */
static inline bool backend_read(struct backend *b, void *data, size_t len, struct backend_message *ret_fds)
{
	for (uint8_t *at = data; len > 0;) {
		char control[CMSG_SPACE(VHOST_USER_REGIONS_MAX * sizeof(int))];
		struct iovec iov = {at, len};
		struct msghdr message = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
		ssize_t got = recvmsg(b->fd, &message, MSG_CMSG_CLOEXEC);
		struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

		if (got <= 0)
			return false;
		if (header) {
			BACKEND_CHECK(ret_fds && header->cmsg_type == SCM_RIGHTS && ret_fds->n_fds == 0);
			ret_fds->n_fds = (unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(ret_fds->fds, CMSG_DATA(header), ret_fds->n_fds * sizeof(int));
		}
		at += got;
		len -= (size_t)got;
	}
	return true;
}

static inline void backend_send(int fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size)
{
	struct vhost_user_header header = {request, flags, size};
	struct iovec iov[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)payload, size}};
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t ignored = sendmsg(fd, &message, MSG_NOSIGNAL); /* the other side may be gone */

	(void)ignored;
}

static inline void backend_answer(struct backend *b, uint32_t request, const void *payload, uint32_t size)
{
	backend_send(b->fd, request, VHOST_USER_VERSION | VHOST_USER_IS_REPLY, payload, size);
}

/* ---- memory and rings ---- */

static inline void backend_forget_memory(struct backend *b)
{
	while (b->n_regions > 0) {
		b->n_regions--;
		munmap(b->mapped[b->n_regions], b->regions[b->n_regions].size_bytes);
	}
	b->mem = (struct gmem){0};
}

static inline void backend_set_memory(struct backend *b, const struct backend_message *m)
{
	struct vhost_user_memory table;

	memcpy(&table, m->payload, sizeof(table));
	BACKEND_CHECK(table.n == m->n_fds && table.n <= VHOST_USER_REGIONS_MAX &&
		      m->header.size == 8 + table.n * sizeof(table.regions[0]));
	backend_forget_memory(b);
	for (uint32_t i = 0; i < table.n; i++) {
		const struct vhost_user_region *region = &table.regions[i];
		void *host = mmap(NULL, region->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->fds[i],
			(off_t)region->fd_offset);

		BACKEND_CHECK(host != MAP_FAILED && gmem_add(&b->mem, region->gpa, region->size_bytes, host) == 0);
		b->regions[i] = *region;
		b->mapped[b->n_regions++] = host;
	}
}

/* Rings that are being worked on are looked for again where they are mapped now. */
static inline void backend_find_rings(struct backend *b)
{
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		struct backend_ring *ring = &b->rings[q];
		uint16_t next = ring->vq.next_avail;

		if (!ring->started)
			continue;
		BACKEND_CHECK(virtq_enable(&ring->vq) == 0);
		virtq_take_over(&ring->vq, next);
	}
}

/* A ring's addresses are the front-end's own. */
static inline gpa_t backend_gpa(const struct backend *b, uint64_t user_address)
{
	for (size_t i = 0; i < b->n_regions; i++)
		if (user_address - b->regions[i].user_address < b->regions[i].size_bytes)
			return user_address - b->regions[i].user_address + b->regions[i].gpa;
	BACKEND_CHECK(!"an address of no region");
	return 0;
}

static inline void backend_start_ring(struct backend *b, struct backend_ring *ring)
{
	uint16_t size = ring->vq.size;

	virtq_init(&ring->vq, &b->mem, VIRTQ_SIZE_MAX);
	ring->vq.size = size;
	ring->vq.desc = backend_gpa(b, ring->address.desc_user_addr);
	ring->vq.avail = backend_gpa(b, ring->address.avail_user_addr);
	ring->vq.used = backend_gpa(b, ring->address.used_user_addr);
	ring->vq.event_idx = b->driver_features >> VIRTIO_RING_F_EVENT_IDX & 1;
	ring->vq.indirect = b->driver_features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	BACKEND_CHECK(virtq_enable(&ring->vq) == 0);
	virtq_take_over(&ring->vq, ring->base);
	ring->started = true;
}

static inline void backend_stop_ring(struct backend_ring *ring)
{
	ring->started = false;
	ring->kick_fd = close_fd(ring->kick_fd);
	ring->call_fd = close_fd(ring->call_fd);
	ring->error_fd = close_fd(ring->error_fd);
}

static inline void backend_work(struct backend *b, uint16_t q)
{
	struct backend_ring *ring = &b->rings[q];
	struct virtq_chain chain;
	bool enabled = ring->enabled || !(b->features >> VHOST_USER_F_PROTOCOL_FEATURES & 1);
	int written;

	b->starved = q == 0;
	while (ring->started && enabled && virtq_pop_or_arm(&ring->vq, &chain) > 0) {
		written = b->serve ? b->serve(b, q, &chain) : -1;
		if (written < 0) {
			virtq_unpop(&ring->vq, 1);
			b->starved = false;
			return;
		}
		virtq_push(&ring->vq, chain.head, (uint32_t)written);
		if (virtq_wants_interrupt(&ring->vq))
			eventfd_write(ring->call_fd, 1);
	}
}

/* ---- requests ---- */

static inline void backend_take_fd(struct backend_message *m, int *ret)
{
	BACKEND_CHECK(m->n_fds == 1);
	close_fd(*ret);
	*ret = m->fds[0];
	m->n_fds = 0;
}

static inline uint64_t backend_u64(const struct backend_message *m)
{
	uint64_t value;

	BACKEND_CHECK(m->header.size == sizeof(value));
	memcpy(&value, m->payload, sizeof(value));
	return value;
}

static inline void backend_answer_u64(struct backend *b, const struct backend_message *m, uint64_t value)
{
	backend_answer(b, m->header.request, &value, sizeof(value));
}

/* Requests that have an answer of their own. False for others. */
static inline bool backend_serve_question(struct backend *b, struct backend_message *m)
{
	struct vhost_vring_state vring;
	struct vhost_user_config config;

	switch (m->header.request) {
	case VHOST_USER_GET_FEATURES:
		backend_answer_u64(b, m, b->features);
		return true;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		backend_answer_u64(b, m, b->protocol_features);
		return true;
	case VHOST_USER_GET_QUEUE_NUM:
		backend_answer_u64(b, m, b->n_queues);
		return true;
	case VHOST_USER_GET_VRING_BASE:
		memcpy(&vring, m->payload, sizeof(vring));
		vring.num = b->rings[vring.index].vq.next_avail;
		backend_stop_ring(&b->rings[vring.index]);
		backend_answer(b, m->header.request, &vring, sizeof(vring));
		return true;
	case VHOST_USER_GET_CONFIG:
		memcpy(&config, m->payload, sizeof(config));
		BACKEND_CHECK(m->header.size == 12 + config.size);
		memcpy(config.data, b->config + config.offset, config.size);
		backend_answer(b, m->header.request, &config, 12 + config.size);
		return true;
	}
	return false;
}

static inline void backend_serve_vring(struct backend *b, struct backend_message *m)
{
	struct vhost_vring_state vring;
	struct vhost_vring_addr address;

	memcpy(&vring, m->payload, sizeof(vring)); /* the index is first in all of them */
	BACKEND_CHECK(vring.index < VIRTIO_QUEUES_MAX);
	switch (m->header.request) {
	case VHOST_USER_SET_VRING_NUM:
		b->rings[vring.index].vq.size = (uint16_t)vring.num;
		break;
	case VHOST_USER_SET_VRING_BASE:
		b->rings[vring.index].base = (uint16_t)vring.num;
		break;
	case VHOST_USER_SET_VRING_ADDR:
		memcpy(&address, m->payload, sizeof(address));
		b->rings[vring.index].address = address;
		break;
	case VHOST_USER_SET_VRING_ENABLE:
		b->rings[vring.index].enabled = vring.num;
		break;
	case VHOST_USER_SET_VRING_CALL:
		backend_take_fd(m, &b->rings[backend_u64(m)].call_fd);
		break;
	case VHOST_USER_SET_VRING_ERR:
		backend_take_fd(m, &b->rings[backend_u64(m)].error_fd);
		break;
	case VHOST_USER_SET_VRING_KICK:
		backend_take_fd(m, &b->rings[backend_u64(m)].kick_fd);
		backend_start_ring(b, &b->rings[backend_u64(m)]);
		break;
	default:
		BACKEND_CHECK(!"a request that nobody knows");
	}
}

static inline void backend_serve(struct backend *b, struct backend_message *m)
{
	bool acknowledged = m->header.flags & VHOST_USER_NEEDS_REPLY;

	BACKEND_CHECK((m->header.flags & ~VHOST_USER_NEEDS_REPLY) == VHOST_USER_VERSION);
	BACKEND_CHECK(!acknowledged || b->chosen_protocol_features >> VHOST_USER_PROTOCOL_F_REPLY_ACK & 1);
	switch (m->header.request) {
	case VHOST_USER_SET_OWNER:
		break;
	case VHOST_USER_SET_FEATURES:
		b->driver_features = backend_u64(m);
		break;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		b->chosen_protocol_features = backend_u64(m);
		BACKEND_CHECK(!(b->chosen_protocol_features & ~b->protocol_features));
		break;
	case VHOST_USER_SET_BACKEND_REQ_FD:
		backend_take_fd(m, &b->request_fd);
		break;
	case VHOST_USER_SET_MEM_TABLE:
		backend_set_memory(b, m);
		backend_find_rings(b);
		break;
	case VHOST_USER_RESET_DEVICE:
		for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
			b->rings[q].enabled = false;
		break;
	default:
		if (backend_serve_question(b, m))
			return;
		backend_serve_vring(b, m);
	}
	if (acknowledged)
		backend_answer_u64(b, m, 0);
}

/* ---- its life ---- */

/* False when the connection has ended. */
static inline bool backend_take_message(struct backend *b)
{
	struct backend_message m = {0};

	if (!backend_read(b, &m.header, sizeof(m.header), &m))
		return false;
	BACKEND_CHECK(m.header.size <= sizeof(m.payload));
	if (!backend_read(b, m.payload, m.header.size, &m))
		return false;
	BACKEND_CHECK(m.header.request < ARRAY_SIZE(b->told));
	__atomic_fetch_add(&b->told[m.header.request], 1, __ATOMIC_SEQ_CST);
	if (!b->lie || !b->lie(b, &m))
		backend_serve(b, &m);
	for (unsigned i = 0; i < m.n_fds; i++)
		close_fd(m.fds[i]);
	return true;
}

static inline void *backend_main(void *ctx)
{
	struct backend *b = ctx;
	struct pollfd fds[3 + VIRTIO_QUEUES_MAX] = {[VIRTIO_QUEUES_MAX] = {.fd = b->fd, .events = POLLIN},
		{.fd = b->stop_fd, .events = POLLIN}, {.events = POLLIN}};
	struct pollfd *told = &fds[VIRTIO_QUEUES_MAX], *stopped = told + 1, *source = told + 2;
	eventfd_t count;

	for (;;) {
		for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
			fds[q] = (struct pollfd){.fd = b->rings[q].started ? b->rings[q].kick_fd : -1, .events = POLLIN};
		source->fd = b->rings[0].started && !b->starved ? b->source_fd : -1;
		BACKEND_CHECK(poll(fds, ARRAY_SIZE(fds), -1) > 0);
		if (stopped->revents || (told->revents && !backend_take_message(b)))
			return NULL;
		for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++)
			if (fds[q].revents && b->rings[q].started && eventfd_read(b->rings[q].kick_fd, &count) == 0)
				backend_work(b, q);
		if (source->fd >= 0 && source->revents)
			backend_work(b, 0);
	}
}

/* On a connected socket (taken over). */
static inline void backend_start_on(struct backend *b, int fd)
{
	b->fd = fd;
	b->stop_fd = eventfd(0, EFD_CLOEXEC);
	BACKEND_CHECK(pthread_create(&b->thread, NULL, backend_main, b) == 0);
	b->running = true;
}

/* The front-end's end of the connection. */
static inline int backend_start(struct backend *b)
{
	int pair[2];

	BACKEND_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	backend_start_on(b, pair[0]);
	return pair[1];
}

/* The process has died: all of its descriptors close. */
static inline void backend_stop(struct backend *b)
{
	if (!b->running)
		return;
	eventfd_write(b->stop_fd, 1);
	pthread_join(b->thread, NULL);
	b->running = false;
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
		backend_stop_ring(&b->rings[q]);
	backend_forget_memory(b);
	b->fd = close_fd(b->fd);
	b->stop_fd = close_fd(b->stop_fd);
	b->request_fd = close_fd(b->request_fd);
}

#endif
