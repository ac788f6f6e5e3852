/* virtio-console: what the guest prints goes out in order and as the other side has room, input fills what the guest offers. */
#include "tests/unit/virtq_driver.h"

#include "devices/virtio_console.h"

#include <linux/virtio_console.h>

#define LIVE 15u
#define RX   0
#define TX   1

struct fixture {
	struct loop *loop;
	struct guest g;
	struct virtio_dev *dev;
	struct driver d;
	struct driver_queue q[2];
	struct error err;

	uint8_t *printed; /* what came out */
	size_t n_printed, room; /* room: how much is taken before the device is told to wait */
	unsigned n_ready;
};

#define PRINTED_MAX (1u << 20)

static bool transmit(void *ctx, const void *data, size_t len)
{
	struct fixture *f = ctx;

	assert_true(f->n_printed + len <= PRINTED_MAX);
	memcpy(f->printed + f->n_printed, data, len);
	f->n_printed += len;
	f->room -= len < f->room ? len : f->room;
	return f->room > 0;
}

static void receive_ready(void *ctx)
{
	((struct fixture *)ctx)->n_ready++;
}

static const struct virtio_console_ops ops = {transmit, receive_ready};

static void start_device(struct fixture *f)
{
	f->dev = virtio_console_new(&ops, f, f->loop, &f->g.mem, &f->err);
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
	f->printed = malloc(PRINTED_MAX);
	f->room = SIZE_MAX;
	guest_init(&f->g, 4 << 20);
	for (unsigned i = 0; i < 2; i++)
		driver_queue_init(&f->q[i], &f->g, 64);
	start_device(f);
	assert_int_equal(driver_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX, f->q, 2), LIVE);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop_device(f);
	loop_free(f->loop);
	guest_done(&f->g);
	free(f->printed);
	free(f);
	return 0;
}

/* A buffer of `len` bytes, each telling its place. */
static struct driver_buf text(struct fixture *f, uint32_t len)
{
	struct driver_buf buf = {guest_alloc(&f->g, len, 16), len, false};
	uint8_t *bytes = guest_ptr(&f->g, buf.gpa);

	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i + i / 251);
	return buf;
}

static void assert_used(struct fixture *f, unsigned q, uint16_t expected_head, uint32_t expected_len)
{
	uint16_t head;
	uint32_t len;

	assert_true(driver_get_used(&f->q[q], &head, &len));
	assert_int_equal(head, expected_head);
	assert_int_equal(len, expected_len);
}

static void assert_nothing_used(struct fixture *f, unsigned q)
{
	uint16_t head;
	uint32_t len;

	assert_false(driver_get_used(&f->q[q], &head, &len));
}

static void what_is_printed_comes_out_in_order(void **state)
{
	struct fixture *f = *state;
	gpa_t hello = guest_put(&f->g, "hello, ", 7), world = guest_put(&f->g, "world", 5), end = guest_put(&f->g, "\n", 1);
	struct driver_buf first[] = {{hello, 7, false}, {world, 5, false}}, second = {end, 1, false};
	uint16_t heads[] = {driver_add(&f->q[TX], first, 2), driver_add(&f->q[TX], &second, 1)};

	driver_kick(&f->d, TX);
	assert_int_equal(f->n_printed, 13);
	assert_memory_equal(f->printed, "hello, world\n", 13);
	assert_used(f, TX, heads[0], 0);
	assert_used(f, TX, heads[1], 0);
	assert_int_equal(f->d.interrupts[TX], 1);
}

static void a_buffer_waits_in_the_ring_while_there_is_no_room(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = text(f, 10000);
	uint16_t head = driver_add(&f->q[TX], &buf, 1);

	f->room = 1;
	driver_kick(&f->d, TX);
	assert_int_equal(f->n_printed, 4096);
	driver_kick(&f->d, TX); /* the driver's impatience changes nothing */
	assert_int_equal(f->n_printed, 4096);
	assert_nothing_used(f, TX);
	f->room = 1;
	virtio_console_room(f->dev);
	assert_int_equal(f->n_printed, 8192);
	f->room = 1;
	virtio_console_room(f->dev); /* the last piece takes the room, and is all */
	assert_used(f, TX, head, 0);
	assert_int_equal(f->n_printed, 10000);
	assert_memory_equal(f->printed, guest_ptr(&f->g, buf.gpa), 10000);
	/* The next one starts from its own beginning. */
	head = driver_add(&f->q[TX], &buf, 1);
	driver_kick(&f->d, TX);
	assert_nothing_used(f, TX);
	f->room = SIZE_MAX;
	virtio_console_room(f->dev);
	assert_used(f, TX, head, 0);
	assert_memory_equal(f->printed + 10000, guest_ptr(&f->g, buf.gpa), 10000);
}

