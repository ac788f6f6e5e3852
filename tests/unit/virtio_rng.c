/* virtio-rng: fills what the driver offers, within bounds, and goes on after a load. */
#include "tests/unit/virtq_driver.h"

#include "devices/virtio_rng.h"

#define LIVE 15u

struct fixture {
	struct loop *loop;
	struct guest g;
	struct virtio_dev *dev;
	struct driver d;
	struct driver_queue q;
	struct error err;
};

static void start_device(struct fixture *f)
{
	f->dev = virtio_rng_new(NULL, f->loop, &f->g.mem, &f->err);
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

static void entropy_fills_the_drivers_buffers(void **state)
{
	struct fixture *f = *state;
	gpa_t data = guest_alloc(&f->g, 65536, 16);
	struct driver_buf bufs[] = {{data, 40, true}, {data + 40, 24, true}},
			  large = {data + 64, 65000, true};
	uint8_t zero[64] = {0};
	uint32_t len;
	uint16_t head;

	assert_int_equal(driver_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX, &f->q, 1), LIVE);
	driver_add(&f->q, bufs, 2);
	driver_add(&f->q, &large, 1);
	driver_kick(&f->d, 0);
	assert_true(driver_get_used(&f->q, &head, &len));
	assert_int_equal(len, 64);
	assert_memory_not_equal(guest_ptr(&f->g, data), zero, 64);
	assert_true(driver_get_used(&f->q, &head, &len));
	assert_int_equal(len, 4096); /* the rest is asked for again */
	assert_memory_equal((uint8_t *)guest_ptr(&f->g, data + 64 + 4096), zero, 64);
	assert_int_equal(f->d.interrupts[0], 1);
	assert_int_equal(virtio_rng_metrics(f->dev)->entropy_bytes, 64 + 4096);
	assert_int_equal(virtio_rng_metrics(f->dev)->entropy_event_count, 1);
	assert_int_equal(f->dev->metrics.triggers, 1);
}

static void entropy_into_nothing_is_refused(void **state)
{
	struct fixture *f = *state;
	gpa_t data = guest_alloc(&f->g, 64, 16);
	struct driver_buf bad[] = {{data, 16, false}, {data, 0, true}};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_queue_init(&f->q, &f->g, 64);
		driver_start(&f->d, 0, &f->q, 1);
		driver_add(&f->q, &bad[i], 1);
		driver_kick(&f->d, 0);
		assert_int_equal(driver_status(&f->d), LIVE | VIRTIO_STATUS_NEEDS_RESET);
		assert_int_equal(f->q.used_ring->idx, 0);
		assert_int_equal(virtio_rng_metrics(f->dev)->entropy_event_fails, i + 1);
		assert_int_equal(f->dev->metrics.config_updates, i + 1);
	}
}

static void entropy_goes_on_after_a_load(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = {guest_alloc(&f->g, 64, 16), 64, true};
	struct state_writer w;
	struct state_reader r;

	driver_start(&f->d, 0, &f->q, 1);
	virtio_dev_quiesce(f->dev);
	driver_add(&f->q, &buf, 1);
	driver_kick(&f->d, 0);
	state_writer_init(&w);
	virtio_dev_save(f->dev, &w);
	stop_device(f);
	assert_int_equal(f->q.used_ring->idx, 0);
	start_device(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_dev_load(f->dev, &r, &f->err), 0);
	virtio_dev_resume(f->dev); /* finds the request whose doorbell was lost */
	assert_int_equal(f->q.used_ring->idx, 1);
	assert_int_equal(f->d.interrupts[0], 1);
	state_writer_done(&w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(entropy_fills_the_drivers_buffers),
		TEST(entropy_into_nothing_is_refused),
		TEST(entropy_goes_on_after_a_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
