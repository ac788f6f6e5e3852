/* virtio-blk: requests from the virtqueue to the disk's engine, and their outcome back.
 *
 * Theory of operation. A request takes a slot from the free stack, is parsed into one operation of the engine, and
 * keeps its slot until the engine has finished: the chain's iovecs live there. As many slots are used as the queue has
 * descriptors, at most: a driver that makes more requests available has reused a descriptor in flight, and is broken.
 *
 * A doorbell pops all there is, hands it to the kernel with one call and raises at most one interrupt; so does a
 * completion event, which also pops what came meanwhile. All this is done on the loop thread with the device's lock;
 * only reset() may come on a vCPU's, and waits there until the kernel is done with guest memory. */
#include "devices/virtio_blk_device.h"

#include "common/checked.h"
#include "common/log.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

/* A failing disk fails often; its first errors tell. */
#define ERROR_LOG_MAX 8

#define RETRY_SUBMIT_NS 1000000u

/* Section 5.2.3. */
enum { F_SIZE_MAX = 1, F_SEG_MAX = 2, F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10 };
enum { F_DISCARD = 13, F_WRITE_ZEROES = 14 };

static struct virtio_blk *to_blk(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

static uint16_t in_flight(const struct virtio_blk *blk)
{
	return BLK_QUEUE_SIZE - blk->n_free;
}

/* ---- completion ---- */

static void give_back(struct virtio_blk *blk, struct blk_request *req)
{
	blk->free_slots[blk->n_free++] = (uint16_t)(req - blk->requests);
}

/* Answers the driver and frees the slot. */
static void complete(struct virtio_blk *blk, struct blk_request *req, uint8_t status)
{
	*req->status = status;
	/* 2.7.8.2: no more than was written. Of a failed request only the status byte is promised. */
	virtq_push(&blk->dev.queues[0], req->chain.head, status == BLK_S_OK ? req->in_bytes : 1);
	give_back(blk, req);
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

	if (blk->errors_logged++ < ERROR_LOG_MAX)
		log_warn("disk %s: %s at sector %llu failed: %s", blk->disk.path, names[req->io.op],
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
		metric_record_latency(&metrics->read_agg, us);
		break;
	case BLK_OP_WRITE:
		metric_inc(&metrics->write_count);
		metric_add(&metrics->write_bytes, req->data_bytes);
		metric_record_latency(&metrics->write_agg, us);
		break;
	case BLK_OP_FLUSH:
		metric_inc(&metrics->flush_count);
		break;
	default:
		break;
	}
}

/* The engine has finished with the request. */
static void complete_io(struct virtio_blk *blk, struct blk_request *req)
{
	bool zeroing = req->io.op == BLK_OP_DISCARD || req->io.op == BLK_OP_WRITE_ZEROES ||
		       req->io.op == BLK_OP_UNMAP_ZEROES;

	if (req->io.result == 0) {
		count_success(blk, req);
		complete(blk, req, BLK_S_OK);
	} else if (zeroing && req->io.result == -EOPNOTSUPP) {
		complete(blk, req, BLK_S_UNSUPP); /* drivers then do without */
	} else {
		metric_inc(&blk->metrics.execute_fails);
		log_failure(blk, req);
		complete(blk, req, BLK_S_IOERR);
	}
}

/* ---- the queue ---- */

/* What a limit of bytes counts: data, not zeroes that are written by the host alone. */
static uint64_t moved_bytes(const struct blk_io *io)
{
	return io->op == BLK_OP_READ || io->op == BLK_OP_WRITE ? io->len : 0;
}

/* Starts, or answers at once, the request that was popped into `req`. -EINVAL when it is none. */
static int begin(struct virtio_blk *blk, struct blk_request *req)
{
	uint8_t status;
	int r = blk_request_parse(blk, req, &status);

	if (r < 0)
		return r;
	if (r == 0) {
		if (status != BLK_S_OK)
			metric_inc(&blk->metrics.invalid_reqs_count);
		complete(blk, req, status);
		return 0;
	}
	req->data_bytes = req->io.len;
	req->begun_ns = monotonic_ns();
	if (rate_limiter_is_on(&blk->limiter))
		rate_limiter_charge(&blk->limiter, moved_bytes(&req->io), req->begun_ns);
	if (blk->disk.engine->ops->start(blk->disk.engine, &req->io))
		complete_io(blk, req);
	return 0;
}

/* Whether a limit forbids to take what the driver has made available, if it has; then the timer goes on. */
static bool is_throttled(struct virtio_blk *blk)
{
	uint64_t delay_ns;

	if (!rate_limiter_is_on(&blk->limiter) || !virtq_has_work(&blk->dev.queues[0]))
		return false;
	delay_ns = rate_limiter_delay_ns(&blk->limiter, monotonic_ns());
	if (!delay_ns)
		return false;
	metric_inc(&blk->metrics.rate_limiter_throttled_events);
	loop_timer_arm(blk->again, delay_ns);
	return true;
}

/* 1 when a request was taken from the ring, 0 when there is none and the doorbell is on again, -errno when the driver broke the rules. */
static int take_one(struct virtio_blk *blk)
{
	struct virtq *vq = &blk->dev.queues[0];
	struct blk_request *req;
	int r;

	if (is_throttled(blk))
		return 0; /* the doorbell stays silent until then */
	if (in_flight(blk) >= vq->size) {
		virtq_enable_doorbell(vq);
		return virtq_has_work(vq) ? -ENOBUFS : 0;
	}
	req = &blk->requests[blk->free_slots[--blk->n_free]];
	r = virtq_pop_or_arm(vq, &req->chain);
	if (r > 0)
		r = begin(blk, req) < 0 ? -EINVAL : 1;
	if (r <= 0)
		give_back(blk, req);
	return r;
}

/* Answers all requests the engine has finished; with `wait`, all there are. */
static void reap(struct virtio_blk *blk, bool wait)
{
	struct blk_io *io;

	while ((io = blk->disk.engine->ops->reap(blk->disk.engine, wait)))
		complete_io(blk, container_of(io, struct blk_request, io));
}

/* Hands over what was started, and answers what that has finished already: reads from the host's cache, as a rule. */
static void submit(struct virtio_blk *blk)
{
	int n;

	do {
		n = blk->disk.engine->ops->submit(blk->disk.engine);
		reap(blk, false); /* may start again what was done in part */
	} while (n > 0);
	if (n < 0) {
		metric_inc(&blk->metrics.io_engine_throttled_events);
		loop_timer_arm(blk->again, RETRY_SUBMIT_NS);
	}
}

/* Pops all requests there are; a driver that adds them as fast as they are answered waits for the next round of the
 * loop after some. The doorbell is silent meanwhile. */
static void process_queue(struct virtio_blk *blk)
{
	unsigned budget = 2 * BLK_QUEUE_SIZE;
	int r;

	virtq_disable_doorbell(&blk->dev.queues[0]);
	do {
		r = take_one(blk);
	} while (r > 0 && --budget > 0);
	if (r < 0)
		virtio_dev_broken(&blk->dev,
			r == -ENOBUFS ? "more requests are in flight than its queue holds" :
					"a request is malformed");
	else if (r > 0)
		loop_timer_arm(blk->again, 0);
	submit(blk);
}

static void blk_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_blk *blk = to_blk(dev);

	metric_inc(&blk->metrics.queue_event_count);
	if (!virtq_has_work(&dev->queues[q]))
		metric_inc(&blk->metrics.no_avail_buffer);
	process_queue(blk);
	virtio_dev_notify(dev, q);
}

