/* virtio-mem: what a driver may plug, unplug and ask, what it may not, and what a save keeps. */
#include "tests/unit/virtq_driver.h"

#include "devices/virtio_mem.h"

#include <errno.h>
#include <linux/virtio_mem.h>

#define LIVE 15u

#define BLOCK  (UINT64_C(2) << 20)
#define REGION (8 * BLOCK)
#define ADDR   UINT64_C(0x100000000)

#define FEATURES (1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)

/* An owner that keeps books only: the device must never ask it for what makes no sense. */
struct owner {
	bool there[8];
	unsigned calls;
	int plug_result, unplug_result;
};

struct fixture {
	struct loop *loop;
	struct guest g;
	struct virtio_dev *dev;
	struct driver d;
	struct driver_queue q;
	struct owner owner;
	struct error err;
};

static void expect_all(const struct owner *owner, uint64_t offset, uint64_t len, bool there)
{
	assert_true(len > 0 && (offset | len) % BLOCK == 0 && offset + len <= REGION);
	for (uint64_t i = offset / BLOCK; i < (offset + len) / BLOCK; i++)
		assert_int_equal(owner->there[i], there);
}

static void set_all(struct owner *owner, uint64_t offset, uint64_t len, bool there)
{
	for (uint64_t i = offset / BLOCK; i < (offset + len) / BLOCK; i++)
		owner->there[i] = there;
}

static int owner_plug(void *ctx, uint64_t offset, uint64_t len)
{
	struct owner *owner = ctx;

	expect_all(owner, offset, len, false);
	owner->calls++;
	if (owner->plug_result == 0)
		set_all(owner, offset, len, true);
	return owner->plug_result;
}

static int owner_unplug(void *ctx, uint64_t offset, uint64_t len)
{
	struct owner *owner = ctx;

	expect_all(owner, offset, len, true);
	owner->calls++;
	if (owner->unplug_result >= 0)
		set_all(owner, offset, len, false);
	return owner->unplug_result;
}

static const struct virtio_mem_ops owner_ops = {owner_plug, owner_unplug};

static void start_device(struct fixture *f)
{
	struct virtio_mem_setup setup = {
		.addr = ADDR, .region_bytes = REGION, .block_bytes = BLOCK, .ops = &owner_ops, .ctx = &f->owner};

	f->dev = virtio_mem_new(&setup, f->loop, &f->g.mem, &f->err);
	assert_non_null(f->dev);
	driver_init(&f->d, f->dev, f->loop);
}

static void stop_device(struct fixture *f)
{
	driver_done(&f->d);
	virtio_dev_free(f->dev);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->loop = loop_new();
	guest_init(&f->g, 1 << 20);
	driver_queue_init(&f->q, &f->g, 64);
	start_device(f);
	assert_int_equal(driver_start(&f->d, FEATURES, &f->q, 1), LIVE);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop_device(f);
	loop_free(f->loop);
	guest_done(&f->g);
	free(f);
	return 0;
}

static struct virtio_mem_config config_space(struct fixture *f)
{
	struct virtio_mem_config space;

	virtio_dev_enter(f->dev);
	virtio_dev_config_read(f->dev, 0, &space, sizeof(space));
	virtio_dev_leave(f->dev);
	return space;
}

/* Sends a request; the response, with its type -1 when there was none. */
static struct virtio_mem_resp ask(struct fixture *f, uint16_t type, uint64_t addr, uint16_t n)
{
	struct virtio_mem_req req = {.type = type, .u.plug = {.addr = addr, .nb_blocks = n}};
	struct virtio_mem_resp resp = {.type = UINT16_MAX};
	gpa_t resp_at = guest_put(&f->g, &resp, sizeof(resp));
	struct driver_buf bufs[] = {{guest_put(&f->g, &req, sizeof(req)), sizeof(req), false}, {resp_at, sizeof(resp), true}};
	uint32_t len;
	uint16_t head, added = driver_add(&f->q, bufs, 2);

