/* virtio-mem: the driver's requests, checked against what is plugged and what the host wants, and carried out by the owner.
 *
 * Theory of operation. A request is answered while its doorbell rings; none is ever in flight. A bit for each block tells
 * whether it is plugged, and the configuration space what that comes to (5.15.4):
 *
 *	addr                    usable                                  region
 *	├──────────────────────────┼───────────────────────────────────────┤
 *	│ ▓▓▓▓▓▓  ▓▓▓▓  ▓          │       nothing may be plugged here     │    plugged <= requested, or the driver is
 *	└──────────────────────────┴───────────────────────────────────────┘    on its way there
 *
 * A reset of the device changes nothing of it: memory is the guest's, not the driver's (5.15.6.2). */
#include "devices/virtio_mem.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 64

/* Linux plugs in units of its own, the largest of which, on x86, is this long: the usable region holds whole ones. How much is
 * plugged in it is limited by what is requested. */
#define USABLE_ALIGN UINT64_C(0x80000000)

#define FIELD "requested_size_mib"

#define BLOCKS_SECTION "plugged-blocks"
#define BLOCKS_VERSION 1

_Static_assert(sizeof(struct virtio_mem_config) == 56, "5.15.4");
_Static_assert(sizeof(struct virtio_mem_req) == 24 && sizeof(struct virtio_mem_resp) == 10, "5.15.6");

struct virtio_mem {
	struct virtio_dev dev;
	struct virtio_mem_setup setup;
	uint64_t usable_bytes, plugged_bytes, requested_bytes;
	uint64_t *plugged; /* owned: a bit a block */
	struct loop_source *again; /* a timer: the driver added requests as fast as they were served */
	struct virtq_chain chain;
	struct mem_metrics metrics;
};

struct blocks {
	uint64_t first, n;
};

static struct virtio_mem *to_mem(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_mem, dev);
}

static uint64_t n_blocks(const struct virtio_mem *m)
{
	return m->setup.region_bytes / m->setup.block_bytes;
}

/* Of m->plugged. */
static size_t n_words(const struct virtio_mem *m)
{
	return (n_blocks(m) + 63) / 64;
}

static bool is_plugged(const struct virtio_mem *m, uint64_t block)
{
	return m->plugged[block / 64] >> (block % 64) & 1;
}

static void mark(struct virtio_mem *m, struct blocks blocks, bool plugged)
{
	uint64_t bytes = blocks.n * m->setup.block_bytes;

	for (uint64_t block = blocks.first; block < blocks.first + blocks.n; block++) {
		uint64_t bit = UINT64_C(1) << (block % 64);

		m->plugged[block / 64] = plugged ? m->plugged[block / 64] | bit : m->plugged[block / 64] & ~bit;
	}
	m->plugged_bytes = plugged ? m->plugged_bytes + bytes : m->plugged_bytes - bytes;
}

static uint16_t state_of(const struct virtio_mem *m, struct blocks blocks)
{
	uint64_t n = 0;

	for (uint64_t block = blocks.first; block < blocks.first + blocks.n; block++)
		n += is_plugged(m, block);
	if (n == 0)
		return VIRTIO_MEM_STATE_UNPLUGGED;
	return n == blocks.n ? VIRTIO_MEM_STATE_PLUGGED : VIRTIO_MEM_STATE_MIXED;
}

/* The next run of plugged blocks from `from` on; empty when there is none. */
static struct blocks next_run(const struct virtio_mem *m, uint64_t from)
{
	struct blocks run = {from, 0};

	while (run.first < n_blocks(m) && !is_plugged(m, run.first))
		run.first++;
	while (run.first + run.n < n_blocks(m) && is_plugged(m, run.first + run.n))
		run.n++;
	return run;
}

/* 5.15.4.2: as much as the requested size needs. */
static uint64_t usable_for(const struct virtio_mem *m, uint64_t requested_bytes)
{
	uint64_t usable = align_up(requested_bytes, USABLE_ALIGN);

	return usable < m->setup.region_bytes ? usable : m->setup.region_bytes;
}

