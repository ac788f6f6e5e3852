/* virtio-balloon: the device - its target, statistics and hinting. balloon_pages.c has its queues of pages.
 *
 * Theory of operation. All work on queues is done on the loop thread, under the device's lock, in rounds; what a round leaves
 * is gone on with by `again`. The statistics' buffer is held until the next are wanted: the driver fills it when it
 * has it back. At rest it is back in the ring, so that the rings and save() tell all; and so are requests done in part, with
 * how far they are.
 * A run of hinting has a number, by which the driver says what a range belongs to:
 *
 *	STOP ──start──▶ run N ──the driver is through, and that acknowledges──▶ DONE: the guest has its pages back
 *	                  └───────────────────── stop ─────────────────────────▶ */
#include "devices/virtio_balloon_device.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#define BIT(n) (UINT64_C(1) << (n))
#define PAGE_BYTES (1u << VIRTIO_BALLOON_PFN_SHIFT)
#define SECOND_NS UINT64_C(1000000000)

#define STATS_PER_REQUEST 64u /* more than that are not looked at */

_Static_assert(BALLOON_HINT_STOP == VIRTIO_BALLOON_CMD_ID_STOP && BALLOON_HINT_DONE == VIRTIO_BALLOON_CMD_ID_DONE, "5.5.6.5");
_Static_assert(sizeof(struct virtio_balloon_stat) == 10, "5.5.6.3");

static struct virtio_balloon *to_balloon(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_balloon, dev);
}

static const struct {
	enum balloon_role role;
	unsigned feature;
} optional_roles[] = {
	{BALLOON_STATISTICS, VIRTIO_BALLOON_F_STATS_VQ},
	{BALLOON_HINTING, VIRTIO_BALLOON_F_FREE_PAGE_HINT},
	{BALLOON_REPORTING, VIRTIO_BALLOON_F_REPORTING},
};

static bool offers(const struct virtio_balloon *balloon, unsigned feature)
{
	return balloon->features >> feature & 1;
}

/* BALLOON_ROLES when it has none. */
static enum balloon_role role_of(const struct virtio_balloon *balloon, uint16_t q)
{
	uint16_t at = BALLOON_DEFLATE;

	if (q <= at)
		return q;
	for (size_t i = 0; i < ARRAY_SIZE(optional_roles); i++)
		if (virtio_dev_negotiated(&balloon->dev, optional_roles[i].feature) && ++at == q)
			return optional_roles[i].role;
	return BALLOON_ROLES;
}

/* The queue of a role that was negotiated. */
static uint16_t queue_of(const struct virtio_balloon *balloon, enum balloon_role role)
{
	uint16_t q = 0;

	while (q < balloon->ops.n_queues && role_of(balloon, q) != role)
		q++;
	assert(q < balloon->ops.n_queues);
	return q;
}

/* ---- statistics ---- */

static void take_stats(struct virtio_balloon *balloon, const struct virtq_chain *chain)
{
	struct virtio_balloon_stat stats[STATS_PER_REQUEST];
	size_t n = virtq_chain_read(chain, 0, stats, sizeof(stats)), count = n / sizeof(stats[0]);

	metric_inc(&balloon->metrics.stats_updates_count);
	for (size_t i = 0; i < count; i++) {
		if (stats[i].tag >= BALLOON_STATS) {
			metric_inc(&balloon->metrics.stats_update_fails);
			continue;
		}
		balloon->stats[stats[i].tag] = stats[i].val;
		balloon->stats_known |= 1u << stats[i].tag;
	}
	if (chain->out_bytes != count * sizeof(stats[0]))
		metric_inc(&balloon->metrics.stats_update_fails);
}

/* Gives the buffer back, upon which the driver fills it again (5.5.6.3.2). */
static void ask_for_stats(struct virtio_balloon *balloon)
{
	uint16_t q;

	if (!balloon->stats_held || !virtio_dev_running(&balloon->dev))
		return;
	q = queue_of(balloon, BALLOON_STATISTICS);
	balloon->stats_held = false;
	virtq_push(&balloon->dev.queues[q], balloon->stats_head, 0);
	virtio_dev_notify(&balloon->dev, q);
}

static void on_stats_timer(void *ctx)
{
	struct virtio_balloon *balloon = ctx;

	virtio_dev_enter(&balloon->dev);
	ask_for_stats(balloon);
	virtio_dev_leave(&balloon->dev);
}

