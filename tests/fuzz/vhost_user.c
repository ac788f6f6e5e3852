/* A hostile back-end of vhost-user: whatever it answers, and whatever it asks, ends as a device that works or one that is out of
 * order, with nothing left behind; what it says of its configuration reaches the driver, and nothing else does.
 *
 *	byte 0: what kind of device  bytes 1, 2: n  n bytes that it answers  bytes that it asks */
#include "tests/fuzz/fuzz.h"

#include "common/checked.h"
#include "common/log.h"
#include "devices/vhost_user_protocol.h"
#include "devices/virtio_vhost.h"

#include <linux/virtio_config.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define BASE	   0x10000ull
#define REGION	   0x8000ull
#define QUEUE_SIZE 16
#define QUEUE_STEP 0x400 /* bytes of guest memory for each queue's rings */

static struct gmem mem;
static struct loop *loop;
static int kick[VIRTIO_QUEUES_MAX];
static int lowest_free;

static void interrupt(void *ctx, uint16_t q)
{
	(void)ctx;
	CHECK(q < VIRTIO_QUEUES_MAX || q == VIRTIO_INTERRUPT_CONFIG);
}

static int kick_fd(void *ctx, uint16_t q)
{
	(void)ctx;
	CHECK(q < VIRTIO_QUEUES_MAX);
	return kick[q];
}

static void listen_to(void *ctx, uint16_t q, bool listen)
{
	(void)ctx;
	(void)q;
	(void)listen;
}

static int no_call_fd(void *ctx, uint16_t q)
{
	(void)ctx;
	(void)q;
	return -1;
}

static const struct virtio_transport transport = {interrupt, kick_fd, listen_to, no_call_fd};

/* A descriptor that stays open takes this place. */
static int lowest_free_descriptor(void)
{
	int fd = dup(STDERR_FILENO);

	CHECK(fd >= 0);
	close_fd(fd);
	return fd;
}

static void prepare(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	void *host;

	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	CHECK(fd >= 0 && ftruncate(fd, REGION) == 0);
	host = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(host != MAP_FAILED && gmem_add_shared(&mem, BASE, REGION, host, fd, 0) == 0);
	loop = loop_new();
	CHECK(loop);
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
		kick[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lowest_free = lowest_free_descriptor();
}

/* All it has to say is there before it is asked. */
static int connect_to(const uint8_t *answers, size_t len, int *ret_peer)
{
	int pair[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	CHECK(send(pair[1], answers, len, MSG_DONTWAIT) == (ssize_t)len);
	CHECK(shutdown(pair[1], SHUT_WR) == 0);
	*ret_peer = pair[1];
	return pair[0];
}

/* Reads what it was told so far. The socket for its own requests, if it was given one, or -1. */
static int take_request_socket(int peer)
{
	int found = -1;

	for (;;) {
		char control[CMSG_SPACE(VHOST_USER_REGIONS_MAX * sizeof(int))];
		struct vhost_user_header header;
		struct iovec iov = {&header, sizeof(header)};
		struct msghdr message = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
		uint8_t payload[1024];
		int fds[1];
		struct cmsghdr *rights;

		if (recvmsg(peer, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(header))
			return found;
		CHECK((header.flags & VHOST_USER_VERSION_MASK) == VHOST_USER_VERSION && header.size <= sizeof(payload));
		/* Reading nothing would drop the next message's descriptors. */
		CHECK(header.size == 0 || recv(peer, payload, header.size, MSG_DONTWAIT) == (ssize_t)header.size);
		rights = CMSG_FIRSTHDR(&message);
		if (!rights)
			continue;
		CHECK(rights->cmsg_len == CMSG_LEN(sizeof(fds)));
		memcpy(fds, CMSG_DATA(rights), sizeof(fds));
		CHECK(header.request == VHOST_USER_SET_BACKEND_REQ_FD && found < 0); /* the only one so early */
		found = fds[0];
	}
}

static struct virtio_dev *make_device(uint8_t kind, struct vhost *vhost, struct error *err)
{
	static const uint8_t mac[6] = {2};

	switch ((kind & 0x7f) % 3) {
	case 0:
		return virtio_vhost_blk_new(vhost, "fuzz", kind & 0x80, loop, &mem, err);
	case 1:
		return virtio_vhost_fs_new(vhost, "fuzz", "tag", 1, loop, &mem, err);
	default:
		return virtio_vhost_net_new(vhost, "fuzz", mac, 1500, loop, &mem, err);
	}
}

static void start(struct virtio_dev *dev)
{
	virtio_dev_enter(dev);
	virtio_dev_set_status(dev, 0);
	CHECK(dev->status == 0);
	virtio_dev_set_status(dev, 1);
	virtio_dev_set_status(dev, 3);
	dev->driver_features = virtio_dev_features(dev);
	virtio_dev_set_status(dev, 11);
	CHECK(dev->status == 11);
	for (uint16_t q = 0; q < dev->ops->n_queues; q++) {
		struct virtq *vq = &dev->queues[q];
		gpa_t at = BASE + q * QUEUE_STEP;

		vq->size = QUEUE_SIZE;
		vq->desc = at;
		vq->avail = at + 0x100;
		vq->used = at + 0x140;
		CHECK(virtq_enable(vq) == 0);
	}
	virtio_dev_set_status(dev, 15);
	virtio_dev_leave(dev);
}

/* The loop, which would hear of answers that were not asked for yet, is left out until the end. */
static void use(struct virtio_dev *dev, struct vhost *vhost)
{
	struct error err = {0};
	struct state_writer w;
	uint8_t config[256];
	bool changed = false;

	start(dev);
	virtio_vhost_reread_config(dev, &err);
	virtio_dev_enter(dev);
	for (int i = 0; i < 4 && vhost->request_fd >= 0 && !changed; i++)
		vhost->ops->serve_requests(vhost, &changed, &err);
	virtio_dev_leave(dev);
	if (changed)
		virtio_vhost_reread_config(dev, &err);
	virtio_dev_enter(dev);
	for (uint32_t at = 0; at < sizeof(config); at++)
		virtio_dev_config_read(dev, at, config + at, 1);
	virtio_dev_leave(dev);
	virtio_dev_quiesce(dev);
	state_writer_init(&w);
	virtio_dev_save(dev, &w);
	state_writer_done(&w);
	virtio_dev_resume(dev);
	start(dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct error err = {0};
	struct virtio_dev *dev;
	struct vhost *vhost;
	uint8_t kind;
	size_t n;
	int peer, fd, requests;

	if (!loop)
		prepare();
	if (len < 3)
		return 0;
	kind = data[0];
	n = data[1] | (size_t)data[2] << 8;
	data += 3;
	len -= 3;
	n = n < len ? n : len;
	if (n > 16384)
		return 0;
	fd = connect_to(data, n, &peer);
	vhost = vhost_user_new(fd, &err);
	requests = take_request_socket(peer);
	if (requests >= 0 && len > n)
		CHECK(send(requests, data + n, len - n < 16384 ? len - n : 16384, MSG_DONTWAIT | MSG_NOSIGNAL) > 0 || !vhost);
	dev = vhost ? make_device(kind, vhost, &err) : NULL;
	CHECK(dev || (err.errnum && err.message[0]));
	if (dev) {
		dev->transport = &transport;
		use(dev, vhost);
		fuzz_run_loop(loop);
		virtio_dev_free(dev);
	}
	close_fd(peer);
	close_fd(requests);
	CHECK(lowest_free_descriptor() == lowest_free);
	return 0;
}
