/* virtio-blk: requests from the virtqueue to the disk's engine, and their outcome back.
 *
 *	readable                          writable
 *	+------+----------+--------+------+ +---------+--------+
 *	| type | reserved | sector | data | |  data   | status |   virtio 1.2, section 5.2.6; how it is cut into
 *	+------+----------+--------+------+ +---------+--------+   descriptors is the driver's choice (2.7.4.1)
 *	  le32     le32      le64    …          …        u8
 *
 * Theory of operation. A request takes a slot from the free stack, is parsed into one operation of the engine, and
 * keeps its slot until the engine has finished: the chain's iovecs live there. As many slots are used as the queue has
 * descriptors, at most: a driver that makes more requests available has reused a descriptor in flight, and is broken.
 *
 * A doorbell pops all there is, hands it to the kernel with one call and raises at most one interrupt; so does a
 * completion event, which also pops what came meanwhile. All this is done on the loop thread with the device's lock;
 * only reset() may come on a vCPU's, and waits there until the kernel is done with guest memory. */
#include "devices/virtio_blk.h"

#include "common/checked.h"
#include "common/log.h"
#include "devices/blk_io.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

#define QUEUE_SIZE   256
#define SECTOR_BYTES 512u
#define SECTOR_SHIFT 9
#define SERIAL_BYTES 20

/* Header and status take a descriptor each. */
#define SEGMENTS_MAX      (QUEUE_SIZE - 2)
#define SEGMENT_BYTES_MAX (32u << 10)
/* What a driver that keeps to both can ask for at most, 8 MiB: a reset, a save and a shutdown wait for what the kernel
 * has begun, and indirect descriptors would otherwise allow gigabytes a request. A larger one fails as a whole, however
 * it is cut; Linux sends 1.25 MiB unless told otherwise. */
#define TRANSFER_BYTES_MAX ((uint64_t)SEGMENTS_MAX * SEGMENT_BYTES_MAX)

/* One DISCARD or WRITE_ZEROES covers 2 GiB at most, so that none holds the disk for very long. */
#define RANGE_SECTORS_MAX (1u << 22)

/* A failing disk fails often; its first errors tell. */
#define ERROR_LOG_MAX 8

#define RETRY_SUBMIT_NS 1000000u

/* Section 5.2.3. */
enum { F_SIZE_MAX = 1, F_SEG_MAX = 2, F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10 };
enum { F_DISCARD = 13, F_WRITE_ZEROES = 14 };

/* Section 5.2.4, up to the last field of a feature we offer. */
struct config_space {
	uint64_t capacity; /* sectors */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));

_Static_assert(sizeof(struct config_space) == 60, "5.2.4: write_zeroes_may_unmap is at 56");

/* Section 5.2.6. */
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

struct request_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};

struct range {
	uint64_t sector;
	uint32_t num_sectors;
	uint32_t flags;
};
#define RANGE_UNMAP 1u

struct request {
	struct blk_io io;
	uint8_t *status; /* guest memory */
	uint64_t sector; /* for messages */
	uint32_t in_bytes; /* what a success writes for the driver, the status byte included */
	uint64_t data_bytes, begun_ns;
	struct virtq_chain chain;
};

struct virtio_blk {
	struct virtio_dev dev;
	char *path; /* owned, for messages */
	int fd;
	bool read_only, flush_offered, discard_offered;
	struct config_space config;
	char serial[SERIAL_BYTES];

	struct blk_backend *engine;
	struct loop_source *event; /* on engine->event_fd */
	struct loop_source *again; /* timer: the driver keeps us busy, or the kernel had no room */

	struct request *requests; /* QUEUE_SIZE slots */
	uint16_t free_slots[QUEUE_SIZE]; /* a stack, so that few slots are touched */
	uint16_t n_free;
	uint32_t errors_logged;
	struct blk_metrics metrics;
};