	driver_kick(&f->d, 0);
	if (driver_get_used(&f->q, &head, &len)) {
		assert_int_equal(head, added);
		assert_int_equal(len, sizeof(resp));
	}
	memcpy(&resp, guest_ptr(&f->g, resp_at), sizeof(resp));
	return resp;
}

static void answers(struct fixture *f, uint16_t type, uint64_t first, uint16_t n, uint16_t expected)
{
	assert_int_equal(ask(f, type, ADDR + first * BLOCK, n).type, expected);
}

static void is_in_state(struct fixture *f, uint64_t first, uint16_t n, uint16_t expected)
{
	struct virtio_mem_resp resp = ask(f, VIRTIO_MEM_REQ_STATE, ADDR + first * BLOCK, n);

	assert_int_equal(resp.type, VIRTIO_MEM_RESP_ACK);
	assert_int_equal(resp.u.state.state, expected);
}

static void request(struct fixture *f, uint64_t blocks)
{
	assert_int_equal(virtio_mem_request(f->dev, blocks * BLOCK, &f->err), 0);
}

static void plugged_is(struct fixture *f, uint64_t blocks)
{
	uint64_t requested, plugged;

	virtio_mem_sizes(f->dev, &requested, &plugged);
	assert_int_equal(plugged, blocks * BLOCK);
	assert_int_equal(config_space(f).plugged_size, blocks * BLOCK);
	for (unsigned i = 0; i < 8; i++)
		blocks -= f->owner.there[i];
	assert_int_equal(blocks, 0);
}

static void the_driver_is_told_what_there_is(void **state)
{
	struct fixture *f = *state;
	struct virtio_mem_config space = config_space(f);

	assert_int_equal(space.block_size, BLOCK);
	assert_int_equal(space.addr, ADDR);
	assert_int_equal(space.region_size, REGION);
	assert_int_equal(space.usable_region_size, 0);
	assert_int_equal(space.plugged_size, 0);
	assert_int_equal(space.requested_size, 0);
	request(f, 3);
	assert_int_equal(f->d.config_interrupts, 1);
	space = config_space(f);
	assert_int_equal(space.requested_size, 3 * BLOCK);
	assert_true(space.usable_region_size >= space.requested_size);
	request(f, 0); /* the usable region does not shrink */
	assert_int_equal(config_space(f).usable_region_size, space.usable_region_size);
	assert_int_equal(f->d.config_interrupts, 2);
}

static void a_driver_must_know_that_unplugged_is_not_there(void **state)
{
	struct fixture *f = *state;

	virtio_dev_enter(f->dev);
	virtio_dev_set_status(f->dev, 0);
	virtio_dev_set_status(f->dev, VIRTIO_STATUS_ACKNOWLEDGE);
	virtio_dev_set_status(f->dev, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	f->dev->driver_features = 1ull << VIRTIO_F_VERSION_1;
	virtio_dev_set_status(f->dev, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
	assert_false(f->dev->status & VIRTIO_STATUS_FEATURES_OK);
	virtio_dev_leave(f->dev);
}

static void memory_is_plugged_and_unplugged_block_by_block(void **state)
{
	struct fixture *f = *state;
	const struct mem_metrics *metrics = virtio_mem_metrics(f->dev);

	request(f, 5);
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 3, VIRTIO_MEM_RESP_ACK);
	answers(f, VIRTIO_MEM_REQ_PLUG, 6, 2, VIRTIO_MEM_RESP_ACK);
	plugged_is(f, 5);
	is_in_state(f, 0, 3, VIRTIO_MEM_STATE_PLUGGED);
	is_in_state(f, 3, 3, VIRTIO_MEM_STATE_UNPLUGGED);
	is_in_state(f, 2, 2, VIRTIO_MEM_STATE_MIXED);
	is_in_state(f, 0, 8, VIRTIO_MEM_STATE_MIXED);
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 1, 1, VIRTIO_MEM_RESP_ACK);
	plugged_is(f, 4);
	is_in_state(f, 0, 3, VIRTIO_MEM_STATE_MIXED);
	answers(f, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0, VIRTIO_MEM_RESP_ACK);
	plugged_is(f, 0);
	answers(f, VIRTIO_MEM_REQ_PLUG, 3, 5, VIRTIO_MEM_RESP_ACK); /* it is usable still: it is requested */
	assert_int_equal(metrics->queue_event_count, 10);
	assert_int_equal(metrics->queue_event_fails, 0);
	assert_int_equal(metrics->plug_count, 3);
	assert_int_equal(metrics->plug_bytes, 10 * BLOCK);
	assert_int_equal(metrics->unplug_count, 1);
	assert_int_equal(metrics->unplug_bytes, 5 * BLOCK);
	assert_int_equal(metrics->unplug_all_count, 1);
	assert_int_equal(metrics->state_count, 5);
	assert_int_equal(metrics->plug_fails + metrics->unplug_fails + metrics->state_fails, 0);
	assert_int_equal(f->d.interrupts[0], 10);
}