/* Returns as balloon_pages_work(). The driver has one buffer; of one that has more, the last counts. */
static int work_stats(struct virtio_balloon *balloon, uint16_t q)
{
	struct virtq *vq = &balloon->dev.queues[q];
	struct virtq_chain chain;
	int r = 1;

	virtq_disable_doorbell(vq);
	for (unsigned budget = BALLOON_QUEUE_SIZE; budget > 0; budget--) {
		r = virtq_pop_or_arm(vq, &chain);
		if (r <= 0)
			return r;
		if (chain.n_in > 0)
			return -EINVAL;
		if (balloon->stats_held)
			virtq_push(vq, balloon->stats_head, 0);
		take_stats(balloon, &chain);
		balloon->stats_held = true;
		balloon->stats_head = chain.head;
		loop_timer_arm(balloon->stats_timer, balloon->stats_interval_s * SECOND_NS);
	}
	return 1;
}

/* ---- hinting ---- */

static void tell_hinting(struct virtio_balloon *balloon, uint32_t command)
{
	balloon->hinting.host_cmd = command;
	virtio_dev_config_changed(&balloon->dev);
}

bool balloon_hinting_is_on(const struct virtio_balloon *balloon)
{
	const struct balloon_hinting *hinting = &balloon->hinting;

	return hinting->host_cmd != BALLOON_HINT_STOP && hinting->host_cmd != BALLOON_HINT_DONE &&
	       hinting->has_guest_cmd && hinting->guest_cmd == hinting->host_cmd;
}

void balloon_hinting_heard(struct virtio_balloon *balloon, uint32_t command)
{
	bool was_on = balloon_hinting_is_on(balloon);

	balloon->hinting.has_guest_cmd = true;
	balloon->hinting.guest_cmd = command;
	if (was_on && command == BALLOON_HINT_STOP && balloon->acknowledge_on_stop)
		tell_hinting(balloon, BALLOON_HINT_DONE);
}

/* ---- the driver's side ---- */

static void balloon_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	enum balloon_role role = role_of(balloon, q);
	int r;

	if (role == BALLOON_ROLES)
		return;
	r = role == BALLOON_STATISTICS ? work_stats(balloon, q) : balloon_pages_work(balloon, role, q);
	if (r < 0) {
		metric_inc(&balloon->metrics.event_fails);
		virtio_dev_broken(dev, "a request is malformed");
	} else if (r > 0) {
		balloon->again_queues |= (uint8_t)(1u << q);
		loop_kick(&balloon->again);
	}
	virtio_dev_notify(dev, q);
}

static void count_doorbell(struct virtio_balloon *balloon, enum balloon_role role)
{
	struct balloon_metrics *metrics = &balloon->metrics;

	if (role == BALLOON_INFLATE)
		metric_inc(&metrics->inflate_count);
	else if (role == BALLOON_DEFLATE)
		metric_inc(&metrics->deflate_count);
}

static void balloon_rung(struct virtio_dev *dev, uint16_t q)
{
	count_doorbell(to_balloon(dev), role_of(to_balloon(dev), q));
	balloon_doorbell(dev, q);
}

static void on_again(void *ctx)
{
	struct virtio_balloon *balloon = ctx;
	uint8_t queues;

	virtio_dev_enter(&balloon->dev);
	queues = balloon->again_queues;
	balloon->again_queues = 0;
	for (uint16_t q = 0; q < balloon->ops.n_queues; q++)
		if ((queues >> q & 1) && virtio_dev_running(&balloon->dev))
			balloon_doorbell(&balloon->dev, q);
	virtio_dev_leave(&balloon->dev);
}

static uint64_t balloon_features(struct virtio_dev *dev)
{
	return to_balloon(dev)->features;
}

/* 5.5.4. */
static void balloon_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	const struct virtio_balloon *balloon = to_balloon(dev);
	const uint32_t fields[] = {balloon->target_pages, balloon->actual_pages, balloon->hinting.host_cmd};

	memcpy(ret, (const uint8_t *)fields + offset, len);
}

/* Of all fields `actual` is the driver's. */
static void balloon_config_write(struct virtio_dev *dev, uint32_t offset, const void *data, uint32_t len)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	const uint32_t at = sizeof(uint32_t);

	if (offset >= at && range_fits(offset - at, len, sizeof(balloon->actual_pages)))
		memcpy((uint8_t *)&balloon->actual_pages + (offset - at), data, len);
	else
		metric_inc(&dev->metrics.cfg_fails);
}

/* Once all memory is laid out, by devices made later too. */
static int make_blocks(struct virtio_balloon *balloon)
{
	if (balloon->blocks.bits || !offers(balloon, VIRTIO_BALLOON_F_MUST_TELL_HOST))
		return 0;
	return balloon_blocks_init(&balloon->blocks, balloon->dev.mem, balloon->discard.page_bytes);
}

/* Linux has put its first statistics into the ring before DRIVER_OK, and rung too early to be heard. */
static int balloon_activate(struct virtio_dev *dev)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	int r = make_blocks(balloon);

	if (r < 0)
		return r;
	balloon->again_queues = UINT8_MAX;
	loop_kick(&balloon->again);
	return 0;
}