/* The engine has finished something, or `again` is due. Loop thread. */
static void go_on(struct virtio_blk *blk)
{
	virtio_dev_enter(&blk->dev);
	if (blk->dev.active) {
		reap(blk, false);
		virtio_dev_notify(&blk->dev, 0); /* before more work: the driver need not wait for that */
		if (virtio_dev_running(&blk->dev) && blk->dev.queues[0].ready)
			process_queue(blk);
		else
			submit(blk);
		virtio_dev_notify(&blk->dev, 0);
	}
	virtio_dev_leave(&blk->dev);
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

/* ---- the disk ---- */

/* Also of a zeroed one with no descriptor. Nothing may be under way. */
static void disk_close(struct blk_disk *disk)
{
	loop_remove(disk->event);
	if (disk->engine)
		disk->engine->ops->free(disk->engine);
	close_fd(disk->fd);
	free(disk->path);
	*disk = (struct blk_disk){.fd = -1};
}

static int start_engine(struct virtio_blk *blk, struct blk_disk *disk)
{
	disk->engine = blk_engine_new(disk->fd, BLK_QUEUE_SIZE, blk->engine_kind == BLK_ENGINE_ASYNC, disk->path);
	if (!disk->engine)
		return -errno;
	if (disk->engine->event_fd < 0)
		return 0;
	disk->event = loop_add_fd(blk->loop, disk->engine->event_fd, EPOLLIN | EPOLLET, on_event, blk);
	return disk->event ? 0 : -errno;
}

/* Takes `fd` over, also on failure: then `ret` is as disk_close() leaves it. */
static int disk_open(struct virtio_blk *blk, int fd, const char *path, struct blk_disk *ret, struct blk_geometry *ret_geometry,
	struct error *err)
{
	struct blk_disk disk = {.fd = fd, .path = strdup(path)};
	int r = disk.path ? 0 : error_set_field(err, ENOMEM, "path_on_host", "%s: out of memory", path);

	if (r == 0)
		r = blk_geometry_read(fd, path, blk->read_only, ret_geometry, err);
	if (r == 0) {
		r = start_engine(blk, &disk);
		if (r < 0)
			error_set_field(err, -r, "path_on_host", "%s: cannot set up its queue: %s", path, strerror(-r));
	}
	if (r < 0)
		disk_close(&disk);
	*ret = disk;
	return r;
}

/* ---- the device ---- */

static uint64_t blk_features(struct virtio_dev *dev)
{
	const struct virtio_blk *blk = to_blk(dev);
	uint64_t features = 1ull << F_SIZE_MAX | 1ull << F_SEG_MAX | 1ull << F_BLK_SIZE | 1ull << F_TOPOLOGY;

	if (blk->read_only)
		features |= 1ull << F_RO;
	if (blk->flush_offered)
		features |= 1ull << F_FLUSH;
	if (blk->discard_offered)
		features |= 1ull << F_DISCARD | 1ull << F_WRITE_ZEROES;
	return features;
}

static void blk_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	memcpy(ret, (const char *)&to_blk(dev)->config + offset, len);
}

