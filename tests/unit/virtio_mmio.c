/* The virtio core and its mmio transport, driven register by register, by a driver that keeps the rules and by one that
 * does not; with a device of the test's own. */
#include "tests/unit/virtio_probe.h"
#include "tests/unit/virtq_driver.h"

#include "devices/virtio_mmio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_mmio.h>
#include <unistd.h>

struct fixture {
	struct loop *loop;
	struct guest g;
	struct probe *probe;
	struct virtio_mmio *mmio;
	struct driver_queue q[2];
	bool freed;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->loop = loop_new();
	guest_init(&f->g, 1 << 20);
	f->probe = new_probe(&f->g.mem, &f->freed);
	f->mmio = virtio_mmio_new(&f->probe->dev, f->loop, &f->err);
	assert_non_null(f->mmio);
	driver_queue_init(&f->q[0], &f->g, 64);
	driver_queue_init(&f->q[1], &f->g, 128);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_mmio_free(f->mmio);
	loop_free(f->loop);
	guest_done(&f->g);
	free(f);
	return 0;
}

/* ---- registers ---- */

static uint32_t rd(struct fixture *f, uint32_t offset)
{
	uint32_t value = 0xa5a5a5a5;

	virtio_mmio_read(f->mmio, offset, &value, sizeof(value));
	return value;
}

static void wr(struct fixture *f, uint32_t offset, uint32_t value)
{
	virtio_mmio_write(f->mmio, offset, &value, sizeof(value));
}

static uint32_t set_status(struct fixture *f, uint32_t status)
{
	wr(f, VIRTIO_MMIO_STATUS, status);
	return rd(f, VIRTIO_MMIO_STATUS);
}

static void accept_features(struct fixture *f, uint64_t features)
{
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
}

static uint64_t offered_features(struct fixture *f)
{
	uint64_t features;

	wr(f, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	features = (uint64_t)rd(f, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	wr(f, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return features | rd(f, VIRTIO_MMIO_DEVICE_FEATURES);
}

static void write_queue(struct fixture *f, unsigned i)
{
	const struct driver_queue *q = &f->q[i];

	wr(f, VIRTIO_MMIO_QUEUE_SEL, i);
	wr(f, VIRTIO_MMIO_QUEUE_NUM, q->size);
	wr(f, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)q->desc);
	wr(f, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(q->desc >> 32));
	wr(f, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)q->avail);
	wr(f, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(q->avail >> 32));
	wr(f, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)q->used);
	wr(f, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(q->used >> 32));
	wr(f, VIRTIO_MMIO_QUEUE_READY, 1);
}

#define LIVE 15u

static void start(struct fixture *f)
{
	assert_int_equal(set_status(f, 0), 0);
	assert_int_equal(set_status(f, 1), 1);
	assert_int_equal(set_status(f, 3), 3);
	accept_features(f, offered_features(f));
	assert_int_equal(set_status(f, 11), 11);
	for (unsigned i = 0; i < f->probe->dev.ops->n_queues; i++) {
		write_queue(f, i);
		assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 1);
	}
	assert_int_equal(set_status(f, LIVE), LIVE);
}

/* Runs what has happened on the loop's descriptors. */
static void stop_loop(void *loop)
{
	loop_stop(loop);
}

static void run_loop(struct fixture *f)
{
	struct loop_source *timer = loop_add_timer(f->loop, stop_loop, f->loop);

	/* A timer of no delay is due in a round of its own, after the descriptors that are ready now. */
	loop_timer_arm(timer, 1000000);
	assert_int_equal(loop_run(f->loop), 0);
	loop_remove(timer);
}

static unsigned interrupts(struct fixture *f)
{
	uint64_t n = 0;

	return read(virtio_mmio_interrupt_fd(f->mmio), &n, sizeof(n)) == sizeof(n) ? (unsigned)n : 0;
}

/* ---- a driver that keeps the rules ---- */

