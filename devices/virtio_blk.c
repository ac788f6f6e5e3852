/* virtio-blk: the device's life, and the disk below it, which can be exchanged while the driver looks on. What it does with
 * requests: devices/virtio_blk_queue.c.
 *
 * Theory of operation. With one queue all is done on the loop thread with the device's lock. With several, each is a group of
 * its own (devices/queue_group.h): a thread, a lock, slots, and an engine on the one file. What they share is read only, but for
 * the disk, which changes with all their locks held, the limits, which have a lock, and what is counted. */
#include "devices/virtio_blk_device.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>

/* Section 5.2.3. */
enum { F_SIZE_MAX = 1, F_SEG_MAX = 2, F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10, F_MQ = 12 };
enum { F_DISCARD = 13, F_WRITE_ZEROES = 14 };

static struct virtio_blk *to_blk(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

/* ---- the disk ---- */

/* A file in the place of the disk: what it is, and an engine for each queue. */
struct candidate {
	char *path;
	int fd;
	struct blk_geometry geometry;
	struct blk_port ports[BLK_QUEUES_MAX];
};

/* Nothing may be under way. Without locks; also of a candidate that is none. */
static void discard(struct virtio_blk *blk, struct candidate *c)
{
	for (uint16_t i = 0; i < blk->n_queues; i++)
		blk_port_close(&blk->queues[i], &c->ports[i]);
	close_fd(c->fd);
	free(c->path);
	*c = (struct candidate){.fd = -1};
}

static int no_queue(const char *path, int r, struct error *err)
{
	return error_set_field(err, -r, "path_on_host", "%s: cannot set up its queue: %s", path, strerror(-r));
}

/* Takes `fd` over, also on failure: then `ret` is as discard() leaves it. Loop thread, without locks. */
static int prepare(struct virtio_blk *blk, int fd, const char *path, struct candidate *ret, struct error *err)
{
	int r;

	*ret = (struct candidate){.fd = fd, .path = strdup(path)};
	r = ret->path ? 0 : error_set_field(err, ENOMEM, "path_on_host", "%s: out of memory", path);
	if (r == 0)
		r = blk_geometry_read(fd, path, blk->read_only, &ret->geometry, err);
	for (uint16_t i = 0; i < blk->n_queues && r == 0; i++) {
		r = blk_port_open(&blk->queues[i], fd, path, &ret->ports[i]);
		if (r < 0)
			no_queue(path, r, err);
	}
	if (r < 0)
		discard(blk, ret);
	return r;
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
		.num_queues = blk->n_queues,
	};
	if (!blk->discard_offered)
		return;
	blk->config.max_discard_sectors = blk->config.max_write_zeroes_sectors = BLK_RANGE_SECTORS_MAX;
	blk->config.max_discard_seg = blk->config.max_write_zeroes_seg = 1;
	blk->config.discard_sector_alignment = g->physical_block_bytes / BLK_SECTOR_BYTES;
	blk->config.write_zeroes_may_unmap = 1;
}

/* With the locks of the device and all queues, nothing under way: `c` becomes the disk, and what was the disk is in `c`. */
static void exchange(struct virtio_blk *blk, struct candidate *c)
{
	struct candidate before = {.path = blk->path, .fd = blk->fd};

	blk->path = c->path;
	blk->fd = c->fd;
	for (uint16_t i = 0; i < blk->n_queues; i++) {
		before.ports[i] = blk->queues[i].port;
		blk->queues[i].port = c->ports[i];
	}
	fill_config_space(blk, &c->geometry);
	*c = before;
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
	if (blk->n_queues > 1)
		features |= 1ull << F_MQ;
	return features;
}

static void blk_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	memcpy(ret, (const char *)&to_blk(dev)->config + offset, len);
}

static void start(struct virtio_blk *blk)
{
	for (uint16_t i = 0; i < blk->n_queues; i++)
		queue_group_start(&blk->queues[i].group);
}

static int blk_activate(struct virtio_dev *dev)
{
	start(to_blk(dev));
	return 0;
}

