/* The virtio device core (virtio 1.2, section 2): status, features, queues, configuration space. It knows neither the
 * transport before it nor the device behind it; both are tables of functions.
 *
 *	transport (virtio_mmio, virtio_pci) ──▶ virtio_dev ──▶ device (blk, net, vsock, rng) by struct virtio_ops
 *	                                    ◀── struct virtio_transport
 *
 * Threads: vCPU threads come in by the transport's registers, the loop thread by doorbells (ioeventfd) and back-ends.
 * `lock` guards all of struct virtio_dev and the device's own state behind it; every function below that does not say
 * otherwise is called with it held, and so are all ops but `free`. The lock is taken by the transport and by the
 * entry points virtio_dev_doorbell() and virtio_dev_enter()/leave(), never by ops.
 * A device with several queues may have threads that work on them: devices/queue_group.h. A ring is then guarded by its group's
 * lock, too, while the device is active; the device's own lock still guards all the rest.
 * Lock order: virtio-mem's lock comes before all other devices', then virtio_dev.lock, then those of its queue groups, then the
 * log's. Doorbells never arrive while !activated. */
#ifndef HULL_DEVICES_VIRTIO_H
#define HULL_DEVICES_VIRTIO_H

#include "devices/metrics.h"
#include "devices/virtq.h"

#include <pthread.h>

/* Device status field, section 2.1. */
#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER	  2
#define VIRTIO_STATUS_DRIVER_OK	  4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED	  128

#define VIRTIO_QUEUES_MAX 17 /* eight pairs of a network interface, and its control queue */

struct virtio_dev;

struct virtio_ops {
	const char *name;    /* "virtio-blk", for logs and the state section */
	uint32_t device_id;  /* section 5 */
	uint16_t n_queues;
	uint16_t queue_size; /* the maximum offered, a power of two <= VIRTQ_SIZE_MAX */

	/* The device's own feature bits; VIRTIO_F_VERSION_1 and ring_features are the core's. */
	uint64_t (*features)(struct virtio_dev *dev);
	uint64_t required_features; /* of them, those that a driver must accept (2.2.2) */
	/* `len` bytes at `offset` of configuration space; the core has checked that they lie within config_size. */
	size_t config_size;
	void (*config_read)(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len);
	void (*config_write)(struct virtio_dev *dev, uint32_t offset, const void *data, uint32_t len); /* may be NULL */

	/* DRIVER_OK was set; features and queues are final. -errno puts the device in NEEDS_RESET. A vCPU's thread: what
	 * only the loop thread may do is loop_post()ed. Not called on a loaded device: there resume() is the start. */
	int (*activate)(struct virtio_dev *dev);
	/* Stop all use of the queues and forget requests in flight (wait for those the kernel holds buffers of).
	 * Called only when active, by a vCPU's thread or the loop's. */
	void (*reset)(struct virtio_dev *dev);
	/* The driver rang queue `q`. Loop thread. */
	void (*doorbell)(struct virtio_dev *dev, uint16_t q);

	/* Whether a request in flight has buffers in these bytes of host memory, in part. NULL: none has any once the lock is
	 * let go. */
	bool (*holds)(struct virtio_dev *dev, const void *host, uint64_t len);

	/* Regions of guest memory have come, or are there again after all. NULL: it looks at each request. Called only when active,
	 * by the loop's thread. */
	void (*memory_changed)(struct virtio_dev *dev);

	/* NEEDS_RESET was set: whoever else works on the rings is to leave them alone. NULL: nobody does but by virtio_dev_running().
	 * Called only when active, by any thread. */
	void (*broken)(struct virtio_dev *dev);

	/* Bring requests in flight to rest (completed, or back in the ring), so that the rings and save() tell all.
	 * Doorbells do not come any more; what the device hears from elsewhere must leave the rings alone while
	 * dev->quiesced. resume() goes on, also on a freshly loaded device: it looks into every queue, since doorbells
	 * may have been lost. Both are called only when active, from the loop thread. */
	void (*quiesce)(struct virtio_dev *dev);
	void (*resume)(struct virtio_dev *dev);
	/* What the guest has written is on the host's disk. 0 or -errno with `err` set. NULL: it keeps nothing. Only while quiesced. */
	int (*sync)(struct virtio_dev *dev, struct error *err);
	/* The device's own fields; the core has opened the section and closes it, and saves status, features and queues. */
	void (*save)(struct virtio_dev *dev, struct state_writer *w);
	int (*load)(struct virtio_dev *dev, struct state_reader *r, struct error *err);

	/* Frees the device; called without the lock, after reset(), on the loop thread. */
	void (*free)(struct virtio_dev *dev);
};

/* What a device asks of the transport before it. None of it calls back. */
#define VIRTIO_INTERRUPT_CONFIG 0xffff
struct virtio_transport {
	/* Interrupts the guest for queue `q`, or for a configuration change (NEEDS_RESET included) with
	 * VIRTIO_INTERRUPT_CONFIG. With the lock held, by any thread. */
	void (*interrupt)(void *ctx, uint16_t q);

	/* For a device whose rings are worked by somebody else: vhost, another thread. `q` < ops->n_queues. */