static void the_page_identifies_the_device(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rd(f, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(rd(f, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(rd(f, VIRTIO_MMIO_DEVICE_ID), 42);
	assert_int_equal(rd(f, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	wr(f, VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_NUM_MAX), 128);
	wr(f, VIRTIO_MMIO_QUEUE_SEL, 2);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	assert_int_equal(offered_features(f), 1ull << VIRTIO_F_VERSION_1 | 1u << VIRTIO_RING_F_EVENT_IDX |
						      1u << VIRTIO_RING_F_INDIRECT_DESC | 1u << PROBE_FEATURE);
	wr(f, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(rd(f, VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

static void the_status_sequence_activates_and_a_zero_resets(void **state)
{
	struct fixture *f = *state;

	start(f);
	assert_int_equal(f->probe->activated, 1);
	assert_true(f->probe->dev.queues[1].event_idx && f->probe->dev.queues[1].indirect);
	assert_int_equal(f->probe->dev.queues[0].size, 64);
	assert_int_equal(set_status(f, LIVE), LIVE); /* again: nothing new */
	assert_int_equal(f->probe->activated, 1);
	assert_int_equal(set_status(f, 0), 0);
	assert_int_equal(f->probe->was_reset, 1);
	wr(f, VIRTIO_MMIO_QUEUE_SEL, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(f->probe->dev.driver_features, 0);
	assert_int_equal(set_status(f, 0), 0); /* not active: nothing to stop */
	assert_int_equal(f->probe->was_reset, 1);
	start(f);
	assert_int_equal(f->probe->activated, 2);
}

static void doorbells_ring_on_the_loop(void **state)
{
	struct fixture *f = *state;
	const uint64_t one = 1;

	start(f);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 1); /* as an exit */
	assert_int_equal(f->probe->doorbells[1], 0);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[1], 1);
	assert_int_equal(write(virtio_mmio_doorbell_fd(f->mmio, 0), &one, 8), 8); /* as KVM does */
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 1);
	run_loop(f); /* an edge, not a level */
	assert_int_equal(f->probe->doorbells[0], 1);
	assert_int_equal(write(virtio_mmio_doorbell_fd(f->mmio, 0), &one, 8), 8);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 2);
}

static void push_one(struct fixture *f, unsigned q)
{
	virtio_dev_enter(&f->probe->dev);
	virtq_push(&f->probe->dev.queues[q], 0, 0);
	virtio_dev_notify(&f->probe->dev, (uint16_t)q);
	virtio_dev_leave(&f->probe->dev);
}

static void every_interrupt_is_an_edge_until_acknowledged(void **state)
{
	struct fixture *f = *state;

	start(f);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	push_one(f, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	assert_int_equal(interrupts(f), 1);
	f->q[0].avail_ring->ring[64] = 1; /* used_event: the next one, too */
	push_one(f, 0); /* the bit is still set, and the line pulses all the same */
	assert_int_equal(interrupts(f), 1);
	virtio_dev_enter(&f->probe->dev);
	virtio_dev_config_changed(&f->probe->dev);
	virtio_dev_leave(&f->probe->dev);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	wr(f, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	set_status(f, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

static void the_generation_moves_with_the_configuration(void **state)
{
	struct fixture *f = *state;
	uint32_t before = rd(f, VIRTIO_MMIO_CONFIG_GENERATION);

	virtio_dev_enter(&f->probe->dev);
	virtio_dev_config_changed(&f->probe->dev);
	virtio_dev_leave(&f->probe->dev);
	assert_int_not_equal(rd(f, VIRTIO_MMIO_CONFIG_GENERATION), before);
	assert_int_equal(interrupts(f), 0); /* not before DRIVER_OK */
}

static void configuration_space_takes_any_width_inside_it(void **state)
{
	struct fixture *f = *state;
	uint64_t value = 0x1122334455667788, got = 0;
	uint8_t byte = 0x99;

	virtio_mmio_write(f->mmio, 0x100, &value, 8);
	virtio_mmio_write(f->mmio, 0x10b, &byte, 1);
	virtio_mmio_read(f->mmio, 0x100, &got, 8);
	assert_int_equal(got, value);
	got = 0;
	virtio_mmio_read(f->mmio, 0x102, &got, 2);
	assert_int_equal(got, 0x5566);
	assert_int_equal(rd(f, 0x108), 0x99000000);
	assert_int_equal(rd(f, 0x10a), 0); /* across its end */
	wr(f, 0x10a, UINT32_MAX);
	assert_int_equal(rd(f, 0x108), 0x99000000);
	assert_int_equal(rd(f, 0xffc), 0);
}

/* ---- one that does not ---- */

static void status_bits_out_of_order_are_not_taken(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(set_status(f, 2), 0); /* DRIVER before ACKNOWLEDGE */
	assert_int_equal(set_status(f, 4), 0); /* DRIVER_OK before all */
	assert_int_equal(set_status(f, 1), 1);
	assert_int_equal(set_status(f, 1 | 8), 1); /* FEATURES_OK before DRIVER */
	assert_int_equal(set_status(f, 3), 3);
	assert_int_equal(set_status(f, 7), 3); /* DRIVER_OK before FEATURES_OK */
	assert_int_equal(set_status(f, 1), 3); /* taking one back */
	assert_int_equal(set_status(f, 3 | 64), 3); /* NEEDS_RESET is not the driver's */
	assert_int_equal(set_status(f, 3 | 128), 131);
	assert_int_equal(f->probe->activated, 0);
}

static void features_ok_is_refused_for_what_was_not_offered(void **state)
{
	struct fixture *f = *state;

	set_status(f, 1);
	set_status(f, 3);
	accept_features(f, 1u << PROBE_FEATURE); /* no VERSION_1: a legacy driver */
	assert_int_equal(set_status(f, 11), 3);
	accept_features(f, 1ull << VIRTIO_F_VERSION_1 | 1u << 6);
	assert_int_equal(set_status(f, 11), 3);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
	wr(f, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	accept_features(f, 1ull << VIRTIO_F_VERSION_1);
	assert_int_equal(set_status(f, 11), 11);
	accept_features(f, UINT64_MAX); /* too late */
	assert_int_equal(f->probe->dev.driver_features, 1ull << VIRTIO_F_VERSION_1);
}

static void a_queue_that_cannot_be_is_not_ready(void **state)
{
	struct fixture *f = *state;

	f->q[0].desc = GUEST_BASE + f->g.size;
	set_status(f, 1);
	set_status(f, 3);
	write_queue(f, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), 3 | VIRTIO_STATUS_NEEDS_RESET);
	set_status(f, 0);
	f->q[0].size = 256; /* more than offered */
	write_queue(f, 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	wr(f, VIRTIO_MMIO_QUEUE_NUM, 0x10000 + 64); /* and not cut to 16 bits */
	wr(f, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	wr(f, VIRTIO_MMIO_QUEUE_SEL, 7); /* none */
	write_queue(f, 0);
	wr(f, VIRTIO_MMIO_QUEUE_SEL, UINT32_MAX);
	wr(f, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void a_live_queue_does_not_move(void **state)
{
	struct fixture *f = *state;

	start(f);
	wr(f, VIRTIO_MMIO_QUEUE_SEL, 0);
	wr(f, VIRTIO_MMIO_QUEUE_DESC_LOW, 0);
	wr(f, VIRTIO_MMIO_QUEUE_NUM, 2);
	assert_int_equal(f->probe->dev.queues[0].desc, f->q[0].desc);
	assert_int_equal(f->probe->dev.queues[0].size, 64);
	wr(f, VIRTIO_MMIO_QUEUE_READY, 0); /* taken away under the device */
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), LIVE | VIRTIO_STATUS_NEEDS_RESET);
	wr(f, VIRTIO_MMIO_QUEUE_READY, 1); /* and not put back */
	assert_int_equal(rd(f, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void doorbells_before_driver_ok_are_nothing(void **state)
{
	struct fixture *f = *state;

	for (uint32_t i = 0; i < 10000; i++)
		wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, i % 5 ? 0 : i);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, UINT32_MAX);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 0);
	start(f);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 0);
}

static void odd_accesses_find_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t data[16];
	static const uint32_t widths[] = {0, 1, 2, 3, 5, 8, 16};

	for (uint32_t offset = 0; offset < VIRTIO_MMIO_SIZE; offset++)
		for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
			if (offset >= 0x100 && offset < 0x10c)
				continue;
			memset(data, 0xff, sizeof(data));
			virtio_mmio_write(f->mmio, offset, data, widths[i]);
			virtio_mmio_read(f->mmio, offset, data, widths[i]);
			for (uint32_t b = 0; b < widths[i]; b++)
				assert_int_equal(data[b], 0);
		}
	assert_int_equal(rd(f, 0x002), 0); /* unaligned */
	wr(f, VIRTIO_MMIO_STATUS + 2, UINT32_MAX);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), 0);
	virtio_mmio_read(f->mmio, UINT64_MAX, data, 4);
	virtio_mmio_write(f->mmio, UINT64_MAX - 1, data, 4);
}

/* Every register, every value a generator comes up with: nothing to see but that it ends, and can be used again. */
static void random_register_writes_end_well(void **state)
{
	struct fixture *f = *state;
	uint64_t x = 88172645463325252ull;

	for (int i = 0; i < 200000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		wr(f, (uint32_t)(x >> 8) % 0x110 & ~3u,
			x & 1 ? (uint32_t)(x >> 40) & 15 : (uint32_t)(x >> 32));
		rd(f, (uint32_t)(x >> 16) % 0x110 & ~3u);
	}
	start(f);
}

static void a_device_that_cannot_start_says_so(void **state)
{
	struct fixture *f = *state;

	f->probe->activate_result = -ENOMEM;
	set_status(f, 1);
	set_status(f, 3);
	accept_features(f, 1ull << VIRTIO_F_VERSION_1);
	set_status(f, 11);
	assert_int_equal(set_status(f, LIVE), LIVE | VIRTIO_STATUS_NEEDS_RESET);
	assert_int_equal(interrupts(f), 1);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	set_status(f, 0);
	assert_int_equal(f->probe->was_reset, 0); /* it never began */
}

static void a_broken_device_hears_nothing_until_reset(void **state)
{
	struct fixture *f = *state;

	start(f);
	virtio_dev_enter(&f->probe->dev);
	virtio_dev_broken(&f->probe->dev, "the test says so");
	virtio_dev_broken(&f->probe->dev, "twice");
	virtio_dev_leave(&f->probe->dev);
	assert_int_equal(interrupts(f), 1);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 0);
	start(f);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 1);
}

/* ---- save and load ---- */

static void save(struct fixture *f, struct state_writer *w)
{
	virtio_dev_quiesce(&f->probe->dev);
	state_writer_init(w);
	virtio_mmio_save(f->mmio, w);
}

static void replace_device(struct fixture *f)
{
	f->freed = false;
	virtio_mmio_free(f->mmio);
	assert_true(f->freed);
	f->probe = new_probe(&f->g.mem, &f->freed);
	f->mmio = virtio_mmio_new(&f->probe->dev, f->loop, &f->err);
}

static void a_live_device_is_saved_and_loaded(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;

	start(f);
	push_one(f, 1);
	f->probe->own_state = 4711;
	save(f, &w);
	assert_int_equal(f->probe->quiesced, 1);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 0); /* at rest */
	replace_device(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_mmio_load(f->mmio, &r, &f->err), 0);
	assert_int_equal(r.pos, w.buf.len);
	assert_int_equal(f->probe->own_state, 4711);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), LIVE);
	assert_int_equal(rd(f, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	assert_int_equal(interrupts(f), 1); /* not acknowledged when it was saved */
	assert_int_equal(f->probe->activated, 0);
	assert_int_equal(f->probe->dev.queues[1].next_used, 1);
	virtio_dev_resume(&f->probe->dev);
	assert_int_equal(f->probe->resumed, 1);
	wr(f, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	run_loop(f);
	assert_int_equal(f->probe->doorbells[0], 1);
	set_status(f, 0);
	assert_int_equal(f->probe->was_reset, 1);
	state_writer_done(&w);
}

static void state_that_cannot_be_is_refused(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;

	start(f);
	f->probe->own_state = 666;
	save(f, &w);
	replace_device(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_mmio_load(f->mmio, &r, &f->err), -EINVAL);
	assert_int_equal(rd(f, VIRTIO_MMIO_STATUS), 0);
	assert_int_equal(f->probe->was_reset, 0);
	state_writer_done(&w);

	f->probe->dev.driver_features = UINT64_MAX; /* accepted, says the file; never offered */
	f->probe->dev.status = LIVE;
	save(f, &w);
	replace_device(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_mmio_load(f->mmio, &r, &f->err), -EINVAL);
	state_writer_done(&w);

	f->probe->dev.active = true; /* active without DRIVER_OK */
	save(f, &w);
	f->probe->dev.active = false;
	replace_device(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_mmio_load(f->mmio, &r, &f->err), -EINVAL);
	state_writer_done(&w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_page_identifies_the_device),
		TEST(the_status_sequence_activates_and_a_zero_resets),
		TEST(doorbells_ring_on_the_loop),
		TEST(every_interrupt_is_an_edge_until_acknowledged),
		TEST(the_generation_moves_with_the_configuration),
		TEST(configuration_space_takes_any_width_inside_it),
		TEST(status_bits_out_of_order_are_not_taken),
		TEST(features_ok_is_refused_for_what_was_not_offered),
		TEST(a_queue_that_cannot_be_is_not_ready),
		TEST(a_live_queue_does_not_move),
		TEST(doorbells_before_driver_ok_are_nothing),
		TEST(odd_accesses_find_nothing),
		TEST(random_register_writes_end_well),
		TEST(a_device_that_cannot_start_says_so),
		TEST(a_broken_device_hears_nothing_until_reset),
		TEST(a_live_device_is_saved_and_loaded),
		TEST(state_that_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