/* Whatever has been handed to the kernel reads or writes guest memory until it is finished; then it is forgotten. */
static void blk_reset(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	for (uint16_t i = 0; i < blk->n_queues; i++) {
		struct blk_queue *q = &blk->queues[i];

		queue_group_hold(&q->group);
		queue_group_rest(&q->group, true);
		blk_queue_forget(q);
		queue_group_let_go(&q->group);
	}
}

/* The first doorbells of queues that have threads come here, too: from then on the loop does not listen. */
static void blk_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct blk_queue *queue = &to_blk(dev)->queues[q];

	if (queue->group.threaded)
		dev->transport->listen(dev->transport_ctx, q, false);
	else
		blk_queue_work(queue, q, true);
}

static bool blk_holds(struct virtio_dev *dev, const void *host, uint64_t len)
{
	struct virtio_blk *blk = to_blk(dev);
	bool holds = false;

	for (uint16_t i = 0; i < blk->n_queues && !holds; i++) {
		queue_group_hold(&blk->queues[i].group);
		holds = blk_queue_holds(&blk->queues[i], host, len);
		queue_group_let_go(&blk->queues[i].group);
	}
	return holds;
}

static void blk_broken(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	for (uint16_t i = 0; i < blk->n_queues; i++) {
		queue_group_hold(&blk->queues[i].group);
		queue_group_rest(&blk->queues[i].group, false);
		queue_group_let_go(&blk->queues[i].group);
	}
}

static void blk_quiesce(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	for (uint16_t i = 0; i < blk->n_queues; i++) {
		struct blk_queue *q = &blk->queues[i];

		queue_group_hold(&q->group);
		queue_group_rest(&q->group, false);
		blk_queue_finish(q);
		queue_group_let_go(&q->group);
		queue_group_tell(&q->group); /* what is saved is all there is to know */
	}
}

/* Where there are threads, they look into their queues as they start. */
static void blk_resume(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	start(blk);
	if (!blk->queues[0].group.threaded && dev->queues[0].ready)
		blk_doorbell(dev, 0);
}

static int blk_sync(struct virtio_dev *dev, struct error *err)
{
	const struct virtio_blk *blk = to_blk(dev);

	if (blk->read_only || fdatasync(blk->fd) == 0)
		return 0;
	return error_set_errno(err, errno, "%s cannot be written to the disk", blk->path);
}

/* Requests have been brought to an end. */
static void blk_save(struct virtio_dev *dev, struct state_writer *w)
{
	state_put_u64(w, to_blk(dev)->config.capacity);
}

/* The guest's disk is as large as it was, though its file may have grown. */
static int blk_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_blk *blk = to_blk(dev);
	uint64_t capacity = state_get_u64(r);

	if (!r->failed && capacity > blk->config.capacity)
		return error_set_field(err, EINVAL, "path_on_host",
			"%s: has %llu sectors, and had %llu when it was saved", blk->path,
			(unsigned long long)blk->config.capacity, (unsigned long long)capacity);
	if (!r->failed)
		blk->config.capacity = capacity;
	return 0;
}

static void blk_free(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	for (uint16_t i = 0; i < blk->n_queues; i++)
		blk_queue_done(&blk->queues[i]);
	close_fd(blk->fd);
	free(blk->path);
	pthread_mutex_destroy(&blk->limiter_lock);
	free(blk->queues);
	free(blk);
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.device_id = VIRTIO_ID_BLOCK,
	.queue_size = BLK_QUEUE_SIZE,
	.features = blk_features,
	.config_size = sizeof(struct blk_config_space),
	.config_read = blk_config_read,
	.activate = blk_activate,
	.reset = blk_reset,
	.doorbell = blk_doorbell,
	.holds = blk_holds,
	.broken = blk_broken,
	.quiesce = blk_quiesce,
	.resume = blk_resume,
	.sync = blk_sync,
	.save = blk_save,
	.load = blk_load,
	.free = blk_free,
};

const struct blk_metrics *virtio_blk_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_blk, dev)->metrics;
}