static void a_guest_that_prints_much_does_not_keep_the_loop(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = text(f, 300000);
	uint16_t head = driver_add(&f->q[TX], &buf, 1), used;
	uint32_t len;

	driver_kick(&f->d, TX);
	assert_int_equal(f->n_printed, 64 << 10);
	assert_true(driver_wait_used(&f->d, &f->q[TX], &used, &len));
	assert_int_equal(used, head);
	assert_int_equal(f->n_printed, 300000);
	assert_memory_equal(f->printed, guest_ptr(&f->g, buf.gpa), 300000);
}

static void input_fills_what_the_guest_offers(void **state)
{
	struct fixture *f = *state;
	struct driver_buf bufs[] = {{guest_alloc(&f->g, 4, 16), 4, true}, {guest_alloc(&f->g, 100, 16), 100, true}};
	uint16_t heads[2];
	unsigned ready = f->n_ready;

	assert_true(ready > 0); /* at its start: somebody may have typed before */
	assert_int_equal(virtio_console_receive(f->dev, "early", 5), 0);
	for (unsigned i = 0; i < 2; i++)
		heads[i] = driver_add(&f->q[RX], &bufs[i], 1);
	driver_kick(&f->d, RX);
	assert_int_equal(f->n_ready, ready + 1);
	assert_int_equal(virtio_console_receive(f->dev, "some input", 10), 10);
	assert_used(f, RX, heads[0], 4);
	assert_used(f, RX, heads[1], 6);
	assert_memory_equal(guest_ptr(&f->g, bufs[0].gpa), "some", 4);
	assert_memory_equal(guest_ptr(&f->g, bufs[1].gpa), " input", 6);
	assert_true(f->d.interrupts[RX] > 0);
	assert_int_equal(virtio_console_receive(f->dev, "more", 4), 0);
	heads[0] = driver_add(&f->q[RX], &bufs[0], 1);
	driver_kick(&f->d, RX);
	assert_int_equal(f->n_ready, ready + 2);
	assert_int_equal(virtio_console_receive(f->dev, "a lot more", 10), 4);
	assert_used(f, RX, heads[0], 4);
}