static int blk_activate(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

/* Whatever has been handed to the kernel reads or writes guest memory until it is finished; then it is forgotten. */
static void blk_reset(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);
	struct blk_io *io;

	while ((io = blk->disk.engine->ops->reap(blk->disk.engine, true)))
		give_back(blk, container_of(io, struct blk_request, io));
}

static bool blk_holds(struct virtio_dev *dev, const void *host, uint64_t len)
{
	const struct virtio_blk *blk = to_blk(dev);
	bool is_free[BLK_QUEUE_SIZE] = {false};

	for (uint16_t i = 0; i < blk->n_free; i++)
		is_free[blk->free_slots[i]] = true;
	for (uint16_t i = 0; i < BLK_QUEUE_SIZE; i++) {
		const struct blk_request *req = &blk->requests[i];

		if (!is_free[i] && (virtq_chain_holds(&req->chain, host, len) || virtq_overlaps(req->status, 1, host, len)))
			return true;
	}
	return false;
}

static void blk_quiesce(struct virtio_dev *dev)
{
	reap(to_blk(dev), true);
	virtio_dev_notify(dev, 0);
}

static void blk_resume(struct virtio_dev *dev)
{
	if (dev->queues[0].ready)
		blk_doorbell(dev, 0);
}

/* Requests have been brought to an end; a machine must come back to a disk of the same size. */
static void blk_save(struct virtio_dev *dev, struct state_writer *w)
{
	state_put_u64(w, to_blk(dev)->config.capacity);
}

static int blk_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	const struct virtio_blk *blk = to_blk(dev);
	uint64_t capacity = state_get_u64(r);

	if (!r->failed && capacity != blk->config.capacity)
		return error_set_field(err, EINVAL, "path_on_host",
			"%s: has %llu sectors, and had %llu when it was saved", blk->disk.path,
			(unsigned long long)blk->config.capacity, (unsigned long long)capacity);
	return 0;
}

static void blk_free(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	loop_remove(blk->again);
	disk_close(&blk->disk);
	free(blk->requests);
	free(blk);
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.device_id = VIRTIO_ID_BLOCK,
	.n_queues = 1,
	.queue_size = BLK_QUEUE_SIZE,
	.features = blk_features,
	.config_size = sizeof(struct blk_config_space),
	.config_read = blk_config_read,
	.activate = blk_activate,
	.reset = blk_reset,
	.doorbell = blk_doorbell,
	.holds = blk_holds,
	.quiesce = blk_quiesce,
	.resume = blk_resume,
	.save = blk_save,
	.load = blk_load,
	.free = blk_free,
};