/* NULL: out of memory. */
static struct virtio_blk *allocate(const struct virtio_blk_config *config, struct loop *loop, const struct gmem *mem)
{
	uint16_t n = config->n_queues ? config->n_queues : 1;
	struct virtio_blk *blk = calloc(1, sizeof(*blk));
	struct blk_queue *queues = calloc(n, sizeof(*queues));

	assert(n <= BLK_QUEUES_MAX);
	if (!blk || !queues) {
		free(queues);
		free(blk);
		return NULL;
	}
	blk->queues = queues;
	blk->ops = blk_ops;
	blk->ops.n_queues = n;
	virtio_dev_init(&blk->dev, &blk->ops, mem);
	pthread_mutex_init(&blk->limiter_lock, NULL);
	blk->fd = -1;
	blk->loop = loop;
	blk->engine_kind = config->engine;
	blk->read_only = config->read_only;
	return blk;
}

/* Each has a thread when there are several. */
static int make_queues(struct virtio_blk *blk, const char *id)
{
	uint16_t n = blk->ops.n_queues;
	char name[32];
	int r = 0;

	for (uint16_t i = 0; i < n && r == 0; i++) {
		snprintf(name, sizeof(name), "blk %u %.20s", i, id);
		blk->n_queues++; /* in part, if it fails */
		r = blk_queue_init(&blk->queues[i], blk, i, n > 1 ? name : NULL);
	}
	return r;
}

struct virtio_dev *virtio_blk_new(
	const struct virtio_blk_config *config, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct virtio_blk *blk = allocate(config, loop, mem);
	struct candidate disk;
	int r;

	if (!blk) {
		close_fd(config->fd);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	r = make_queues(blk, config->id);
	if (r < 0) {
		close_fd(config->fd);
		no_queue(config->path, r, err);
	} else {
		r = prepare(blk, config->fd, config->path, &disk, err);
	}
	if (r < 0) {
		virtio_dev_free(&blk->dev);
		return NULL;
	}
	blk->flush_offered = config->cache == BLK_CACHE_WRITEBACK;
	blk->discard_offered = disk.geometry.can_punch_holes;
	rate_limiter_init(&blk->limiter, config->limiter, monotonic_ns());
	/* 5.2.6: padded with NULs, none when it is full. */
	memcpy(blk->serial, config->id, strnlen(config->id, sizeof(blk->serial)));
	exchange(blk, &disk);
	discard(blk, &disk);
	return &blk->dev;
}

/* ---- while the driver looks on ---- */

/* The device's lock, and that of each queue. */
static void enter_all(struct virtio_blk *blk)
{
	virtio_dev_enter(&blk->dev);
	for (uint16_t i = 0; i < blk->n_queues; i++)
		queue_group_hold(&blk->queues[i].group);
}

static void leave_all(struct virtio_blk *blk)
{
	for (uint16_t i = 0; i < blk->n_queues; i++)
		queue_group_let_go(&blk->queues[i].group);
	virtio_dev_leave(&blk->dev);
}

static void look_again(struct virtio_blk *blk)
{
	for (uint16_t i = 0; i < blk->n_queues; i++)
		blk_queue_look_again(&blk->queues[i]);
}

void virtio_blk_set_limiter(struct virtio_dev *dev, const struct rate_limiter_config *limiter)
{
	struct virtio_blk *blk = to_blk(dev);

	enter_all(blk);
	rate_limiter_update(&blk->limiter, limiter, monotonic_ns());
	leave_all(blk);
	look_again(blk); /* what waited for the old limit */
}

int virtio_blk_set_file(struct virtio_dev *dev, const char *path, struct error *err)
{
	struct virtio_blk *blk = to_blk(dev);
	struct candidate disk;
	int fd = virtio_blk_open(path, blk->read_only, err);

	if (fd < 0 || prepare(blk, fd, path, &disk, err) < 0)
		return -err->errnum;
	enter_all(blk);
	for (uint16_t i = 0; i < blk->n_queues; i++)
		blk_queue_finish(&blk->queues[i]); /* what was begun on the old one ends there */
	exchange(blk, &disk);
	virtio_dev_config_changed(dev);
	leave_all(blk);
	discard(blk, &disk);
	look_again(blk);
	return 0;
}