/* ---- requests: each returns the type of the response, 5.15.6 ---- */

/* 5.15.6.2: whole blocks, one at least, of the usable region. */
static bool find_blocks(const struct virtio_mem *m, uint64_t addr, uint16_t n, struct blocks *ret)
{
	uint64_t offset = addr - m->setup.addr;

	if (n == 0 || addr < m->setup.addr || addr % m->setup.block_bytes ||
		!range_fits(offset, n * m->setup.block_bytes, m->usable_bytes))
		return false;
	*ret = (struct blocks){offset / m->setup.block_bytes, n};
	return true;
}

static uint16_t plug(struct virtio_mem *m, uint64_t addr, uint16_t n)
{
	uint64_t bytes = n * m->setup.block_bytes;
	struct blocks blocks;

	if (!find_blocks(m, addr, n, &blocks) || state_of(m, blocks) != VIRTIO_MEM_STATE_UNPLUGGED)
		return VIRTIO_MEM_RESP_ERROR;
	if (!range_fits(m->plugged_bytes, bytes, m->requested_bytes))
		return VIRTIO_MEM_RESP_NACK;
	if (m->setup.ops->plug(m->setup.ctx, addr - m->setup.addr, bytes) < 0)
		return VIRTIO_MEM_RESP_BUSY;
	mark(m, blocks, true);
	metric_add(&m->metrics.plug_bytes, bytes);
	return VIRTIO_MEM_RESP_ACK;
}

/* What this very request needs to be answered cannot go. Other devices' needs are the owner's to know. */
static bool is_needed(struct virtio_mem *m, uint64_t offset, uint64_t len)
{
	const void *host = gmem_view(m->dev.mem, m->setup.addr + offset, len);

	return host && (virtq_chain_holds(&m->chain, host, len) || virtio_dev_holds(&m->dev, host, len));
}

static uint16_t unplug_blocks(struct virtio_mem *m, struct blocks blocks)
{
	uint64_t offset = blocks.first * m->setup.block_bytes, len = blocks.n * m->setup.block_bytes;
	int r = is_needed(m, offset, len) ? -EBUSY : m->setup.ops->unplug(m->setup.ctx, offset, len);

	if (r < 0)
		return VIRTIO_MEM_RESP_BUSY;
	if (r > 0)
		metric_inc(&m->metrics.unplug_discard_fails);
	mark(m, blocks, false);
	metric_add(&m->metrics.unplug_bytes, len);
	return VIRTIO_MEM_RESP_ACK;
}

static uint16_t unplug(struct virtio_mem *m, uint64_t addr, uint16_t n)
{
	struct blocks blocks;

	if (!find_blocks(m, addr, n, &blocks) || state_of(m, blocks) != VIRTIO_MEM_STATE_PLUGGED)
		return VIRTIO_MEM_RESP_ERROR;
	return unplug_blocks(m, blocks);
}

/* What can go goes, also when not all of it can. 5.15.4.2: the usable region may shrink here, and only here. */
static uint16_t unplug_all(struct virtio_mem *m)
{
	uint16_t result = VIRTIO_MEM_RESP_ACK, type;
	struct blocks run;

	for (run = next_run(m, 0); run.n > 0; run = next_run(m, run.first + run.n)) {
		type = unplug_blocks(m, run);
		if (type != VIRTIO_MEM_RESP_ACK)
			result = type;
	}
	if (result == VIRTIO_MEM_RESP_ACK)
		m->usable_bytes = usable_for(m, m->requested_bytes);
	return result;
}

static uint16_t tell_state(struct virtio_mem *m, uint64_t addr, uint16_t n, uint16_t *ret_state)
{
	struct blocks blocks;

	if (!find_blocks(m, addr, n, &blocks))
		return VIRTIO_MEM_RESP_ERROR;
	*ret_state = state_of(m, blocks);
	return VIRTIO_MEM_RESP_ACK;
}

