/* The vhost devices from inside, shared by their two parts:
 *
 *	virtio_vhost.c		the device's life: rings handed over and taken back, the back-end watched
 *	virtio_vhost_kinds.c	what is particular to blk, fs and net */
#ifndef HULL_DEVICES_VIRTIO_VHOST_DEVICE_H
#define HULL_DEVICES_VIRTIO_VHOST_DEVICE_H

#include "devices/virtio_vhost.h"

#define VHOST_CONFIG_MAX 64 /* bytes of configuration space */

/* What a kind of device is, whoever works it. */
struct vhost_kind {
	const char *name; /* for logs, and the state section */
	uint32_t device_id;
	uint64_t features;     /* of the device's own, those that are passed on when the back-end has them */
	uint64_t own_features; /* those that are in the configuration space alone, which is ours */
	size_t config_size;
	bool config_is_backends; /* the configuration space comes from there, and may change */
	uint16_t num_queues_at;	 /* where in it the number of queues stands, 16 bits; 0: nowhere */
	uint16_t status_at;	 /* the same for the status of a link; 0: there is no link */
	/* Every request is answered in its time, so a ring can be let run empty; not so where buffers wait for what may come. */
	bool answers_all;
	/* The back-end holds state that no ring tells of: a running device cannot go on at another one. */
	bool has_sessions;
};

struct vhost_call {
	struct virtio_vhost *v;
	uint16_t queue;
	int fd; /* eventfd, owned; for a transport that has none of its own */
	struct loop_source *source;
};

struct virtio_vhost {
	struct virtio_dev dev;
	struct virtio_ops ops; /* of its own: how many queues it has is not the kind's to say */
	const struct vhost_kind *kind;
	char *id; /* owned */
	struct vhost *backend;
	uint64_t own_features; /* of kind->own_features, those that it offers */
	uint64_t withheld;     /* features of the back-end's that are not offered */
	uint8_t config[VHOST_CONFIG_MAX];

	bool loss_told;
	bool started[VIRTIO_QUEUES_MAX]; /* the ring is the back-end's */
	struct vhost_memory_map map;	 /* what it was told of memory when it was started */
	struct loop *loop;
	struct loop_source *watch, *requests; /* of backend->fd and request_fd; NULL without, and once it is lost */
	struct loop_source *reread;	      /* timer: the configuration space has changed */
	struct vhost_call calls[VIRTIO_QUEUES_MAX];
	int error_fd; /* eventfd, owned: a ring is broken */
	struct loop_source *error;
	struct vhost_metrics metrics;
};

/* A device of that kind, with nothing in its configuration space yet. Takes `backend` over, also on failure. NULL with `err`
 * set. */
struct virtio_vhost *vhost_device_new(const struct vhost_kind *kind, struct vhost *backend, uint16_t n_queues,
	const char *id, struct loop *loop, const struct gmem *mem, struct error *err);
/* kind->config_size bytes; but the number of queues is what we have, not what the back-end would have. */
void vhost_device_set_config(struct virtio_vhost *v, const void *config);

#endif
