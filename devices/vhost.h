/* Whoever works a device's rings in its place: another process, over a Unix socket (vhost_user.c), or the kernel
 * (vhost_kernel.c). virtio_vhost.c is the device before them.
 *
 * Every call may wait for the other side, until `deadline_ns` at the latest, which the caller sets before it begins. All are
 * made with the device's lock held, by a vCPU's thread or the loop's. They return 0 or -errno with `err` set (no field); when
 * `lost` is set afterwards, the other side is not to be relied on any more, and every further call fails at once. */
#ifndef HULL_DEVICES_VHOST_H
#define HULL_DEVICES_VHOST_H

#include "common/error.h"
#include "devices/virtq.h"

struct vhost;

/* A ring to be worked on. Descriptors are borrowed for the call. */
struct vhost_queue {
	uint16_t index;
	const struct virtq *vq; /* goes on at vq->next_avail */
	int kick_fd;		/* eventfd: the driver has made chains available */
	int call_fd;		/* eventfd to be written: chains are completed, and the driver wants to know */
	int error_fd;		/* eventfd to be written: the driver broke the ring */
};

/* The regions of guest memory that it may work on. */
struct vhost_memory_map {
	const struct gmem_region *regions[GMEM_REGIONS_MAX];
	unsigned n;
};

struct vhost_ops {
	bool needs_shared_memory; /* only regions with a descriptor are for it */
	/* What the driver has accepted of `features`. While no queue is started. */
	int (*start)(struct vhost *vhost, uint64_t driver_features, struct error *err);
	/* Where guest memory is; before a queue is started, and whenever that changes. When it returns, what was there before and
	 * is there no more is left alone. */
	int (*set_memory)(struct vhost *vhost, const struct vhost_memory_map *map, struct error *err);
	int (*start_queue)(struct vhost *vhost, const struct vhost_queue *queue, struct error *err);
	/* Returns when the queue is left alone, where it is to go on. */
	int (*stop_queue)(struct vhost *vhost, uint16_t index, uint16_t *ret_next_avail, struct error *err);
	/* The device is reset: all queues are stopped. May be NULL. */
	int (*reset)(struct vhost *vhost, struct error *err);
	/* The first `len` bytes of the configuration space. NULL when there is none to be had. */
	int (*read_config)(struct vhost *vhost, void *ret, uint32_t len, struct error *err);
	/* `fd` is readable, or hung up: nothing is expected there, so this says what happened. NULL with `fd` -1. */
	int (*check)(struct vhost *vhost, struct error *err);
	/* `request_fd` is readable, or hung up. `*ret_config_changed`: the configuration space is to be read again. NULL with it -1. */
	int (*serve_requests)(struct vhost *vhost, bool *ret_config_changed, struct error *err);
	void (*free)(struct vhost *vhost);
};

struct vhost {
	const struct vhost_ops *ops;
	uint64_t features;   /* device features that it can do, VIRTIO_F_VERSION_1 among them */
	uint16_t queues_max; /* that it works on */
	int fd, request_fd;  /* owned, to be watched by the loop; -1: none */
	uint64_t patience_ns, deadline_ns; /* how long a deadline is, to whoever sets one */
	uint64_t begun_ns; /* when we began to get to know it */
	bool lost;
};

/* How long the other side may take for what is one thing to a driver: to start a device, to stop it. Beyond that it is lost. */
#define VHOST_PATIENCE_NS 10000000000ull

/* Agrees with who is at the other end of `fd`, a connected Unix stream socket (taken over, also on failure), on what both can do.
 * NULL with `err` set (no field). */
struct vhost *vhost_user_new(int fd, struct error *err);
/* The kernel's vhost-net on a tap (taken over, also on failure), which it sets up as virtio-net does. NULL with `err` set. */
struct vhost *vhost_kernel_net_new(int tap_fd, struct error *err);

#endif