/* 0, or -EINVAL when it is no request that could be answered. */
static int serve(struct virtio_mem *m, const struct virtio_mem_req *req, struct virtio_mem_resp *ret)
{
	struct mem_metrics *metrics = &m->metrics;
	const struct {
		uint64_t *count, *fails;
		struct metric_latency *latency;
	} counts[] = {
		[VIRTIO_MEM_REQ_PLUG] = {&metrics->plug_count, &metrics->plug_fails, &metrics->plug_agg},
		[VIRTIO_MEM_REQ_UNPLUG] = {&metrics->unplug_count, &metrics->unplug_fails, &metrics->unplug_agg},
		[VIRTIO_MEM_REQ_UNPLUG_ALL] = {&metrics->unplug_all_count, &metrics->unplug_all_fails,
			&metrics->unplug_all_agg},
		[VIRTIO_MEM_REQ_STATE] = {&metrics->state_count, &metrics->state_fails, &metrics->state_agg},
	};
	uint64_t begun_ns = monotonic_ns();

	switch (req->type) {
	case VIRTIO_MEM_REQ_PLUG:
		ret->type = plug(m, req->u.plug.addr, req->u.plug.nb_blocks);
		break;
	case VIRTIO_MEM_REQ_UNPLUG:
		ret->type = unplug(m, req->u.unplug.addr, req->u.unplug.nb_blocks);
		break;
	case VIRTIO_MEM_REQ_UNPLUG_ALL:
		ret->type = unplug_all(m);
		break;
	case VIRTIO_MEM_REQ_STATE:
		ret->type = tell_state(m, req->u.state.addr, req->u.state.nb_blocks, &ret->u.state.state);
		break;
	default:
		return -EINVAL;
	}
	metric_inc(counts[req->type].count);
	if (ret->type != VIRTIO_MEM_RESP_ACK)
		metric_inc(counts[req->type].fails);
	metric_record_latency(counts[req->type].latency, (monotonic_ns() - begun_ns) / 1000);
	return 0;
}

/* Answers the request in m->chain. 5.15.6: how it is cut into buffers is the driver's choice (2.7.4.1). */
static int answer(struct virtio_mem *m)
{
	struct virtio_mem_resp resp = {0};
	struct virtio_mem_req req;
	int r;

	if (virtq_chain_read(&m->chain, 0, &req, sizeof(req)) < sizeof(req) || m->chain.in_bytes < sizeof(resp))
		return -EINVAL;
	r = serve(m, &req, &resp);
	if (r < 0)
		return r;
	virtq_chain_write(&m->chain, 0, &resp, sizeof(resp));
	return virtq_push(&m->dev.queues[0], m->chain.head, sizeof(resp));
}

static void mem_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_mem *m = to_mem(dev);
	struct virtq *vq = &dev->queues[q];
	int r = 0;

	metric_inc(&m->metrics.queue_event_count);
	virtq_disable_doorbell(vq);
	for (unsigned budget = QUEUE_SIZE; budget > 0; budget--) {
		r = virtq_pop_or_arm(vq, &m->chain);
		if (r > 0)
			r = answer(m) < 0 ? -EINVAL : 1;
		if (r <= 0)
			break;
	}
	if (r < 0) {
		metric_inc(&m->metrics.queue_event_fails);
		virtio_dev_broken(dev, "a request to plug or unplug memory is malformed");
	} else if (r > 0) {
		loop_timer_arm(m->again, 0);
	}
	virtio_dev_notify(dev, q);
}

static void on_again(void *ctx)
{
	struct virtio_mem *m = ctx;

	virtio_dev_doorbell(&m->dev, 0);
}

/* ---- the device ---- */

/* 5.15.3: a driver must know that what is not plugged is not there at all. */
static uint64_t mem_features(struct virtio_dev *dev)
{
	(void)dev;
	return 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE;
}