static struct virtio_blk *to_blk(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

static uint16_t in_flight(const struct virtio_blk *blk)
{
	return QUEUE_SIZE - blk->n_free;
}

/* ---- completion ---- */

static void give_back(struct virtio_blk *blk, struct request *req)
{
	blk->free_slots[blk->n_free++] = (uint16_t)(req - blk->requests);
}

/* Answers the driver and frees the slot. */
static void complete(struct virtio_blk *blk, struct request *req, uint8_t status)
{
	*req->status = status;
	/* 2.7.8.2: no more than was written. Of a failed request only the status byte is promised. */
	virtq_push(&blk->dev.queues[0], req->chain.head, status == S_OK ? req->in_bytes : 1);
	give_back(blk, req);
}

static void log_failure(struct virtio_blk *blk, const struct request *req)
{
	static const char *const names[] = {
		[BLK_OP_READ] = "read",
		[BLK_OP_WRITE] = "write",
		[BLK_OP_FLUSH] = "flush",
		[BLK_OP_DISCARD] = "discard",
		[BLK_OP_WRITE_ZEROES ... BLK_OP_UNMAP_ZEROES] = "write of zeroes",
	};

	if (blk->errors_logged++ < ERROR_LOG_MAX)
		log_warn("disk %s: %s at sector %llu failed: %s", blk->path, names[req->io.op],
			(unsigned long long)req->sector, strerror(-req->io.result));
}

static void count_success(struct virtio_blk *blk, const struct request *req)
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
static void complete_io(struct virtio_blk *blk, struct request *req)
{
	bool zeroing = req->io.op == BLK_OP_DISCARD || req->io.op == BLK_OP_WRITE_ZEROES ||
		       req->io.op == BLK_OP_UNMAP_ZEROES;

	if (req->io.result == 0) {
		count_success(blk, req);
		complete(blk, req, S_OK);
	} else if (zeroing && req->io.result == -EOPNOTSUPP) {
		complete(blk, req, S_UNSUPP); /* drivers then do without */
	} else {
		metric_inc(&blk->metrics.execute_fails);
		log_failure(blk, req);
		complete(blk, req, S_IOERR);
	}
}

/* ---- parsing ---- */

/* Drops the first `bytes` of the readable buffers: the header. They hold that many. */
static void skip_header(struct virtq_chain *chain, size_t bytes, struct iovec **ret_iov, unsigned *ret_n)
{
	struct iovec *iov = chain->iov;
	unsigned n = chain->n_out;

	while (n > 0 && bytes >= iov->iov_len) {
		bytes -= iov->iov_len;
		iov++;
		n--;
	}
	if (n > 0) {
		iov->iov_base = (char *)iov->iov_base + bytes;
		iov->iov_len -= bytes;
	}
	*ret_iov = iov;
	*ret_n = n;
}

/* Takes the last byte off the writable buffers and returns it: the status. There is at least one. */
static uint8_t *take_status_byte(struct virtq_chain *chain)
{
	struct iovec *last = &chain->iov[chain->n_out + chain->n_in - 1];

	last->iov_len--;
	chain->in_bytes--;
	if (last->iov_len == 0)
		chain->n_in--;
	return (uint8_t *)last->iov_base + last->iov_len;
}

/* Whether [sector, sector + bytes) is on the disk, in whole sectors (5.2.6.1). */
static bool on_disk(const struct virtio_blk *blk, uint64_t sector, uint64_t bytes)
{
	return bytes % SECTOR_BYTES == 0 && range_fits(sector, bytes >> SECTOR_SHIFT, blk->config.capacity);
}

/* Each parse function returns S_OK with req->io set, or the status to answer with. */
static uint8_t parse_transfer(struct virtio_blk *blk, struct request *req, bool write)
{
	struct virtq_chain *chain = &req->chain;
	struct blk_io *io = &req->io;

	io->op = write ? BLK_OP_WRITE : BLK_OP_READ;
	if (write) {
		io->len = chain->out_bytes - sizeof(struct request_header);
		skip_header(chain, sizeof(struct request_header), &io->iov, &io->n_iov);
	} else {
		io->len = chain->in_bytes;
		io->iov = chain->iov + chain->n_out;
		io->n_iov = chain->n_in;
		req->in_bytes += (uint32_t)io->len;
	}
	if (write && blk->read_only)
		return S_IOERR;
	if (io->len == 0 || io->len > TRANSFER_BYTES_MAX || !on_disk(blk, req->sector, io->len))
		return S_IOERR;
	io->offset = req->sector << SECTOR_SHIFT;
	return S_OK;
}

/* DISCARD and WRITE_ZEROES: one range, as the configuration space allows (max_*_seg is 1). */
static uint8_t parse_range(struct virtio_blk *blk, struct request *req, bool discard)
{
	uint64_t data_bytes = req->chain.out_bytes - sizeof(struct request_header);
	struct range range;

	if (blk->read_only)
		return S_IOERR; /* 5.2.6.2 */
	if (!blk->discard_offered)
		return S_UNSUPP;
	if (data_bytes != sizeof(range))
		return S_IOERR;
	virtq_chain_read(&req->chain, sizeof(struct request_header), &range, sizeof(range));
	/* 5.2.6.2: unknown flags, and unmap with DISCARD, are unsupported. */
	if ((range.flags & ~RANGE_UNMAP) || (discard && range.flags))
		return S_UNSUPP;
	req->sector = range.sector;
	if (range.num_sectors == 0 || range.num_sectors > RANGE_SECTORS_MAX ||
		!range_fits(range.sector, range.num_sectors, blk->config.capacity))
		return S_IOERR;
	if (discard)
		req->io.op = BLK_OP_DISCARD;
	else
		req->io.op = range.flags & RANGE_UNMAP ? BLK_OP_UNMAP_ZEROES : BLK_OP_WRITE_ZEROES;
	req->io.offset = range.sector << SECTOR_SHIFT;
	req->io.len = (uint64_t)range.num_sectors << SECTOR_SHIFT;
	return S_OK;
}

static uint8_t parse(struct virtio_blk *blk, struct request *req, const struct request_header *header)
{
	/* 5.2.6.2: a driver that does not know FLUSH expects what was answered to be on stable storage. */
	req->io = (struct blk_io){
		.durable = blk->flush_offered && !virtio_dev_negotiated(&blk->dev, F_FLUSH),
	};
	req->sector = header->sector;
	req->in_bytes = 1;
	switch (header->type) {
	case T_IN:
		req->io.durable = false;
		return parse_transfer(blk, req, false);
	case T_OUT:
		return parse_transfer(blk, req, true);
	case T_FLUSH:
		req->io.op = BLK_OP_FLUSH;
		req->io.durable = false;
		return blk->flush_offered ? S_OK : S_UNSUPP;
	case T_DISCARD:
		req->io.durable = false;
		return parse_range(blk, req, true);
	case T_WRITE_ZEROES:
		return parse_range(blk, req, false);
	default:
		return S_UNSUPP;
	}
}

static void answer_serial(struct virtio_blk *blk, struct request *req)
{
	req->in_bytes = 1 + (uint32_t)virtq_chain_write(&req->chain, 0, blk->serial, SERIAL_BYTES);
	complete(blk, req, S_OK);
}

/* ---- the queue ---- */

/* Starts, or answers at once, the request that was popped into `req`. -EINVAL when it is none (5.2.6.1). */
static int begin(struct virtio_blk *blk, struct request *req)
{
	struct request_header header;
	uint8_t status;

	if (virtq_chain_read(&req->chain, 0, &header, sizeof(header)) < sizeof(header) ||
		req->chain.in_bytes == 0)
		return -EINVAL;
	req->status = take_status_byte(&req->chain);
	if (header.type == T_GET_ID) {
		answer_serial(blk, req);
		return 0;
	}
	status = parse(blk, req, &header);
	if (status != S_OK) {
		metric_inc(&blk->metrics.invalid_reqs_count);
		complete(blk, req, status);
		return 0;
	}
	req->data_bytes = req->io.len;
	req->begun_ns = monotonic_ns();
	if (blk->engine->ops->start(blk->engine, &req->io))
		complete_io(blk, req);
	return 0;
}

/* 1 when a request was taken from the ring, 0 when there is none and the doorbell is on again, -errno when the driver broke the rules. */
static int take_one(struct virtio_blk *blk)
{
	struct virtq *vq = &blk->dev.queues[0];
	struct request *req;
	int r;

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

	while ((io = blk->engine->ops->reap(blk->engine, wait)))
		complete_io(blk, container_of(io, struct request, io));
}

/* Hands over what was started, and answers what that has finished already: reads from the host's cache, as a rule. */
static void submit(struct virtio_blk *blk)
{
	int n;

	do {
		n = blk->engine->ops->submit(blk->engine);
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
	unsigned budget = 2 * QUEUE_SIZE;
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

	while ((io = blk->engine->ops->reap(blk->engine, true)))
		give_back(blk, container_of(io, struct request, io));
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
			"%s: has %llu sectors, and had %llu when it was saved", blk->path,
			(unsigned long long)blk->config.capacity, (unsigned long long)capacity);
	return 0;
}

static void blk_free(struct virtio_dev *dev)
{
	struct virtio_blk *blk = to_blk(dev);

	loop_remove(blk->event);
	loop_remove(blk->again);
	if (blk->engine)
		blk->engine->ops->free(blk->engine);
	close_fd(blk->fd);
	free(blk->requests);
	free(blk->path);
	free(blk);
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.device_id = VIRTIO_ID_BLOCK,
	.n_queues = 1,
	.queue_size = QUEUE_SIZE,
	.features = blk_features,
	.config_size = sizeof(struct config_space),
	.config_read = blk_config_read,
	.activate = blk_activate,
	.reset = blk_reset,
	.doorbell = blk_doorbell,
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

	blk->config = (struct config_space){
		.capacity = g->size_bytes >> SECTOR_SHIFT,
		.size_max = SEGMENT_BYTES_MAX,
		.seg_max = SEGMENTS_MAX,
		.blk_size = g->logical_block_bytes,
		.physical_block_exp = ratio > 1 ? (uint8_t)(31 - __builtin_clz(ratio)) : 0,
		.min_io_size = ratio > 1 ? (uint16_t)ratio : 1,
		.num_queues = 1,
	};
	if (!blk->discard_offered)
		return;
	blk->config.max_discard_sectors = blk->config.max_write_zeroes_sectors = RANGE_SECTORS_MAX;
	blk->config.max_discard_seg = blk->config.max_write_zeroes_seg = 1;
	blk->config.discard_sector_alignment = g->physical_block_bytes / SECTOR_BYTES;
	blk->config.write_zeroes_may_unmap = 1;
}

/* io_uring where it may be used, else plain system calls. */
static int open_engine(struct virtio_blk *blk, enum blk_engine kind)
{
	if (kind == BLK_ENGINE_ASYNC) {
		blk->engine = blk_uring_new(blk->fd, QUEUE_SIZE);
		if (blk->engine)
			return 0;
		log_info("disk %s: no io_uring (%s), so it works synchronously", blk->path, strerror(errno));
	}
	blk->engine = blk_sync_new(blk->fd);
	return blk->engine ? 0 : -errno;
}

static int start_up(struct virtio_blk *blk, const struct virtio_blk_config *config, struct loop *loop)
{
	int r;

	blk->requests = calloc(QUEUE_SIZE, sizeof(*blk->requests)); /* untouched, it costs nothing */
	if (!blk->requests)
		return -ENOMEM;
	while (blk->n_free < QUEUE_SIZE) {
		blk->free_slots[blk->n_free] = blk->n_free;
		blk->n_free++;
	}
	r = open_engine(blk, config->engine);
	if (r < 0)
		return r;
	blk->again = loop_add_timer(loop, on_again, blk);
	if (!blk->again)
		return -errno;
	if (blk->engine->event_fd < 0)
		return 0;
	blk->event = loop_add_fd(loop, blk->engine->event_fd, EPOLLIN | EPOLLET, on_event, blk);
	return blk->event ? 0 : -errno;
}

struct virtio_dev *virtio_blk_new(
	const struct virtio_blk_config *config, struct loop *loop, const struct gmem *mem, struct error *err)
{
	cleanup_close int fd = config->fd;
	cleanup_free char *path = strdup(config->path);
	struct virtio_blk *blk = NULL;
	struct blk_geometry geometry;
	int r;

	if (blk_geometry_read(fd, config->path, config->read_only, &geometry, err) < 0)
		return NULL;
	blk = calloc(1, sizeof(*blk));
	if (!path || !blk) {
		free(blk);
		error_set_field(err, ENOMEM, "path_on_host", "%s: %s", config->path, strerror(ENOMEM));
		return NULL;
	}
	virtio_dev_init(&blk->dev, &blk_ops, mem);
	blk->path = steal_ptr(&path);
	blk->fd = steal_fd(&fd);
	blk->read_only = config->read_only;
	blk->flush_offered = config->cache == BLK_CACHE_WRITEBACK;
	blk->discard_offered = geometry.can_punch_holes;
	/* 5.2.6: padded with NULs, none when it is full. */
	memcpy(blk->serial, config->id, strnlen(config->id, sizeof(blk->serial)));
	fill_config_space(blk, &geometry);
	r = start_up(blk, config, loop);
	if (r < 0) {
		error_set_field(
			err, -r, "path_on_host", "%s: cannot set up its queue: %s", blk->path, strerror(-r));
		virtio_dev_free(&blk->dev);
		return NULL;
	}
	return &blk->dev;
}