static void no_more_is_plugged_than_is_requested(void **state)
{
	struct fixture *f = *state;

	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 1, VIRTIO_MEM_RESP_ERROR); /* nothing is usable yet */
	request(f, 2);
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 3, VIRTIO_MEM_RESP_NACK);
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 2, VIRTIO_MEM_RESP_ACK);
	answers(f, VIRTIO_MEM_REQ_PLUG, 2, 1, VIRTIO_MEM_RESP_NACK);
	request(f, 1); /* it has more than that, and may keep it, but gets none */
	answers(f, VIRTIO_MEM_REQ_PLUG, 2, 1, VIRTIO_MEM_RESP_NACK);
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 0, 1, VIRTIO_MEM_RESP_ACK);
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 1, VIRTIO_MEM_RESP_NACK);
	plugged_is(f, 1);
	assert_int_equal(virtio_mem_metrics(f->dev)->plug_fails, 5);
}

static void what_makes_no_sense_is_an_error(void **state)
{
	static const struct {
		uint64_t addr;
		uint16_t n;
	} nowhere[] = {{ADDR, 0}, {ADDR, 9}, {ADDR + 7 * BLOCK, 2}, {ADDR + 8 * BLOCK, 1}, {ADDR - BLOCK, 1}, {ADDR - BLOCK, 2},
		{ADDR + 4096, 1}, {0, 1}, {UINT64_MAX - BLOCK + 1, 1}, {UINT64_MAX, UINT16_MAX}, {ADDR, UINT16_MAX}};
	static const uint16_t types[] = {VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_STATE};
	struct fixture *f = *state;
	unsigned calls;

	request(f, 8);
	answers(f, VIRTIO_MEM_REQ_PLUG, 2, 2, VIRTIO_MEM_RESP_ACK);
	calls = f->owner.calls;
	for (size_t i = 0; i < ARRAY_SIZE(nowhere); i++)
		for (size_t type = 0; type < ARRAY_SIZE(types); type++)
			assert_int_equal(
				ask(f, types[type], nowhere[i].addr, nowhere[i].n).type, VIRTIO_MEM_RESP_ERROR);
	answers(f, VIRTIO_MEM_REQ_PLUG, 2, 1, VIRTIO_MEM_RESP_ERROR); /* plugged already */
	answers(f, VIRTIO_MEM_REQ_PLUG, 1, 2, VIRTIO_MEM_RESP_ERROR); /* in part */
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 4, 1, VIRTIO_MEM_RESP_ERROR);
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 3, 2, VIRTIO_MEM_RESP_ERROR);
	assert_int_equal(f->owner.calls, calls);
	plugged_is(f, 2);
	assert_int_equal(driver_status(&f->d), LIVE);
}

