/* virtio-pmem: flushes.
 *
 * Theory of operation. One flush of the file answers every request that was in the ring when it began; those that come
 * meanwhile wait for the next, as what they mean to save may have been written too late for this one.
 *
 *	ring ──pop──▶ batch ──the kernel flushes──▶ answered together, then the ring is looked at again
 *
 * The batch is what was popped last, in order, so a quiesce puts it back into the ring and waits for nobody. The kernel has none
 * of the guest's memory meanwhile: a reset forgets the batch, and what the flush comes to is then nobody's business. */
#include "devices/virtio_pmem.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "devices/blk_io.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pmem.h>
#include <string.h>

#define QUEUE_SIZE 64

/* A failing disk fails often; its first errors tell. */
#define ERROR_LOG_MAX 8

#define RETRY_SUBMIT_NS 1000000u

#define RET_FAILED UINT32_MAX /* 5.19.6: anything but 0 */

_Static_assert(sizeof(struct virtio_pmem_config) == 16, "5.19.4");

struct waiting {
	uint16_t head;
	bool is_flush; /* else it is answered in its turn, and refused */
	uint8_t *ret[sizeof(struct virtio_pmem_resp)]; /* each byte of the answer: guest memory */
};

struct virtio_pmem {
	struct virtio_dev dev;
	char *path; /* owned */
	struct virtio_pmem_config config;
	uint64_t file_bytes;
	void (*gone)(void *ctx);
	void *gone_ctx;

	struct blk_backend *engine;
	struct loop_source *event; /* on engine->event_fd; NULL when a flush is over at once */
	struct blk_io flush;
	bool flushing; /* the engine has `flush` */
	struct waiting batch[QUEUE_SIZE];
	uint16_t n_batch;

	struct rate_limiter limiter;
	struct loop_source *again; /* timer: a limit is reached, the kernel had no room, or the driver keeps us busy */
	bool throttled;
	uint32_t errors_logged;
	struct virtq_chain chain;
	struct pmem_metrics metrics;
};

static struct virtio_pmem *to_pmem(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_pmem, dev);
}

/* ---- requests ---- */

static void put_ret(const struct waiting *w, uint32_t ret)
{
	for (size_t i = 0; i < sizeof(ret); i++)
		*w->ret[i] = (uint8_t)(ret >> (8 * i));
}

/* Where the answer's bytes go. The writable buffers hold them. */
static void find_ret(const struct virtq_chain *chain, struct waiting *w)
{
	const struct iovec *iov = chain->iov + chain->n_out;
	size_t at = 0;

	for (size_t i = 0; i < ARRAY_SIZE(w->ret); i++) {
		while (at == iov->iov_len) {
			iov++;
			at = 0;
		}
		w->ret[i] = (uint8_t *)iov->iov_base + at++;
	}
}

/* Takes the request in p->chain into the batch, which has room. -EINVAL when it cannot be answered (5.19.6). */
static int take(struct virtio_pmem *p)
{
	struct waiting *w = &p->batch[p->n_batch];
	struct virtio_pmem_req req;

	if (virtq_chain_read(&p->chain, 0, &req, sizeof(req)) < sizeof(req) ||
		p->chain.in_bytes < sizeof(struct virtio_pmem_resp))
		return -EINVAL;
	w->head = p->chain.head;
	w->is_flush = req.type == VIRTIO_PMEM_REQ_TYPE_FLUSH;
	find_ret(&p->chain, w);
	p->n_batch++;
	return 0;
}

/* The flush has come to an end: 0 or -errno. */
static void answer_batch(struct virtio_pmem *p, int result)
{
	for (uint16_t i = 0; i < p->n_batch; i++) {
		const struct waiting *w = &p->batch[i];
		bool failed = result < 0 || !w->is_flush;

		if (failed)
			metric_inc(&p->metrics.event_fails);
		put_ret(w, failed ? RET_FAILED : 0);
		virtq_push(&p->dev.queues[0], w->head, sizeof(struct virtio_pmem_resp));
	}
	if (result < 0 && p->n_batch > 0 && p->errors_logged++ < ERROR_LOG_MAX)
		log_warn("pmem %s: a flush failed: %s", p->path, strerror(-result));
	p->n_batch = 0;
}

/* ---- the flush ---- */

