/* A group of a device's queues, and who works on them: a thread of its own with a loop of its own; or, where the device has one
 * group only, the loop thread.
 *
 *	                 vCPU, loop thread                      the group's thread
 *	driver's registers ──▶ virtio_dev (dev->lock)           struct loop ◀── kick_fd: the driver rings
 *	                           │ activate, reset, quiesce,      │           engine, tap, timers
 *	                           ▼ resume, holds                  ▼
 *	                       group->lock ─────────────────▶ queues, requests ──▶ call_fd: the guest is interrupted
 *	loop thread ◀───────── `report`: the driver broke the rules ◀──┘
 *
 * Theory of operation. What a group works on (its virtqueues once the device is active, its requests, its back-end) is guarded by
 * the group's lock. A group's thread takes that lock and none other, so whoever holds the device's lock may take it as well, and
 * wait for the thread, and no two can wait for each other. The thread may only touch the rings while the group is running,
 * which is set and cleared under both locks; for the device's status, by which the loop thread goes, it need not look.
 *
 * A group without a thread has the device's lock for its own and the device's loop for its loop, and runs when the device
 * does: then nothing below costs more than a branch. */
#ifndef HULL_DEVICES_QUEUE_GROUP_H
#define HULL_DEVICES_QUEUE_GROUP_H

#include "devices/loop_kick.h"
#include "devices/virtio.h"

#define QUEUE_GROUP_QUEUES_MAX 2

/* Works on queue `q` of the group, for which the driver has rung if `rang`; else it is to be looked into all the same, as the
 * group goes on. The group is running and its lock held, on its thread. */
typedef void (*queue_group_fn)(void *ctx, uint16_t q, bool rang);

struct queue_group;

struct queue_group_bell {
	struct queue_group *group;
	uint16_t queue;
	int kick_fd, call_fd; /* borrowed from the transport; call_fd: -1: the loop thread is to interrupt */
	struct loop_source *source;
};

struct queue_group {
	struct virtio_dev *dev;
	struct loop *loop; /* borrowed, or its own */
	pthread_mutex_t *lock; /* the device's, or its own */
	queue_group_fn work;
	void *ctx;
	uint16_t n;
	struct queue_group_bell bells[QUEUE_GROUP_QUEUES_MAX];

	/* The rest only with a thread. */
	bool threaded;
	bool started; /* the thread is there */
	pthread_t thread;
	pthread_mutex_t own_lock;
	bool active, running; /* see above */
	bool watching; /* the thread's own: the doorbells are in its loop */
	struct loop_kick wake;	 /* to the thread: look into all queues */
	struct loop_kick report; /* to the loop thread: the two below have changed */
	const char *broken_why;
	uint32_t interrupts; /* a bit for each of `bells` */
};

/* The group of the queues [first, first + n) of `dev`, which is not active. With `thread_name` (15 characters of it are used) it
 * has a thread from now on, and needs a transport with kick_fd and call_fd; without, `loop` is where it is worked on. 0 or -errno;
 * to be ended by queue_group_done() either way. Loop thread. */
int queue_group_init(struct queue_group *group, struct virtio_dev *dev, struct loop *loop, uint16_t first, uint16_t n,
	const char *thread_name, queue_group_fn work, void *ctx);
/* Ends the thread; sources in its loop may be removed by the caller from now on. Loop thread, without locks. Also of a zeroed one. */
void queue_group_join(struct queue_group *group);
/* Frees what there is, the loop with all its sources. After queue_group_join(). */
void queue_group_done(struct queue_group *group);

/* Runs `fn(ctx)` on the group's thread, without locks, and waits for it. Loop thread, with no group's lock held. */
void queue_group_call(struct queue_group *group, loop_fn fn, void *ctx);

/* For the group's thread: around all that comes by its loop. */
static inline void queue_group_enter(struct queue_group *group)
{
	pthread_mutex_lock(group->lock);
}

static inline void queue_group_leave(struct queue_group *group)
{
	pthread_mutex_unlock(group->lock);
}

/* With the device's lock held: keeps the group's thread away from what is the group's. */
static inline void queue_group_hold(struct queue_group *group)
{
	if (group->threaded)
		pthread_mutex_lock(&group->own_lock);
}

static inline void queue_group_let_go(struct queue_group *group)
{
	if (group->threaded)
		pthread_mutex_unlock(&group->own_lock);
}

/* With the device's lock held, the group's not: the device has become active, or goes on. Any thread. */
void queue_group_start(struct queue_group *group);

/* With both locks. The rings are left alone until the next start; `for_good`: the device is not active any more. */
static inline void queue_group_rest(struct queue_group *group, bool for_good)
{
	group->running = false;
	if (!for_good)
		return;
	group->active = false;
	group->broken_why = NULL;
	group->interrupts = 0;
}

/* With the device's lock held, the group's not: does at once what the thread has asked the loop thread for. A reset has taken
 * back what was asked before it. */
void queue_group_tell(struct queue_group *group);

/* With the group's lock, all of these: whether the device is active, and whether the rings may be worked on. */
static inline bool queue_group_is_active(const struct queue_group *group)
{
	return group->threaded ? group->active : group->dev->active;
}

static inline bool queue_group_is_running(const struct queue_group *group)
{
	return group->threaded ? group->running : virtio_dev_running(group->dev);
}

/* As virtio_dev_notify(), for queue `q` of the group. */
void queue_group_notify(struct queue_group *group, uint16_t q);
/* As virtio_dev_broken(): this group stops at once, the device, and its other groups with it, soon. `why` is static. */
void queue_group_broken(struct queue_group *group, const char *why);

#endif