/* By a vCPU's thread: what the loop was to do may come once more, and finds nothing to do. */
static void balloon_reset(struct virtio_dev *dev)
{
	struct virtio_balloon *balloon = to_balloon(dev);

	balloon->actual_pages = 0;
	balloon->again_queues = 0;
	memset(balloon->progress, 0, sizeof(balloon->progress));
	balloon_blocks_clear(&balloon->blocks);
	balloon->stats_held = false;
	balloon->stats_known = 0;
	balloon->hinting = (struct balloon_hinting){.host_cmd = BALLOON_HINT_STOP};
}

static void balloon_quiesce(struct virtio_dev *dev)
{
	struct virtio_balloon *balloon = to_balloon(dev);

	if (balloon->stats_held && dev->queues[queue_of(balloon, BALLOON_STATISTICS)].ready)
		virtq_unpop(&dev->queues[queue_of(balloon, BALLOON_STATISTICS)], 1);
	balloon->stats_held = false;
}

static void balloon_resume(struct virtio_dev *dev)
{
	for (uint16_t q = 0; q < dev->ops->n_queues; q++)
		if (dev->queues[q].ready && virtio_dev_running(dev))
			balloon_doorbell(dev, q);
}

static void balloon_save(struct virtio_dev *dev, struct state_writer *w)
{
	const struct virtio_balloon *balloon = to_balloon(dev);

	state_put_u32(w, balloon->target_pages);
	state_put_u32(w, balloon->actual_pages);
	for (unsigned i = 0; i < BALLOON_ROLES; i++)
		state_put_u64(w, balloon->progress[i]);
	state_put_u32(w, balloon->stats_known);
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		state_put_u64(w, balloon->stats[i]);
	state_put_u32(w, balloon->hinting.host_cmd);
	state_put_u8(w, balloon->hinting.has_guest_cmd);
	state_put_u32(w, balloon->hinting.guest_cmd);
	state_put_u32(w, balloon->last_run);
	state_put_u8(w, balloon->acknowledge_on_stop);
	balloon_blocks_save(&balloon->blocks, w);
}

/* Whatever the numbers are, they are no more than what a driver could have brought about. */
static int balloon_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	int result;

	balloon->target_pages = state_get_u32(r);
	balloon->actual_pages = state_get_u32(r);
	for (unsigned i = 0; i < BALLOON_ROLES; i++)
		balloon->progress[i] = state_get_u64(r);
	balloon->stats_known = state_get_u32(r) & (BIT(BALLOON_STATS) - 1);
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		balloon->stats[i] = state_get_u64(r);
	balloon->hinting.host_cmd = state_get_u32(r);
	balloon->hinting.has_guest_cmd = state_get_u8(r);
	balloon->hinting.guest_cmd = state_get_u32(r);
	balloon->last_run = state_get_u32(r);
	balloon->acknowledge_on_stop = state_get_u8(r);
	result = make_blocks(balloon);
	if (result < 0)
		return error_set_errno(err, -result, "the saved balloon cannot be kept account of");
	return balloon_blocks_load(&balloon->blocks, r, err);
}

static void balloon_free(struct virtio_dev *dev)
{
	struct virtio_balloon *balloon = to_balloon(dev);

	loop_kick_done(&balloon->again);
	loop_remove(balloon->stats_timer);
	balloon_blocks_done(&balloon->blocks);
	free(balloon);
}

static const struct virtio_ops balloon_ops = {
	.name = "virtio-balloon",
	.device_id = VIRTIO_ID_BALLOON,
	.n_queues = BALLOON_DEFLATE + 1,
	.queue_size = BALLOON_QUEUE_SIZE,
	.features = balloon_features,
	.config_size = 2 * sizeof(uint32_t), /* and a third field with hinting */
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.activate = balloon_activate,
	.reset = balloon_reset,
	.doorbell = balloon_rung,
	.quiesce = balloon_quiesce,
	.resume = balloon_resume,
	.save = balloon_save,
	.load = balloon_load,
	.free = balloon_free,
};

/* ---- the API's side ---- */

static int check_active(const struct virtio_balloon *balloon, struct error *err)
{
	return balloon->dev.active ? 0 : error_set(err, ENODEV, "Device not activated yet.");
}

int virtio_balloon_set_target(struct virtio_dev *dev, uint32_t target_mib, struct error *err)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	int r;

	virtio_dev_enter(dev);
	r = check_active(balloon, err);
	if (r == 0) {
		balloon->target_pages = target_mib * BALLOON_PAGES_PER_MIB;
		virtio_dev_config_changed(dev);
	}
	virtio_dev_leave(dev);
	return r;
}

