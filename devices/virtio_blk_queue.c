/* virtio-blk: one queue, its requests and their outcome.
 *
 * Theory of operation. A request takes a slot from the free stack, is parsed into one operation of the engine, and
 * keeps its slot until the engine has finished: the chain's iovecs live there. As many slots are used as the queue has
 * descriptors, at most: a driver that makes more requests available has reused a descriptor in flight, and is broken.
 *
 * A doorbell pops all there is, hands it to the kernel with one call and raises at most one interrupt; so does a
 * completion event, which also pops what came meanwhile. All this is done on the thread of the queue's group with the group's
 * lock; only what brings a queue to rest comes on others, and waits there until the kernel is done with guest memory. */
#include "devices/virtio_blk_device.h"

#include "common/accounting.h"
#include "common/checked.h"
#include "common/log.h"

#include <errno.h>
#include <string.h>

/* A failing disk fails often; its first errors tell. */
#define ERROR_LOG_MAX 8

#define RETRY_SUBMIT_NS 1000000u

/* ---- completion ---- */

static uint16_t in_flight(const struct blk_queue *q)
{
	return BLK_QUEUE_SIZE - q->n_free;
}

static struct virtq *ring_of(struct blk_queue *q)
{
	return &q->blk->dev.queues[q->index];
}

static void give_back(struct blk_queue *q, struct blk_request *req)
{
	q->free_slots[q->n_free++] = (uint16_t)(req - q->requests);
}

/* Answers the driver and frees the slot. */
static void complete(struct blk_queue *q, struct blk_request *req, uint8_t status)
{
	*req->status = status;
	/* 2.7.8.2: no more than was written. Of a failed request only the status byte is promised. */
	virtq_push(ring_of(q), req->chain.head, status == BLK_S_OK ? req->in_bytes : 1);
	give_back(q, req);
}

static void log_failure(struct virtio_blk *blk, const struct blk_request *req)
{
	static const char *const names[] = {
		[BLK_OP_READ] = "read",
		[BLK_OP_WRITE] = "write",
		[BLK_OP_FLUSH] = "flush",
		[BLK_OP_DISCARD] = "discard",
		[BLK_OP_WRITE_ZEROES ... BLK_OP_UNMAP_ZEROES] = "write of zeroes",
	};

	if (__atomic_fetch_add(&blk->errors_logged, 1, __ATOMIC_RELAXED) < ERROR_LOG_MAX)
		log_warn("disk %s: %s at sector %llu failed: %s", blk->path, names[req->io.op],
			(unsigned long long)req->sector, strerror(-req->io.result));
}

static void count_success(struct virtio_blk *blk, const struct blk_request *req)
{
	struct blk_metrics *metrics = &blk->metrics;
	uint64_t us = (monotonic_ns() - req->begun_ns) / 1000;

	switch (req->io.op) {
	case BLK_OP_READ:
		metric_inc(&metrics->read_count);
		metric_add(&metrics->read_bytes, req->data_bytes);
		metric_inc(&accounting->disk_reads);
		metric_add(&accounting->disk_read_bytes, req->data_bytes);
		metric_record_latency(&metrics->read_agg, us);
		break;
	case BLK_OP_WRITE:
		metric_inc(&metrics->write_count);
		metric_add(&metrics->write_bytes, req->data_bytes);
		metric_inc(&accounting->disk_writes);
		metric_add(&accounting->disk_written_bytes, req->data_bytes);
		metric_record_latency(&metrics->write_agg, us);
		break;
	case BLK_OP_FLUSH:
		metric_inc(&metrics->flush_count);
		metric_inc(&accounting->disk_flushes);
		break;
	default:
		break;
	}
}

/* The engine has finished with the request. */
static void complete_io(struct blk_queue *q, struct blk_request *req)
{
	bool zeroing = req->io.op == BLK_OP_DISCARD || req->io.op == BLK_OP_WRITE_ZEROES ||
		       req->io.op == BLK_OP_UNMAP_ZEROES;

	if (req->io.result == 0) {
		count_success(q->blk, req);
		complete(q, req, BLK_S_OK);
	} else if (zeroing && req->io.result == -EOPNOTSUPP) {
		complete(q, req, BLK_S_UNSUPP); /* drivers then do without */
	} else {
		metric_inc(&q->blk->metrics.execute_fails);
		log_failure(q->blk, req);
		complete(q, req, BLK_S_IOERR);
	}
}

/* ---- the queue ---- */

/* What a limit of bytes counts: data, not zeroes that are written by the host alone. */
static uint64_t moved_bytes(const struct blk_io *io)
{
	return io->op == BLK_OP_READ || io->op == BLK_OP_WRITE ? io->len : 0;
}