static void what_cannot_be_now_may_be_tried_again(void **state)
{
	struct fixture *f = *state;

	request(f, 8);
	f->owner.plug_result = -ENOMEM;
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 4, VIRTIO_MEM_RESP_BUSY);
	plugged_is(f, 0);
	f->owner.plug_result = 0;
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 4, VIRTIO_MEM_RESP_ACK);
	f->owner.unplug_result = -EBUSY;
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 0, 1, VIRTIO_MEM_RESP_BUSY);
	answers(f, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0, VIRTIO_MEM_RESP_BUSY);
	plugged_is(f, 4);
	f->owner.unplug_result = 1; /* gone, but the host has not got it back */
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 0, 1, VIRTIO_MEM_RESP_ACK);
	plugged_is(f, 3);
	assert_int_equal(virtio_mem_metrics(f->dev)->unplug_discard_fails, 1);
	assert_int_equal(virtio_mem_metrics(f->dev)->unplug_fails, 1);
	assert_int_equal(virtio_mem_metrics(f->dev)->unplug_all_fails, 1);
}

/* A driver that has its rings, or the response, in what it wants to unplug would have us write where nothing is. */
static void what_the_answer_needs_does_not_go(void **state)
{
	struct fixture *f = *state;
	uint8_t *host = aligned_alloc(4096, REGION);
	struct virtio_mem_req req = {.type = VIRTIO_MEM_REQ_UNPLUG, .u.unplug = {.addr = ADDR + BLOCK, .nb_blocks = 1}};
	struct virtio_mem_resp *resp = (struct virtio_mem_resp *)(host + 2 * BLOCK - sizeof(*resp));
	struct driver_buf bufs[] = {{guest_put(&f->g, &req, sizeof(req)), sizeof(req), false},
		{ADDR + 2 * BLOCK - sizeof(*resp), sizeof(*resp), true}};
	struct driver_queue inside = {.guest = &f->g, .size = 8};

	assert_int_equal(gmem_add(&f->g.mem, ADDR, REGION, host), 0);
	request(f, 8);
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 3, VIRTIO_MEM_RESP_ACK);
	driver_add(&f->q, bufs, 2);
	driver_kick(&f->d, 0);
	assert_int_equal(resp->type, VIRTIO_MEM_RESP_BUSY);
	plugged_is(f, 3);

	/* The used ring in the third block. */
	memset(host, 0, REGION);
	inside.desc = guest_alloc(&f->g, 128, 16);
	inside.avail = guest_alloc(&f->g, 64, 16);
	inside.used = ADDR + 2 * BLOCK;
	inside.desc_table = guest_ptr(&f->g, inside.desc);
	inside.avail_ring = guest_ptr(&f->g, inside.avail);
	inside.used_ring = guest_ptr(&f->g, inside.used);
	f->q = inside;
	assert_int_equal(driver_start(&f->d, FEATURES, &f->q, 1), LIVE);
	plugged_is(f, 3); /* the reset changed nothing */
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 2, 1, VIRTIO_MEM_RESP_BUSY);
	answers(f, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0, VIRTIO_MEM_RESP_BUSY);
	answers(f, VIRTIO_MEM_REQ_UNPLUG, 0, 2, VIRTIO_MEM_RESP_ACK);
	plugged_is(f, 1);
	driver_reset(&f->d);
	free(host);
}