int virtio_balloon_get_stats(struct virtio_dev *dev, struct balloon_stats *ret, struct error *err)
{
	struct virtio_balloon *balloon = to_balloon(dev);

	if (!offers(balloon, VIRTIO_BALLOON_F_STATS_VQ))
		return error_set(err, ENOTSUP, "Received stats query when stats are disabled.");
	virtio_dev_enter(dev);
	*ret = (struct balloon_stats){
		.target_pages = balloon->target_pages,
		.actual_pages = balloon->actual_pages,
		.known = balloon->stats_known,
	};
	memcpy(ret->values, balloon->stats, sizeof(ret->values));
	virtio_dev_leave(dev);
	return 0;
}

int virtio_balloon_set_stats_interval(struct virtio_dev *dev, uint16_t interval_s, struct error *err)
{
	struct virtio_balloon *balloon = to_balloon(dev);

	if (!interval_s != !offers(balloon, VIRTIO_BALLOON_F_STATS_VQ))
		return error_set(err, ENOTSUP, "Statistics cannot be enabled/disabled after activation.");
	virtio_dev_enter(dev);
	if (balloon->stats_interval_s != interval_s)
		ask_for_stats(balloon);
	balloon->stats_interval_s = interval_s;
	virtio_dev_leave(dev);
	return 0;
}

static int check_hinting(const struct virtio_balloon *balloon, struct error *err)
{
	if (!offers(balloon, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
		return error_set(err, ENOTSUP, "Attempting to use hinting when not enabled");
	return 0;
}

int virtio_balloon_start_hinting(struct virtio_dev *dev, bool acknowledge_on_stop, struct error *err)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	int r = check_hinting(balloon, err);

	if (r < 0)
		return r;
	virtio_dev_enter(dev);
	r = check_active(balloon, err);
	if (r == 0) {
		balloon->acknowledge_on_stop = acknowledge_on_stop;
		balloon->last_run = balloon->last_run < UINT32_MAX && balloon->last_run > BALLOON_HINT_DONE ?
			balloon->last_run + 1 : BALLOON_HINT_DONE + 1;
		tell_hinting(balloon, balloon->last_run);
	}
	virtio_dev_leave(dev);
	return r;
}

int virtio_balloon_stop_hinting(struct virtio_dev *dev, struct error *err)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	int r = check_hinting(balloon, err);

	if (r < 0)
		return r;
	virtio_dev_enter(dev);
	r = check_active(balloon, err);
	if (r == 0)
		tell_hinting(balloon, BALLOON_HINT_DONE);
	virtio_dev_leave(dev);
	return r;
}

int virtio_balloon_get_hinting(struct virtio_dev *dev, struct balloon_hinting *ret, struct error *err)
{
	struct virtio_balloon *balloon = to_balloon(dev);
	int r = check_hinting(balloon, err);

	if (r < 0)
		return r;
	virtio_dev_enter(dev);
	*ret = balloon->hinting;
	virtio_dev_leave(dev);
	return 0;
}

const struct balloon_metrics *virtio_balloon_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_balloon, dev)->metrics;
}

static uint64_t features_of(const struct balloon_config *config)
{
	return (config->discard.page_bytes > PAGE_BYTES ? BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) : 0) |
	       (config->stats_interval_s ? BIT(VIRTIO_BALLOON_F_STATS_VQ) : 0) |
	       (config->deflate_on_oom ? BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) : 0) |
	       (config->hinting ? BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) : 0) |
	       (config->reporting ? BIT(VIRTIO_BALLOON_F_REPORTING) : 0);
}

struct virtio_dev *virtio_balloon_new(
	const struct balloon_config *config, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
	int r;

	if (!balloon) {
		error_set_errno(err, ENOMEM, "cannot create the balloon");
		return NULL;
	}
	balloon->features = features_of(config);
	balloon->ops = balloon_ops;
	for (size_t i = 0; i < ARRAY_SIZE(optional_roles); i++)
		balloon->ops.n_queues += offers(balloon, optional_roles[i].feature);
	if (config->hinting)
		balloon->ops.config_size += sizeof(uint32_t);
	virtio_dev_init(&balloon->dev, &balloon->ops, mem);
	balloon->discard = config->discard;
	balloon->target_pages = config->target_mib * BALLOON_PAGES_PER_MIB;
	balloon->stats_interval_s = config->stats_interval_s;
	balloon->stats_timer = loop_add_timer(loop, on_stats_timer, balloon);
	r = loop_kick_init(&balloon->again, loop, on_again, balloon);
	if (r < 0 || !balloon->stats_timer) {
		error_set_errno(err, r < 0 ? -r : errno, "cannot create the balloon");
		virtio_dev_free(&balloon->dev);
		return NULL;
	}
	return &balloon->dev;
}
