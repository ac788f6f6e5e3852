/* Threads for groups of queues: their start and end, doorbells in, interrupts and complaints out. */
#include "devices/queue_group.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>

/* A chain's pieces are copied to the stack, and not much else. */
#define STACK_BYTES (256u << 10)
#define NAME_BYTES  16

/* ---- on the group's thread ---- */

static void work_on(struct queue_group_bell *bell, bool rang)
{
	struct queue_group *group = bell->group;

	if (queue_group_is_running(group) && group->dev->queues[bell->queue].ready)
		group->work(group->ctx, bell->queue, rang);
}

static void on_doorbell(void *ctx, uint32_t epoll_events)
{
	struct queue_group_bell *bell = ctx;

	(void)epoll_events;
	queue_group_enter(bell->group);
	work_on(bell, true);
	queue_group_leave(bell->group);
}

/* Edge-triggered, as nobody reads them: each write is an event, and one that was there before is one, too. They stay for the
 * device's life, as the transport's descriptors do. */
static int watch_doorbells(struct queue_group *group)
{
	for (uint16_t i = 0; i < group->n; i++) {
		struct queue_group_bell *bell = &group->bells[i];

		if (!bell->source)
			bell->source = loop_add_fd(group->loop, bell->kick_fd, EPOLLIN | EPOLLET, on_doorbell, bell);
		if (!bell->source)
			return -errno;
	}
	group->watching = true;
	return 0;
}

static void on_wake(void *ctx)
{
	struct queue_group *group = ctx;

	queue_group_enter(group);
	if (group->running && !group->watching && watch_doorbells(group) < 0)
		queue_group_broken(group, "its doorbells cannot be watched");
	for (uint16_t i = 0; i < group->n; i++)
		work_on(&group->bells[i], false);
	queue_group_leave(group);
}

static void *run(void *ctx)
{
	struct queue_group *group = ctx;

	loop_run(group->loop);
	return NULL;
}

struct call {
	loop_fn fn;
	void *ctx;
	sem_t done;
};

static void on_call(void *ctx)
{
	struct call *call = ctx;

	call->fn(call->ctx);
	sem_post(&call->done);
}

void queue_group_call(struct queue_group *group, loop_fn fn, void *ctx)
{
	struct call call = {.fn = fn, .ctx = ctx};

	if (!group->started) {
		fn(ctx);
		return;
	}
	sem_init(&call.done, 0, 0);
	loop_post(group->loop, on_call, &call);
	while (sem_wait(&call.done) < 0)
		assert(errno == EINTR);
	sem_destroy(&call.done);
}

/* ---- on the loop thread ---- */

void queue_group_tell(struct queue_group *group)
{
	const char *why;
	uint32_t interrupts;

	queue_group_hold(group);
	why = group->broken_why;
	interrupts = group->interrupts;
	group->broken_why = NULL;
	group->interrupts = 0;
	queue_group_let_go(group);
	for (uint16_t i = 0; i < group->n; i++)
		if (interrupts >> i & 1)
			virtio_dev_interrupt(group->dev, group->bells[i].queue);
	if (why)
		virtio_dev_broken(group->dev, why);
}

static void on_report(void *ctx)
{
	struct queue_group *group = ctx;

	virtio_dev_enter(group->dev);
	queue_group_tell(group);
	virtio_dev_leave(group->dev);
}

/* ---- on any thread ---- */

void queue_group_start(struct queue_group *group)
{
	const struct virtio_transport *transport = group->dev->transport;
	void *ctx = group->dev->transport_ctx;

	if (!group->threaded)
		return;
	queue_group_hold(group);
	for (uint16_t i = 0; i < group->n; i++) {
		struct queue_group_bell *bell = &group->bells[i];

		bell->kick_fd = transport->kick_fd(ctx, bell->queue);
		bell->call_fd = transport->call_fd(ctx, bell->queue);
	}
	group->active = group->running = true;
	queue_group_let_go(group);
	loop_kick(&group->wake);
}

void queue_group_notify(struct queue_group *group, uint16_t q)
{
	struct queue_group_bell *bell = &group->bells[q - group->bells[0].queue];

	if (!group->threaded) {
		virtio_dev_notify(group->dev, q);
	} else if (!virtq_wants_interrupt(&group->dev->queues[q])) {
		return;
	} else if (bell->call_fd >= 0) {
		metric_inc(&group->dev->metrics.triggers);
		eventfd_write(bell->call_fd, 1); /* fails only when the counter is full: then the interrupt is pending already */
	} else {
		group->interrupts |= 1u << (bell - group->bells);
		loop_kick(&group->report);
	}
}

void queue_group_broken(struct queue_group *group, const char *why)
{
	if (!group->threaded) {
		virtio_dev_broken(group->dev, why);
		return;
	}
	group->running = false;
	group->broken_why = why;
	loop_kick(&group->report);
}

/* ---- life ---- */

/* Signals are for the threads that wait for them. */
static int start_thread(struct queue_group *group, const char *name)
{
	char short_name[NAME_BYTES];
	pthread_attr_t attributes;
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	r = pthread_create(&group->thread, &attributes, run, group);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return -r;
	group->started = true;
	snprintf(short_name, sizeof(short_name), "%s", name);
	pthread_setname_np(group->thread, short_name);
	return 0;
}

int queue_group_init(struct queue_group *group, struct virtio_dev *dev, struct loop *loop, uint16_t first, uint16_t n,
	const char *thread_name, queue_group_fn work, void *ctx)
{
	int r;

	assert(n >= 1 && n <= QUEUE_GROUP_QUEUES_MAX && first + n <= dev->ops->n_queues);
	*group = (struct queue_group){.dev = dev, .loop = loop, .lock = &dev->lock, .work = work, .ctx = ctx, .n = n,
		.wake.fd = -1, .report.fd = -1};
	for (uint16_t i = 0; i < n; i++)
		group->bells[i] = (struct queue_group_bell){.group = group, .queue = first + i, .kick_fd = -1, .call_fd = -1};
	if (!thread_name)
		return 0;
	group->threaded = true;
	pthread_mutex_init(&group->own_lock, NULL);
	group->lock = &group->own_lock;
	group->loop = loop_new();
	if (!group->loop)
		return -errno;
	r = loop_kick_init(&group->wake, group->loop, on_wake, group);
	if (r == 0)
		r = loop_kick_init(&group->report, loop, on_report, group);
	return r == 0 ? start_thread(group, thread_name) : r;
}

void queue_group_join(struct queue_group *group)
{
	if (!group->started)
		return;
	loop_stop(group->loop);
	pthread_join(group->thread, NULL);
	group->started = false;
}

void queue_group_done(struct queue_group *group)
{
	assert(!group->started);
	if (!group->threaded)
		return;
	loop_kick_done(&group->report);
	loop_kick_done(&group->wake);
	loop_free(group->loop);
	pthread_mutex_destroy(&group->own_lock);
	group->threaded = false;
}