static void mem_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	const struct virtio_mem *m = to_mem(dev);
	struct virtio_mem_config space = { /* node_id means nothing without VIRTIO_MEM_F_ACPI_PXM */
		.block_size = m->setup.block_bytes,
		.addr = m->setup.addr,
		.region_size = m->setup.region_bytes,
		.usable_region_size = m->usable_bytes,
		.plugged_size = m->plugged_bytes,
		.requested_size = m->requested_bytes,
	};

	memcpy(ret, (const char *)&space + offset, len);
}

static int mem_activate(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

static void mem_nothing(struct virtio_dev *dev)
{
	(void)dev;
}

static void mem_resume(struct virtio_dev *dev)
{
	if (dev->queues[0].ready)
		mem_doorbell(dev, 0);
}

/* The blocks have their own section. */
static void mem_save(struct virtio_dev *dev, struct state_writer *w)
{
	const struct virtio_mem *m = to_mem(dev);

	state_put_u64(w, m->usable_bytes);
	state_put_u64(w, m->requested_bytes);
	state_put_u64(w, m->plugged_bytes);
}

/* What a save of ours could not say is refused: a block beyond what was usable, for one. */
static int mem_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_mem *m = to_mem(dev);
	uint64_t usable = state_get_u64(r), requested = state_get_u64(r), plugged = state_get_u64(r);

	if (r->failed)
		return 0; /* the section's end tells */
	if (plugged != m->plugged_bytes)
		return error_set(err, EINVAL, "saved virtio-mem has %llu MiB plugged, and its blocks come to %llu",
			(unsigned long long)plugged >> 20, (unsigned long long)m->plugged_bytes >> 20);
	if (usable > m->setup.region_bytes || requested > usable || (usable | requested) % m->setup.block_bytes ||
		next_run(m, usable / m->setup.block_bytes).n > 0)
		return error_set(err, EINVAL, "saved virtio-mem is impossible");
	m->usable_bytes = usable;
	m->requested_bytes = requested;
	return 0;
}

void virtio_mem_save_blocks(struct virtio_dev *dev, struct state_writer *w)
{
	const struct virtio_mem *m = to_mem(dev);

	state_begin(w, BLOCKS_SECTION, BLOCKS_VERSION);
	state_put_u64(w, m->setup.addr);
	state_put_u64(w, m->setup.region_bytes);
	state_put_u64(w, m->setup.block_bytes);
	state_put_bytes(w, m->plugged, (uint32_t)(n_words(m) * sizeof(*m->plugged)));
	state_end(w);
}

static bool is_wanted(const uint64_t *wanted, uint64_t block)
{
	return wanted[block / 64] >> (block % 64) & 1;
}

/* Plugs what `wanted` tells, on a device where nothing is. */
static int plug_again(struct virtio_mem *m, const uint64_t *wanted, struct error *err)
{
	struct blocks run = {0};
	int r = 0;

	for (uint64_t block = 0; block <= n_blocks(m) && r == 0; block++) {
		if (block < n_blocks(m) && is_wanted(wanted, block)) {
			run.first = run.n ? run.first : block;
			run.n++;
			continue;
		}
		if (run.n)
			r = m->setup.ops->plug(m->setup.ctx, run.first * m->setup.block_bytes,
				run.n * m->setup.block_bytes);
		if (r == 0)
			mark(m, run, true);
		run.n = 0;
	}
	if (r == 0)
		return 0;
	unplug_all(m);
	return error_set_errno(err, -r, "memory that was plugged when it was saved cannot be plugged again");
}

/* The blocks into `wanted`, which has room for them. */
static int read_blocks(const struct virtio_mem *m, struct state_reader *r, uint64_t *wanted, struct error *err)
{
	uint64_t addr = state_get_u64(r), region_bytes = state_get_u64(r), block_bytes = state_get_u64(r);
	const uint8_t *bytes;
	uint32_t len = state_get_bytes(r, &bytes);
	int result = state_end_section(r, err);

	if (result < 0)
		return result;
	if (addr != m->setup.addr || region_bytes != m->setup.region_bytes || block_bytes != m->setup.block_bytes ||
		len != n_words(m) * sizeof(*wanted))
		return error_set(err, EINVAL, "saved virtio-mem is another region, or has other blocks");
	memcpy(wanted, bytes, len); /* it is not aligned */
	for (uint64_t block = n_blocks(m); block < n_words(m) * 64; block++)
		if (is_wanted(wanted, block))
			return error_set(err, EINVAL, "saved virtio-mem has a block beyond its region");
	return 0;
}