/* Hands the flush over, as far as it is not, and answers who waited for it if it is over. */
static void submit(struct virtio_pmem *p)
{
	if (p->engine->ops->submit(p->engine) < 0)
		loop_timer_arm(p->again, RETRY_SUBMIT_NS);
	if (!p->engine->ops->reap(p->engine, false))
		return;
	p->flushing = false;
	answer_batch(p, p->flush.result);
}

static void begin_flush(struct virtio_pmem *p)
{
	p->flush = (struct blk_io){.op = BLK_OP_FLUSH};
	if (rate_limiter_is_on(&p->limiter))
		rate_limiter_charge(&p->limiter, p->file_bytes, monotonic_ns());
	if (p->engine->ops->start(p->engine, &p->flush)) {
		answer_batch(p, p->flush.result);
		return;
	}
	p->flushing = true;
	submit(p);
}

/* Whether a limit forbids to take what the driver has made available, if it has; then the timer goes on. */
static bool is_throttled(struct virtio_pmem *p)
{
	uint64_t delay_ns;

	if (!rate_limiter_is_on(&p->limiter) || !virtq_has_work(&p->dev.queues[0]))
		return false;
	delay_ns = rate_limiter_delay_ns(&p->limiter, monotonic_ns());
	if (!delay_ns)
		return false;
	if (!p->throttled)
		metric_inc(&p->metrics.rate_limiter_throttled_events);
	p->throttled = true;
	loop_timer_arm(p->again, delay_ns);
	return true;
}

/* Pops what there is, as far as a batch has room. 0, or -errno when the driver broke the rules. */
static int fill_batch(struct virtio_pmem *p)
{
	int r = 1;

	while (p->n_batch < QUEUE_SIZE && r > 0) {
		r = virtq_pop_or_arm(&p->dev.queues[0], &p->chain);
		if (r > 0)
			r = take(p) < 0 ? -EINVAL : 1;
	}
	return r < 0 ? r : 0;
}

/* Flushes for those who wait in the ring, once nobody waits for a flush. While there is one the doorbell is silent, or rings
 * for nothing. */
static void process_queue(struct virtio_pmem *p)
{
	struct virtq *vq = &p->dev.queues[0];

	virtq_disable_doorbell(vq);
	for (unsigned budget = QUEUE_SIZE; !p->flushing && !is_throttled(p); budget--) {
		if (budget == 0) {
			loop_timer_arm(p->again, 0);
			return;
		}
		if (fill_batch(p) < 0) {
			p->n_batch = 0;
			metric_inc(&p->metrics.event_fails);
			virtio_dev_broken(&p->dev, "a request for a flush is malformed");
			return;
		}
		if (p->n_batch == 0)
			return;
		begin_flush(p);
	}
}

static void pmem_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_pmem *p = to_pmem(dev);

	metric_inc(&p->metrics.queue_event_count);
	process_queue(p);
	virtio_dev_notify(dev, q);
}

/* The flush is over, or `again` is due. Loop thread. */
static void go_on(struct virtio_pmem *p)
{
	virtio_dev_enter(&p->dev);
	if (p->flushing)
		submit(p);
	if (virtio_dev_running(&p->dev) && p->dev.queues[0].ready)
		process_queue(p);
	virtio_dev_notify(&p->dev, 0);
	virtio_dev_leave(&p->dev);
}

static void on_event(void *ctx, uint32_t epoll_events)
{
	(void)epoll_events;
	go_on(ctx);
}

static void on_again(void *ctx)
{
	struct virtio_pmem *p = ctx;

	if (p->throttled)
		metric_inc(&p->metrics.rate_limiter_event_count);
	p->throttled = false;
	go_on(p);
}

/* ---- the device ---- */

static uint64_t pmem_features(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

static void pmem_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	memcpy(ret, (const char *)&to_pmem(dev)->config + offset, len);
}