static void malformed_buffers_break_it(void **state)
{
	struct fixture *f = *state;
	gpa_t data = guest_alloc(&f->g, 64, 16);
	static const struct {
		unsigned queue;
		bool write;
		uint32_t len;
	} cases[] = {{TX, true, 16}, {RX, false, 16}, {RX, true, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct driver_buf bad = {data, cases[i].len, cases[i].write};

		for (unsigned q = 0; q < 2; q++)
			driver_queue_init(&f->q[q], &f->g, 64);
		driver_start(&f->d, 0, f->q, 2);
		driver_add(&f->q[cases[i].queue], &bad, 1);
		driver_kick(&f->d, (uint16_t)cases[i].queue);
		assert_int_equal(virtio_console_receive(f->dev, "x", 1), 0);
		assert_int_equal(driver_status(&f->d), LIVE | VIRTIO_STATUS_NEEDS_RESET);
		assert_int_equal(virtio_console_receive(f->dev, "x", 1), 0);
		virtio_console_room(f->dev);
	}
	assert_int_equal(f->n_printed, 0);
	/* A reset mends it. */
	for (unsigned q = 0; q < 2; q++)
		driver_queue_init(&f->q[q], &f->g, 64);
	assert_int_equal(driver_start(&f->d, 0, f->q, 2), LIVE);
}

static void an_index_that_runs_away_breaks_it(void **state)
{
	struct fixture *f = *state;

	driver_publish(&f->q[RX], 64);
	assert_int_equal(virtio_console_receive(f->dev, "x", 1), 0);
	assert_int_equal(driver_status(&f->d), LIVE | VIRTIO_STATUS_NEEDS_RESET);
	for (unsigned q = 0; q < 2; q++)
		driver_queue_init(&f->q[q], &f->g, 64);
	driver_start(&f->d, 0, f->q, 2);
	driver_publish(&f->q[TX], 64);
	driver_kick(&f->d, TX);
	assert_int_equal(driver_status(&f->d), LIVE | VIRTIO_STATUS_NEEDS_RESET);
}

static void an_empty_buffer_is_printed_at_once(void **state)
{
	struct fixture *f = *state;
	struct driver_buf empty = {guest_alloc(&f->g, 16, 16), 0, false};
	uint16_t head = driver_add(&f->q[TX], &empty, 1);

	driver_kick(&f->d, TX);
	assert_used(f, TX, head, 0);
	assert_int_equal(f->n_printed, 0);
}

static void its_configuration_says_nothing(void **state)
{
	struct fixture *f = *state;
	struct virtio_console_config config;

	memset(&config, 0xff, sizeof(config));
	virtio_dev_enter(f->dev);
	assert_int_equal(virtio_dev_features(f->dev) & 0xffffff, 0);
	virtio_dev_config_read(f->dev, 0, &config, sizeof(config));
	virtio_dev_config_write(f->dev, 8, "xxxx", 4);
	virtio_dev_leave(f->dev);
	assert_int_equal(config.cols, 0);
	assert_int_equal(config.max_nr_ports, 0);
	assert_int_equal(f->n_printed, 0);
}

/* In the middle of a buffer. */
static void printing_goes_on_after_a_load(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = text(f, 10000), input = {guest_alloc(&f->g, 16, 16), 16, true};
	uint16_t head = driver_add(&f->q[TX], &buf, 1), input_head = driver_add(&f->q[RX], &input, 1);
	struct state_writer w;
	struct state_reader r;
	unsigned ready;

	f->room = 1;
	driver_kick(&f->d, TX);
	assert_int_equal(f->n_printed, 4096);
	virtio_dev_quiesce(f->dev);
	virtio_console_room(f->dev);
	assert_int_equal(virtio_console_receive(f->dev, "x", 1), 0);
	assert_int_equal(f->n_printed, 4096);
	state_writer_init(&w);
	virtio_dev_save(f->dev, &w);
	stop_device(f);
	start_device(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_dev_load(f->dev, &r, &f->err), 0);
	f->room = SIZE_MAX;
	ready = f->n_ready;
	virtio_dev_resume(f->dev);
	assert_int_equal(f->n_ready, ready + 1);
	assert_used(f, TX, head, 0);
	assert_int_equal(f->n_printed, 10000);
	assert_memory_equal(f->printed, guest_ptr(&f->g, buf.gpa), 10000);
	assert_int_equal(virtio_console_receive(f->dev, "x", 1), 1);
	assert_used(f, RX, input_head, 1);
	state_writer_done(&w);
}

/* What was saved may lie. */
static void more_sent_than_there_is_is_all_sent(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = text(f, 10000), small = text(f, 10);
	uint16_t head = driver_add(&f->q[TX], &buf, 1);

	f->room = 1;
	driver_kick(&f->d, TX);
	driver_set_desc(&f->q[TX], head, small.gpa, small.len, 0, 0);
	f->room = SIZE_MAX;
	virtio_console_room(f->dev);
	assert_used(f, TX, head, 0);
	assert_int_equal(f->n_printed, 4096);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_printed_comes_out_in_order),
		TEST(a_buffer_waits_in_the_ring_while_there_is_no_room),
		TEST(a_guest_that_prints_much_does_not_keep_the_loop),
		TEST(input_fills_what_the_guest_offers),
		TEST(malformed_buffers_break_it),
		TEST(an_index_that_runs_away_breaks_it),
		TEST(an_empty_buffer_is_printed_at_once),
		TEST(its_configuration_says_nothing),
		TEST(printing_goes_on_after_a_load),
		TEST(more_sent_than_there_is_is_all_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
