/* vhost-net: a thread of the kernel's moves frames between the rings and a tap, without waking this process.
 *
 * Theory of operation. The tap is opened and set up as virtio-net does it, offloads too; /dev/vhost-net is told of memory by
 * this process's addresses, of the rings, and of the tap, by which it starts. Taking the tap away stops it: when that call
 * returns, the kernel has let go of the ring. It can end no other way, so `lost` is never set. */
#include "devices/vhost.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/loop.h"
#include "devices/net_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define BIT(n) (1ull << (n))

#define VHOST_NET "/dev/vhost-net"
/* Of what the kernel offers: what concerns the rings. The rest is the tap's. */
#define RING_FEATURES                                                                                        \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(NET_F_MRG_RXBUF))

struct vhost_kernel {
	struct vhost vhost;
	int vhost_fd;		 /* owned */
	struct net_backend *tap; /* owned */
};

static struct vhost_kernel *from_vhost(struct vhost *vhost)
{
	return container_of(vhost, struct vhost_kernel, vhost);
}

static int call(struct vhost_kernel *k, unsigned long request, const void *argument, const char *what, struct error *err)
{
	if (ioctl(k->vhost_fd, request, argument) < 0)
		return error_set_errno(err, errno, "the kernel refuses %s", what);
	return 0;
}

static int kernel_set_memory(struct vhost *vhost, const struct vhost_memory_map *map, struct error *err)
{
	struct vhost_kernel *k = from_vhost(vhost);
	union {
		struct vhost_memory memory;
		char room[sizeof(struct vhost_memory) + GMEM_REGIONS_MAX * sizeof(struct vhost_memory_region)];
	} table = {.memory.nregions = map->n};

	for (unsigned i = 0; i < map->n; i++)
		table.memory.regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = map->regions[i]->gpa,
			.memory_size = map->regions[i]->size_bytes,
			.userspace_addr = (uintptr_t)map->regions[i]->host,
		};
	return call(k, VHOST_SET_MEM_TABLE, &table, "guest memory", err);
}

static int kernel_start(struct vhost *vhost, uint64_t driver_features, struct error *err)
{
	struct vhost_kernel *k = from_vhost(vhost);
	uint64_t features = driver_features & vhost->features & RING_FEATURES;
	int r = k->tap->ops->set_features(k->tap, driver_features);

	if (r < 0)
		return error_set_errno(err, -r, "the tap does not take the driver's offloads");
	return call(k, VHOST_SET_FEATURES, &features, "the driver's features", err);
}

static int kernel_start_queue(struct vhost *vhost, const struct vhost_queue *queue, struct error *err)
{
	struct vhost_kernel *k = from_vhost(vhost);
	struct vhost_vring_state num = {queue->index, queue->vq->size}, base = {queue->index, queue->vq->next_avail};
	struct vhost_vring_addr address = {
		.index = queue->index,
		.desc_user_addr = (uintptr_t)queue->vq->desc_table,
		.used_user_addr = (uintptr_t)queue->vq->used_ring,
		.avail_user_addr = (uintptr_t)queue->vq->avail_ring,
	};
	struct vhost_vring_file kick = {queue->index, queue->kick_fd}, interrupt = {queue->index, queue->call_fd},
				error = {queue->index, queue->error_fd}, tap = {queue->index, k->tap->fd};
	const struct {
		unsigned long request;
		const void *argument;
		const char *what;
	} calls[] = {
		{VHOST_SET_VRING_NUM, &num, "a ring's size"},
		{VHOST_SET_VRING_BASE, &base, "a ring's position"},
		{VHOST_SET_VRING_ADDR, &address, "a ring's addresses"},
		{VHOST_SET_VRING_CALL, &interrupt, "a ring's interrupt"},
		{VHOST_SET_VRING_ERR, &error, "a ring's errors"},
		{VHOST_SET_VRING_KICK, &kick, "a ring's doorbell"},
		{VHOST_NET_SET_BACKEND, &tap, "the tap"},
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(calls) && r == 0; i++)
		r = call(k, calls[i].request, calls[i].argument, calls[i].what, err);
	return r;
}

static int kernel_stop_queue(struct vhost *vhost, uint16_t index, uint16_t *ret_next_avail, struct error *err)
{
	struct vhost_kernel *k = from_vhost(vhost);
	struct vhost_vring_file no_tap = {index, -1};
	struct vhost_vring_state base = {index, 0};
	int r = call(k, VHOST_NET_SET_BACKEND, &no_tap, "to let go of a ring", err);

	if (r == 0)
		r = call(k, VHOST_GET_VRING_BASE, &base, "to say where a ring stands", err);
	if (r == 0)
		*ret_next_avail = (uint16_t)base.num;
	return r;
}

static void kernel_free(struct vhost *vhost)
{
	struct vhost_kernel *k = from_vhost(vhost);

	close_fd(k->vhost_fd); /* before the tap that it works on */
	if (k->tap)
		k->tap->ops->free(k->tap);
	free(k);
}

static const struct vhost_ops kernel_ops = {
	.start = kernel_start,
	.set_memory = kernel_set_memory,
	.start_queue = kernel_start_queue,
	.stop_queue = kernel_stop_queue,
	.free = kernel_free,
};

static int open_vhost_net(struct error *err)
{
	int fd = open(VHOST_NET, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return error_set(err, errno, "this host has no " VHOST_NET ": load vhost_net");
	case EACCES:
	case EPERM:
		return error_set(err, errno, "not permitted to open " VHOST_NET);
	default:
		return error_set_errno(err, errno, "cannot open " VHOST_NET);
	}
}

static int init(struct vhost_kernel *k, struct error *err)
{
	uint64_t features;

	k->vhost_fd = open_vhost_net(err);
	if (k->vhost_fd < 0)
		return k->vhost_fd;
	if (ioctl(k->vhost_fd, VHOST_SET_OWNER) < 0)
		return error_set_errno(err, errno, "the kernel gives no thread for " VHOST_NET);
	if (ioctl(k->vhost_fd, VHOST_GET_FEATURES, &features) < 0)
		return error_set_errno(err, errno, VHOST_NET " does not say what it can do");
	if (!(features & BIT(VIRTIO_F_VERSION_1)))
		return error_set(err, ENOTSUP, "this host's vhost-net knows legacy drivers only");
	k->vhost.features = (features & RING_FEATURES) | k->tap->ops->features;
	return 0;
}

struct vhost *vhost_kernel_net_new(int tap_fd, struct error *err)
{
	struct net_backend *tap = net_tap_new(tap_fd, err);
	struct vhost_kernel *k = tap ? calloc(1, sizeof(*k)) : NULL;

	if (!tap)
		return NULL;
	if (!k) {
		tap->ops->free(tap);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	*k = (struct vhost_kernel){.vhost_fd = -1, .tap = tap};
	k->vhost = (struct vhost){
		.ops = &kernel_ops, .queues_max = 2, .fd = -1, .request_fd = -1, .begun_ns = monotonic_ns(),
		.patience_ns = VHOST_PATIENCE_NS};
	if (init(k, err) == 0)
		return &k->vhost;
	kernel_free(&k->vhost);
	return NULL;
}