static int pmem_activate(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

static void pmem_reset(struct virtio_dev *dev)
{
	to_pmem(dev)->n_batch = 0;
}

static bool pmem_holds(struct virtio_dev *dev, const void *host, uint64_t len)
{
	const struct virtio_pmem *p = to_pmem(dev);

	for (uint16_t i = 0; i < p->n_batch; i++)
		for (size_t byte = 0; byte < ARRAY_SIZE(p->batch[i].ret); byte++)
			if (virtq_overlaps(p->batch[i].ret[byte], 1, host, len))
				return true;
	return false;
}

static void pmem_quiesce(struct virtio_dev *dev)
{
	struct virtio_pmem *p = to_pmem(dev);

	virtq_unpop(&dev->queues[0], p->n_batch);
	p->n_batch = 0;
}

static void pmem_resume(struct virtio_dev *dev)
{
	if (dev->queues[0].ready)
		pmem_doorbell(dev, 0);
}

/* The batch is back in the ring. */
static void pmem_save(struct virtio_dev *dev, struct state_writer *w)
{
	state_put_u64(w, to_pmem(dev)->config.start);
	state_put_u64(w, to_pmem(dev)->config.size);
}

static int pmem_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	const struct virtio_pmem *p = to_pmem(dev);
	uint64_t start = state_get_u64(r), size = state_get_u64(r);

	if (!r->failed && (start != p->config.start || size != p->config.size))
		return error_set_field(err, EINVAL, "path_on_host",
			"%s: has %llu bytes at %#llx, and had %llu at %#llx when it was saved", p->path,
			(unsigned long long)p->config.size, (unsigned long long)p->config.start,
			(unsigned long long)size, (unsigned long long)start);
	return 0;
}

static void pmem_free(struct virtio_dev *dev)
{
	struct virtio_pmem *p = to_pmem(dev);

	loop_remove(p->again);
	loop_remove(p->event);
	if (p->flushing)
		p->engine->ops->reap(p->engine, true);
	if (p->engine)
		p->engine->ops->free(p->engine);
	if (p->gone)
		p->gone(p->gone_ctx);
	free(p->path);
	free(p);
}

static const struct virtio_ops pmem_ops = {
	.name = "virtio-pmem",
	.device_id = VIRTIO_ID_PMEM,
	.n_queues = 1,
	.queue_size = QUEUE_SIZE,
	.features = pmem_features,
	.config_size = sizeof(struct virtio_pmem_config),
	.config_read = pmem_config_read,
	.activate = pmem_activate,
	.reset = pmem_reset,
	.doorbell = pmem_doorbell,
	.holds = pmem_holds,
	.quiesce = pmem_quiesce,
	.resume = pmem_resume,
	.save = pmem_save,
	.load = pmem_load,
	.free = pmem_free,
};

const struct pmem_metrics *virtio_pmem_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_pmem, dev)->metrics;
}

static int start_engine(struct virtio_pmem *p, int fd, struct loop *loop)
{
	p->again = loop_add_timer(loop, on_again, p);
	if (!p->again)
		return -errno;
	p->engine = blk_engine_new(fd, 2, true, p->path);
	if (!p->engine)
		return -errno;
	if (p->engine->event_fd < 0)
		return 0;
	p->event = loop_add_fd(loop, p->engine->event_fd, EPOLLIN | EPOLLET, on_event, p);
	return p->event ? 0 : -errno;
}

struct virtio_dev *virtio_pmem_new(
	const struct virtio_pmem_setup *setup, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct virtio_pmem *p = calloc(1, sizeof(*p));
	int r;

	if (!p) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	virtio_dev_init(&p->dev, &pmem_ops, mem);
	p->path = strdup(setup->path);
	p->config = (struct virtio_pmem_config){.start = setup->start, .size = setup->size_bytes};
	p->file_bytes = setup->file_bytes;
	rate_limiter_init(&p->limiter, setup->limiter, monotonic_ns());
	r = p->path ? start_engine(p, setup->fd, loop) : -ENOMEM;
	if (r < 0) {
		error_set_field(err, -r, "path_on_host", "%s: cannot set up its queue: %s", setup->path, strerror(-r));
		virtio_dev_free(&p->dev);
		return NULL;
	}
	p->gone = setup->gone;
	p->gone_ctx = setup->ctx;
	return &p->dev;
}

void virtio_pmem_set_limiter(struct virtio_dev *dev, const struct rate_limiter_config *limiter)
{
	struct virtio_pmem *p = to_pmem(dev);

	virtio_dev_enter(dev);
	rate_limiter_update(&p->limiter, limiter, monotonic_ns());
	virtio_dev_leave(dev);
	loop_timer_arm(p->again, 0); /* what waited for the old limit looks again */
}