static void requests_that_cannot_be_answered_break_the_device(void **state)
{
	struct fixture *f = *state;
	struct virtio_mem_req plug = {.type = VIRTIO_MEM_REQ_STATE}, unknown = {.type = 4};
	gpa_t good = guest_put(&f->g, &plug, sizeof(plug)), bad = guest_put(&f->g, &unknown, sizeof(unknown));
	gpa_t resp = guest_alloc(&f->g, 64, 16);
	const struct driver_buf wrong[][2] = {
		{{good, 23, false}, {resp, 10, true}},
		{{good, 24, false}, {resp, 9, true}},
		{{good, 24, false}, {resp, 0, true}},
		{{bad, 24, false}, {resp, 10, true}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		driver_queue_init(&f->q, &f->g, 16);
		assert_int_equal(driver_start(&f->d, FEATURES, &f->q, 1), LIVE);
		driver_add(&f->q, wrong[i], 2);
		driver_kick(&f->d, 0);
		assert_int_equal(driver_status(&f->d), LIVE | VIRTIO_STATUS_NEEDS_RESET);
		assert_int_equal(f->q.used_ring->idx, 0);
		assert_int_equal(virtio_mem_metrics(f->dev)->queue_event_fails, i + 1);
	}
}

static void a_request_may_be_cut_anywhere(void **state)
{
	struct fixture *f = *state;
	struct virtio_mem_req req = {.type = VIRTIO_MEM_REQ_PLUG, .u.plug = {.addr = ADDR, .nb_blocks = 2}};
	gpa_t out = guest_put(&f->g, &req, sizeof(req)), in = guest_alloc(&f->g, 64, 16);
	struct driver_buf bufs[] = {{out, 1, false}, {out + 1, 9, false}, {out + 10, 14, false}, {in, 1, true}, {in + 1, 63, true}};

	request(f, 2);
	memset(guest_ptr(&f->g, in), 0xff, 64);
	driver_add(&f->q, bufs, 5);
	driver_kick(&f->d, 0);
	assert_int_equal(*(uint16_t *)guest_ptr(&f->g, in), VIRTIO_MEM_RESP_ACK);
	plugged_is(f, 2);
}

static void what_is_requested_has_limits(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtio_mem_request(f->dev, REGION + BLOCK, &f->err), -EINVAL);
	assert_string_equal(f->err.field, "requested_size_mib");
	assert_int_equal(virtio_mem_request(f->dev, UINT64_MAX, &f->err), -EINVAL);
	assert_int_equal(virtio_mem_request(f->dev, BLOCK + 4096, &f->err), -EINVAL);
	assert_int_equal(config_space(f).requested_size, 0);
	driver_reset(&f->d);
	assert_int_equal(virtio_mem_request(f->dev, BLOCK, &f->err), -EAGAIN);
	assert_int_equal(config_space(f).requested_size, 0);
}

/* ---- save and load ---- */

static void save(struct fixture *f, struct state_writer *w)
{
	virtio_dev_quiesce(f->dev);
	state_writer_init(w);
	virtio_mem_save_blocks(f->dev, w);
	virtio_dev_save(f->dev, w);
	stop_device(f);
}

static int load(struct fixture *f, const struct state_writer *w, int plug_result)
{
	struct state_reader r;
	int result;

	memset(&f->owner, 0, sizeof(f->owner));
	f->owner.plug_result = plug_result;
	f->err = (struct error){0};
	start_device(f);
	state_reader_init(&r, w->buf.data, w->buf.len);
	result = virtio_mem_load_blocks(f->dev, &r, &f->err);
	return result < 0 ? result : virtio_dev_load(f->dev, &r, &f->err);
}

static void a_load_plugs_what_was_plugged_and_goes_on(void **state)
{
	struct fixture *f = *state;
	struct virtio_mem_req req = {.type = VIRTIO_MEM_REQ_PLUG, .u.plug = {.addr = ADDR + 3 * BLOCK, .nb_blocks = 1}};
	gpa_t in = guest_alloc(&f->g, 16, 16);
	struct driver_buf bufs[] = {{guest_put(&f->g, &req, sizeof(req)), sizeof(req), false}, {in, 16, true}};
	struct state_writer w;
	uint32_t len;
	uint16_t head;

	request(f, 5);
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 1, VIRTIO_MEM_RESP_ACK);
	answers(f, VIRTIO_MEM_REQ_PLUG, 6, 2, VIRTIO_MEM_RESP_ACK);
	driver_add(&f->q, bufs, 2); /* nobody has looked at it yet */
	save(f, &w);
	assert_int_equal(load(f, &w, 0), 0);
	assert_true(f->owner.there[0] && f->owner.there[6] && f->owner.there[7]);
	plugged_is(f, 3);
	assert_int_equal(config_space(f).requested_size, 5 * BLOCK);
	virtio_dev_resume(f->dev);
	assert_true(driver_get_used(&f->q, &head, &len));
	plugged_is(f, 4);
	is_in_state(f, 3, 1, VIRTIO_MEM_STATE_PLUGGED);
	state_writer_done(&w);
}