int virtio_mem_load_blocks(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_mem *m = to_mem(dev);
	cleanup_free uint64_t *wanted = calloc(n_words(m), sizeof(*wanted));
	int result = state_begin_section(r, BLOCKS_SECTION, BLOCKS_VERSION, err);

	if (!wanted)
		return error_set(err, ENOMEM, "out of memory");
	result = result < 0 ? result : read_blocks(m, r, wanted, err);
	return result < 0 ? result : plug_again(m, wanted, err);
}

static void mem_free(struct virtio_dev *dev)
{
	struct virtio_mem *m = to_mem(dev);

	loop_remove(m->again);
	free(m->plugged);
	free(m);
}

static const struct virtio_ops mem_ops = {
	.name = "virtio-mem",
	.device_id = VIRTIO_ID_MEM,
	.n_queues = 1,
	.queue_size = QUEUE_SIZE,
	.features = mem_features,
	.required_features = 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE,
	.config_size = sizeof(struct virtio_mem_config),
	.config_read = mem_config_read,
	.activate = mem_activate,
	.reset = mem_nothing,
	.doorbell = mem_doorbell,
	.quiesce = mem_nothing,
	.resume = mem_resume,
	.save = mem_save,
	.load = mem_load,
	.free = mem_free,
};

const struct mem_metrics *virtio_mem_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_mem, dev)->metrics;
}

struct virtio_dev *virtio_mem_new(
	const struct virtio_mem_setup *setup, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct virtio_mem *m = calloc(1, sizeof(*m));

	assert((setup->addr | setup->region_bytes) % setup->block_bytes == 0);
	if (!m) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	virtio_dev_init(&m->dev, &mem_ops, mem);
	m->setup = *setup;
	m->plugged = calloc(n_words(m), sizeof(*m->plugged));
	m->again = m->plugged ? loop_add_timer(loop, on_again, m) : NULL;
	if (!m->again) {
		error_set_errno(err, m->plugged ? errno : ENOMEM, "cannot create the device that plugs memory");
		virtio_dev_free(&m->dev);
		return NULL;
	}
	return &m->dev;
}

int virtio_mem_request(struct virtio_dev *dev, uint64_t bytes, struct error *err)
{
	struct virtio_mem *m = to_mem(dev);
	uint64_t usable;
	bool is_heard;

	if (bytes > m->setup.region_bytes)
		return error_set_field(err, EINVAL, FIELD, "%llu MiB are more than there can be, %llu MiB",
			(unsigned long long)bytes >> 20, (unsigned long long)m->setup.region_bytes >> 20);
	if (bytes % m->setup.block_bytes)
		return error_set_field(err, EINVAL, FIELD, "is not a multiple of block_size_mib, %llu",
			(unsigned long long)m->setup.block_bytes >> 20);
	usable = usable_for(m, bytes);
	virtio_dev_enter(dev);
	is_heard = dev->active;
	if (is_heard) {
		m->requested_bytes = bytes;
		/* 5.15.4.2: it does not shrink. */
		m->usable_bytes = usable > m->usable_bytes ? usable : m->usable_bytes;
		virtio_dev_config_changed(dev);
	}
	virtio_dev_leave(dev);
	return is_heard ? 0 : error_set_field(err, EAGAIN, FIELD, "the guest has no driver for it, or not yet");
}

void virtio_mem_sizes(struct virtio_dev *dev, uint64_t *ret_requested_bytes, uint64_t *ret_plugged_bytes)
{
	const struct virtio_mem *m = to_mem(dev);

	virtio_dev_enter(dev);
	*ret_requested_bytes = m->requested_bytes;
	*ret_plugged_bytes = m->plugged_bytes;
	virtio_dev_leave(dev);
}