/* The limits are the device's, for all its queues: whoever asks and charges in between has it counted by one of them. */

static void charge(struct virtio_blk *blk, const struct blk_io *io, uint64_t now_ns)
{
	if (!rate_limiter_is_on(&blk->limiter))
		return;
	pthread_mutex_lock(&blk->limiter_lock);
	rate_limiter_charge(&blk->limiter, moved_bytes(io), now_ns);
	pthread_mutex_unlock(&blk->limiter_lock);
}

/* Whether a limit forbids to take what the driver has made available, if it has; then the timer goes on. */
static bool is_throttled(struct blk_queue *q)
{
	struct virtio_blk *blk = q->blk;
	uint64_t delay_ns;

	if (!rate_limiter_is_on(&blk->limiter) || !virtq_has_work(ring_of(q)))
		return false;
	pthread_mutex_lock(&blk->limiter_lock);
	delay_ns = rate_limiter_delay_ns(&blk->limiter, monotonic_ns());
	pthread_mutex_unlock(&blk->limiter_lock);
	if (!delay_ns)
		return false;
	metric_inc(&blk->metrics.rate_limiter_throttled_events);
	loop_timer_arm(q->again, delay_ns);
	return true;
}

/* Starts, or answers at once, the request that was popped into `req`. -EINVAL when it is none. */
static int begin(struct blk_queue *q, struct blk_request *req)
{
	uint8_t status;
	int r = blk_request_parse(q->blk, req, &status);

	if (r < 0)
		return r;
	if (r == 0) {
		if (status != BLK_S_OK)
			metric_inc(&q->blk->metrics.invalid_reqs_count);
		complete(q, req, status);
		return 0;
	}
	req->data_bytes = req->io.len;
	req->begun_ns = monotonic_ns();
	charge(q->blk, &req->io, req->begun_ns);
	if (q->port.engine->ops->start(q->port.engine, &req->io))
		complete_io(q, req);
	return 0;
}

/* 1 when a request was taken from the ring, 0 when there is none and the doorbell is on again, -errno when the driver broke the rules. */
static int take_one(struct blk_queue *q)
{
	struct virtq *vq = ring_of(q);
	struct blk_request *req;
	int r;

	if (is_throttled(q))
		return 0; /* the doorbell stays silent until then */
	if (in_flight(q) >= vq->size) {
		virtq_enable_doorbell(vq);
		return virtq_has_work(vq) ? -ENOBUFS : 0;
	}
	req = &q->requests[q->free_slots[--q->n_free]];
	r = virtq_pop_or_arm(vq, &req->chain);
	if (r > 0)
		r = begin(q, req) < 0 ? -EINVAL : 1;
	if (r <= 0)
		give_back(q, req);
	return r;
}

/* Answers all requests the engine has finished; with `wait`, all there are. */
static void reap(struct blk_queue *q, bool wait)
{
	struct blk_io *io;

	while ((io = q->port.engine->ops->reap(q->port.engine, wait)))
		complete_io(q, container_of(io, struct blk_request, io));
}

/* Hands over what was started, and answers what that has finished already: reads from the host's cache, as a rule. */
static void submit(struct blk_queue *q)
{
	int n;

	do {
		n = q->port.engine->ops->submit(q->port.engine);
		reap(q, false); /* may start again what was done in part */
	} while (n > 0);
	if (n < 0) {
		metric_inc(&q->blk->metrics.io_engine_throttled_events);
		loop_timer_arm(q->again, RETRY_SUBMIT_NS);
	}
}

/* Pops all requests there are; a driver that adds them as fast as they are answered waits for the next round of the
 * loop after some. The doorbell is silent meanwhile. */
static void process(struct blk_queue *q)
{
	unsigned budget = 2 * BLK_QUEUE_SIZE;
	int r;

	virtq_disable_doorbell(ring_of(q));
	do {
		r = take_one(q);
	} while (r > 0 && --budget > 0);
	if (r < 0)
		queue_group_broken(&q->group,
			r == -ENOBUFS ? "more requests are in flight than its queue holds" :
					"a request is malformed");
	else if (r > 0)
		loop_timer_arm(q->again, 0);
	submit(q);
}

void blk_queue_work(void *ctx, uint16_t index, bool rang)
{
	struct blk_queue *q = ctx;

	if (rang) {
		metric_inc(&q->blk->metrics.queue_event_count);
		if (!virtq_has_work(ring_of(q)))
			metric_inc(&q->blk->metrics.no_avail_buffer);
	}
	process(q);
	queue_group_notify(&q->group, index);
}