static void a_load_that_fails_leaves_nothing_plugged(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;

	request(f, 5);
	answers(f, VIRTIO_MEM_REQ_PLUG, 0, 1, VIRTIO_MEM_RESP_ACK);
	answers(f, VIRTIO_MEM_REQ_PLUG, 6, 2, VIRTIO_MEM_RESP_ACK);
	save(f, &w);
	assert_int_equal(load(f, &w, -ENOMEM), -ENOMEM);
	plugged_is(f, 0);
	assert_int_equal(config_space(f).requested_size, 0);
	state_writer_done(&w);
}

/* Sections as a liar would have them; only one of their fields is wrong. */
static void refuses_saved(struct fixture *f, uint64_t usable, uint64_t requested, uint64_t plugged, uint64_t blocks,
	uint64_t block_bytes, const char *reason)
{
	static const uint8_t core[2 + 3 * 4 + 8 + 4];
	struct state_writer w;

	state_writer_init(&w);
	state_begin(&w, "plugged-blocks", 1);
	state_put_u64(&w, ADDR);
	state_put_u64(&w, REGION);
	state_put_u64(&w, block_bytes);
	state_put_bytes(&w, &blocks, sizeof(blocks));
	state_end(&w);
	state_begin(&w, "virtio-mem", 1);
	for (size_t i = 0; i < sizeof(core); i++)
		state_put_u8(&w, core[i]);
	state_put_u16(&w, 1);
	virtq_save(&f->dev->queues[0], &w);
	state_put_u64(&w, usable);
	state_put_u64(&w, requested);
	state_put_u64(&w, plugged);
	state_end(&w);
	stop_device(f);
	assert_int_equal(load(f, &w, 0), reason ? -EINVAL : 0);
	if (reason)
		assert_non_null(strstr(f->err.message, reason));
	driver_reset(&f->d);
	state_writer_done(&w);
}

static void what_no_save_could_say_is_refused(void **state)
{
	struct fixture *f = *state;

	driver_reset(&f->d);
	refuses_saved(f, REGION, 8 * BLOCK, 8 * BLOCK, 0xff, BLOCK, NULL);
	refuses_saved(f, REGION, BLOCK, 0, 0x100, BLOCK, "beyond its region");
	refuses_saved(f, 2 * BLOCK, BLOCK, BLOCK, 0x4, BLOCK, "impossible"); /* beyond what was usable */
	refuses_saved(f, REGION + BLOCK, BLOCK, 0, 0, BLOCK, "impossible");
	refuses_saved(f, BLOCK + 1, BLOCK, 0, 0, BLOCK, "impossible");
	refuses_saved(f, BLOCK, 2 * BLOCK, 0, 0, BLOCK, "impossible");
	refuses_saved(f, REGION, BLOCK, 0, 0, 2 * BLOCK, "other blocks");
	refuses_saved(f, REGION, BLOCK, 2 * BLOCK, 1, BLOCK, "has 4 MiB plugged");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_driver_is_told_what_there_is),
		TEST(a_driver_must_know_that_unplugged_is_not_there),
		TEST(memory_is_plugged_and_unplugged_block_by_block),
		TEST(no_more_is_plugged_than_is_requested),
		TEST(what_makes_no_sense_is_an_error),
		TEST(what_cannot_be_now_may_be_tried_again),
		TEST(what_the_answer_needs_does_not_go),
		TEST(requests_that_cannot_be_answered_break_the_device),
		TEST(a_request_may_be_cut_anywhere),
		TEST(what_is_requested_has_limits),
		TEST(a_load_plugs_what_was_plugged_and_goes_on),
		TEST(a_load_that_fails_leaves_nothing_plugged),
		TEST(what_no_save_could_say_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