	/* The eventfd that the driver's doorbell makes readable. Borrowed; it stays the same for the device's life. */
	int (*kick_fd)(void *ctx, uint16_t q);
	/* Whether the loop listens to it and calls ops->doorbell(), as at first. Loop thread. */
	void (*listen)(void *ctx, uint16_t q, bool listen);
	/* An eventfd each write to which interrupts the guest for the queue, with no help of the device's: borrowed, the same
	 * from the queue's enabling until a reset. Or -1 where there is none: then interrupts are told by virtio_dev_interrupt().
	 * With the lock held. */
	int (*call_fd)(void *ctx, uint16_t q);
};

/* What the core counts for every device. */
struct virtio_metrics {
	uint64_t activate_fails;
	uint64_t cfg_fails; /* accesses beyond the configuration space */
	uint64_t triggers, config_updates; /* interrupts of queues, and of the configuration */
};

struct virtio_dev {
	const struct virtio_ops *ops;
	const struct gmem *mem;
	pthread_mutex_t lock;

	uint8_t status;
	uint32_t features_sel, driver_features_sel, queue_sel; /* the transport's windows */
	uint64_t driver_features; /* what the driver accepted */
	uint64_t ring_features;	  /* VIRTIO_RING_F_*: what is offered; less, by a device whose rings others work on, than all we can */
	uint32_t config_generation;
	bool active; /* between activate() (or a load of an active device) and reset() */
	bool quiesced; /* between virtio_dev_quiesce() (or a load) and virtio_dev_resume(): doorbells go nowhere */
	uint32_t times_broken; /* bounds the log */
	struct virtq queues[VIRTIO_QUEUES_MAX];

	struct virtio_metrics metrics;
	const struct virtio_transport *transport; /* borrowed, set by the transport itself; NULL: there is none */
	void *transport_ctx;
};

/* Called by the device's own constructor; `mem` is borrowed and outlives it. */
void virtio_dev_init(struct virtio_dev *dev, const struct virtio_ops *ops, const struct gmem *mem);
/* Resets, then ops->free(). NULL is fine. Without the lock; the doorbells must be unregistered. */
void virtio_dev_free(struct virtio_dev *dev);

static inline void virtio_dev_enter(struct virtio_dev *dev)
{
	pthread_mutex_lock(&dev->lock);
}

static inline void virtio_dev_leave(struct virtio_dev *dev)
{
	pthread_mutex_unlock(&dev->lock);
}

/* For transports. */
uint64_t virtio_dev_features(struct virtio_dev *dev);
/* The driver wrote the status register (section 2.1.2, 3.1); writing 0 resets. */
void virtio_dev_set_status(struct virtio_dev *dev, uint8_t status);
void virtio_dev_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len);
void virtio_dev_config_write(struct virtio_dev *dev, uint32_t offset, const void *data, uint32_t len);
/* Takes the lock itself. Loop thread; a transport passes a doorbell that came as an exit on to it. */
void virtio_dev_doorbell(struct virtio_dev *dev, uint16_t q);

/* For devices. */
static inline bool virtio_dev_negotiated(const struct virtio_dev *dev, unsigned feature_bit)
{
	return dev->driver_features >> feature_bit & 1;
}
/* Whether the rings may be worked on: active, not broken, not at rest for a save. */
static inline bool virtio_dev_running(const struct virtio_dev *dev)
{
	return dev->active && !dev->quiesced && !(dev->status & VIRTIO_STATUS_NEEDS_RESET);
}
/* Interrupts for queue `q` if the driver wants that. */
void virtio_dev_notify(struct virtio_dev *dev, uint16_t q);
/* The same without a look at the ring: for rings worked by somebody else, who has looked. */
void virtio_dev_interrupt(struct virtio_dev *dev, uint16_t q);
void virtio_dev_config_changed(struct virtio_dev *dev);
/* Whether the device may still touch these bytes of host memory, having found them earlier: its rings are there, or buffers
 * of its requests (devices/gmem.h says what for). */
bool virtio_dev_holds(struct virtio_dev *dev, const void *host, uint64_t len);
/* Regions of guest memory have come, or after virtio_dev_holds() do not go. Loop thread; takes the lock itself. */
void virtio_dev_memory_changed(struct virtio_dev *dev);
/* The driver broke the rules: NEEDS_RESET, configuration interrupt, one log line, no more queue work until reset. */
void virtio_dev_broken(struct virtio_dev *dev, const char *why) __attribute__((nonnull));

/* Calls the device's quiesce() or resume() when it is active. Loop thread; takes the lock itself. A device between
 * the two pops no request; interrupts for what it completed meanwhile have been sent. */
void virtio_dev_quiesce(struct virtio_dev *dev);
void virtio_dev_resume(struct virtio_dev *dev);

/* Whole device: quiesced first. Takes no lock; the vCPUs are stopped. Section name: ops->name. A
 * loaded device stands still until virtio_dev_resume(); one that failed to load is as after a reset. */
void virtio_dev_save(struct virtio_dev *dev, struct state_writer *w);
int virtio_dev_load(struct virtio_dev *dev, struct state_reader *r, struct error *err);

#endif