const struct blk_metrics *virtio_blk_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_blk, dev)->metrics;
}

static void fill_config_space(struct virtio_blk *blk, const struct blk_geometry *g)
{
	uint32_t ratio = g->physical_block_bytes / g->logical_block_bytes;

	blk->config = (struct blk_config_space){
		.capacity = g->size_bytes >> BLK_SECTOR_SHIFT,
		.size_max = BLK_SEGMENT_BYTES_MAX,
		.seg_max = BLK_SEGMENTS_MAX,
		.blk_size = g->logical_block_bytes,
		.physical_block_exp = ratio > 1 ? (uint8_t)(31 - __builtin_clz(ratio)) : 0,
		.min_io_size = ratio > 1 ? (uint16_t)ratio : 1,
		.num_queues = 1,
	};
	if (!blk->discard_offered)
		return;
	blk->config.max_discard_sectors = blk->config.max_write_zeroes_sectors = BLK_RANGE_SECTORS_MAX;
	blk->config.max_discard_seg = blk->config.max_write_zeroes_seg = 1;
	blk->config.discard_sector_alignment = g->physical_block_bytes / BLK_SECTOR_BYTES;
	blk->config.write_zeroes_may_unmap = 1;
}

static int make_slots(struct virtio_blk *blk)
{
	blk->requests = calloc(BLK_QUEUE_SIZE, sizeof(*blk->requests)); /* untouched, it costs nothing */
	if (!blk->requests)
		return -ENOMEM;
	while (blk->n_free < BLK_QUEUE_SIZE) {
		blk->free_slots[blk->n_free] = blk->n_free;
		blk->n_free++;
	}
	blk->again = loop_add_timer(blk->loop, on_again, blk);
	return blk->again ? 0 : -errno;
}

struct virtio_dev *virtio_blk_new(
	const struct virtio_blk_config *config, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct virtio_blk *blk = calloc(1, sizeof(*blk));
	struct blk_geometry geometry;
	int r;

	if (!blk) {
		close_fd(config->fd);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	virtio_dev_init(&blk->dev, &blk_ops, mem);
	blk->loop = loop;
	blk->engine_kind = config->engine;
	blk->read_only = config->read_only;
	r = disk_open(blk, config->fd, config->path, &blk->disk, &geometry, err);
	if (r == 0) {
		r = make_slots(blk);
		if (r < 0)
			error_set_field(err, -r, "path_on_host", "%s: cannot set up its queue: %s", config->path, strerror(-r));
	}
	if (r < 0) {
		virtio_dev_free(&blk->dev);
		return NULL;
	}
	blk->flush_offered = config->cache == BLK_CACHE_WRITEBACK;
	blk->discard_offered = geometry.can_punch_holes;
	rate_limiter_init(&blk->limiter, config->limiter, monotonic_ns());
	/* 5.2.6: padded with NULs, none when it is full. */
	memcpy(blk->serial, config->id, strnlen(config->id, sizeof(blk->serial)));
	fill_config_space(blk, &geometry);
	return &blk->dev;
}

void virtio_blk_set_limiter(struct virtio_dev *dev, const struct rate_limiter_config *limiter)
{
	struct virtio_blk *blk = to_blk(dev);

	virtio_dev_enter(dev);
	rate_limiter_update(&blk->limiter, limiter, monotonic_ns());
	virtio_dev_leave(dev);
	loop_timer_arm(blk->again, 0); /* what waited for the old limit looks again */
}

int virtio_blk_set_file(struct virtio_dev *dev, const char *path, struct error *err)
{
	struct virtio_blk *blk = to_blk(dev);
	struct blk_geometry geometry;
	struct blk_disk disk;
	int fd = virtio_blk_open(path, blk->read_only, err);

	if (fd < 0 || disk_open(blk, fd, path, &disk, &geometry, err) < 0)
		return -err->errnum;
	virtio_dev_enter(dev);
	reap(blk, true); /* what was begun on the old one ends there */
	disk_close(&blk->disk);
	blk->disk = disk;
	fill_config_space(blk, &geometry);
	virtio_dev_config_changed(dev);
	virtio_dev_notify(dev, 0);
	virtio_dev_leave(dev);
	loop_timer_arm(blk->again, 0);
	return 0;
}