/* The engine has finished something, or `again` is due. */
static void go_on(struct blk_queue *q)
{
	queue_group_enter(&q->group);
	if (queue_group_is_active(&q->group)) {
		reap(q, false);
		queue_group_notify(&q->group, q->index); /* before more work: the driver need not wait for that */
		if (queue_group_is_running(&q->group) && ring_of(q)->ready)
			process(q);
		else
			submit(q);
		queue_group_notify(&q->group, q->index);
	}
	queue_group_leave(&q->group);
}

static void on_event(void *ctx, uint32_t epoll_events)
{
	(void)epoll_events;
	go_on(ctx);
}

static void on_again(void *ctx)
{
	go_on(ctx);
}

static void look_again(void *ctx)
{
	struct blk_queue *q = ctx;

	loop_timer_arm(q->again, 0);
}

void blk_queue_look_again(struct blk_queue *q)
{
	queue_group_call(&q->group, look_again, q);
}

/* ---- coming to rest ---- */

void blk_queue_finish(struct blk_queue *q)
{
	reap(q, true);
	queue_group_notify(&q->group, q->index);
}

void blk_queue_forget(struct blk_queue *q)
{
	struct blk_io *io;

	while ((io = q->port.engine->ops->reap(q->port.engine, true)))
		give_back(q, container_of(io, struct blk_request, io));
}

bool blk_queue_holds(const struct blk_queue *q, const void *host, uint64_t len)
{
	bool is_free[BLK_QUEUE_SIZE] = {false};

	for (uint16_t i = 0; i < q->n_free; i++)
		is_free[q->free_slots[i]] = true;
	for (uint16_t i = 0; i < BLK_QUEUE_SIZE; i++) {
		const struct blk_request *req = &q->requests[i];

		if (!is_free[i] && (virtq_chain_holds(&req->chain, host, len) || virtq_overlaps(req->status, 1, host, len)))
			return true;
	}
	return false;
}

/* ---- life ---- */

/* What queue_group_call() is given: a port to be watched, or no longer. */
struct watching {
	struct blk_queue *q;
	struct blk_port *port;
	int r;
};

static void watch(void *ctx)
{
	struct watching *w = ctx;

	w->port->event = loop_add_fd(w->q->group.loop, w->port->engine->event_fd, EPOLLIN | EPOLLET, on_event, w->q);
	w->r = w->port->event ? 0 : -errno;
}

static void unwatch(void *ctx)
{
	struct watching *w = ctx;

	loop_remove(w->port->event);
	w->port->event = NULL;
}

int blk_port_open(struct blk_queue *q, int fd, const char *path, struct blk_port *ret)
{
	struct watching w = {.q = q, .port = ret};

	*ret = (struct blk_port){.engine = blk_engine_new(fd, BLK_QUEUE_SIZE, q->blk->engine_kind == BLK_ENGINE_ASYNC, path)};
	if (!ret->engine)
		return -errno;
	if (ret->engine->event_fd >= 0)
		queue_group_call(&q->group, watch, &w);
	return w.r;
}

void blk_port_close(struct blk_queue *q, struct blk_port *port)
{
	struct watching w = {.q = q, .port = port};

	if (port->event)
		queue_group_call(&q->group, unwatch, &w);
	if (port->engine)
		port->engine->ops->free(port->engine);
	*port = (struct blk_port){0};
}

static int make_slots(struct blk_queue *q)
{
	q->requests = calloc(BLK_QUEUE_SIZE, sizeof(*q->requests)); /* untouched, it costs nothing */
	if (!q->requests)
		return -ENOMEM;
	while (q->n_free < BLK_QUEUE_SIZE) {
		q->free_slots[q->n_free] = q->n_free;
		q->n_free++;
	}
	return 0;
}

static void add_timer(void *ctx)
{
	struct blk_queue *q = ctx;

	q->again = loop_add_timer(q->group.loop, on_again, q);
}

int blk_queue_init(struct blk_queue *q, struct virtio_blk *blk, uint16_t index, const char *thread_name)
{
	int r;

	q->blk = blk;
	q->index = index;
	r = queue_group_init(&q->group, &blk->dev, blk->loop, index, 1, thread_name, blk_queue_work, q);
	if (r == 0)
		r = make_slots(q);
	if (r < 0)
		return r;
	queue_group_call(&q->group, add_timer, q);
	return q->again ? 0 : -ENOMEM;
}

void blk_queue_done(struct blk_queue *q)
{
	queue_group_join(&q->group);
	loop_remove(q->again);
	blk_port_close(q, &q->port);
	queue_group_done(&q->group);
	free(q->requests);
}
