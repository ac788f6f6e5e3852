/* virtio-pmem: who waits for which flush, and what becomes of it in a reset, a save and at the end. The engine is one that the
 * test finishes by hand, and once a real one. */
#include "tests/unit/virtq_driver.h"

#include "devices/blk_io.h"
#include "devices/virtio_pmem.h"

#include <errno.h>
#include <linux/virtio_pmem.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIVE 15u

#define START UINT64_C(0x180000000)
#define SIZE  (UINT64_C(2) << 20)

/* ---- an engine by hand ---- */

static struct {
	struct blk_backend engine;
	bool is_real;
	unsigned started, freed;
	struct blk_io *under_way;
	bool is_done;
	int submit_result;
} hand;

struct blk_backend *__real_blk_engine_new(int fd, unsigned depth, bool async, const char *path);
struct blk_backend *__wrap_blk_engine_new(int fd, unsigned depth, bool async, const char *path);

static bool hand_start(struct blk_backend *engine, struct blk_io *io)
{
	(void)engine;
	assert_int_equal(io->op, BLK_OP_FLUSH);
	assert_null(hand.under_way);
	hand.under_way = io;
	hand.is_done = false;
	hand.started++;
	return false;
}

static int hand_submit(struct blk_backend *engine)
{
	(void)engine;
	return hand.submit_result;
}

static struct blk_io *hand_reap(struct blk_backend *engine, bool wait)
{
	struct blk_io *io = hand.is_done || wait ? hand.under_way : NULL;

	(void)engine;
	if (io)
		hand.under_way = NULL;
	return io;
}

static void hand_free(struct blk_backend *engine)
{
	assert_null(hand.under_way);
	close(engine->event_fd);
	hand.freed++;
}

struct blk_backend *__wrap_blk_engine_new(int fd, unsigned depth, bool async, const char *path)
{
	static const struct blk_backend_ops ops = {"by hand", hand_start, hand_submit, hand_reap, hand_free};

	if (hand.is_real)
		return __real_blk_engine_new(fd, depth, async, path);
	hand.engine = (struct blk_backend){&ops, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	return &hand.engine;
}

/* ---- a device, its driver ---- */

struct fixture {
	struct loop *loop;
	struct guest g;
	struct virtio_dev *dev;
	struct driver d;
	struct driver_queue q;
	int fd;
	struct rate_limiter_config limiter;
	struct error err;
};

static struct virtio_dev *new_device(struct fixture *f, uint64_t size_bytes)
{
	struct virtio_pmem_setup setup = {
		.path = "/file", .fd = f->fd, .file_bytes = 1000, .start = START, .size_bytes = size_bytes, .limiter = &f->limiter};

	return virtio_pmem_new(&setup, f->loop, &f->g.mem, &f->err);
}

static void start_device(struct fixture *f)
{
	f->dev = new_device(f, SIZE);
	assert_non_null(f->dev);
	driver_init(&f->d, f->dev, f->loop);
}

static void stop_device(struct fixture *f)
{
	driver_done(&f->d);
	virtio_dev_free(f->dev);
	assert_int_equal(hand.freed, hand.is_real ? 0 : 1);
	hand.freed = 0;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	memset(&hand, 0, sizeof(hand));
	f->fd = memfd_create("file", MFD_CLOEXEC);
	f->loop = loop_new();
	guest_init(&f->g, 1 << 20);
	driver_queue_init(&f->q, &f->g, 64);
	start_device(f);
	assert_int_equal(driver_start(&f->d, 1ull << VIRTIO_RING_F_EVENT_IDX, &f->q, 1), LIVE);
	*state = f;
	return 0;
}

static int setup_real(void **state)
{
	struct fixture *f;

	setup(state);
	f = *state;
	stop_device(f);
	hand.is_real = true;
	start_device(f);
	driver_queue_init(&f->q, &f->g, 64);
	assert_int_equal(driver_start(&f->d, 0, &f->q, 1), LIVE);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop_device(f);
	loop_free(f->loop);
	guest_done(&f->g);
	close(f->fd);
	free(f);
	return 0;
}

/* Where the answer goes of a request that is made available. */
static uint32_t *add_request(struct fixture *f, uint32_t type)
{
	gpa_t req = guest_put(&f->g, &type, sizeof(type)), ret = guest_put(&f->g, "\xee\xee\xee\xee", 4);
	struct driver_buf bufs[] = {{req, 4, false}, {ret, 4, true}};

	driver_add(&f->q, bufs, 2);
	return guest_ptr(&f->g, ret);
}

static uint32_t *ask(struct fixture *f)
{
	uint32_t *ret = add_request(f, VIRTIO_PMEM_REQ_TYPE_FLUSH);

	driver_kick(&f->d, 0);
	return ret;
}

#define UNANSWERED 0xeeeeeeeeu

static void finish_flush(struct fixture *f, int result)
{
	const uint64_t one = 1;

	assert_non_null(hand.under_way);
	hand.under_way->result = result;
	hand.is_done = true;
	assert_int_equal(write(hand.engine.event_fd, &one, sizeof(one)), sizeof(one));
	driver_run_rounds(&f->d, 2);
}

static const struct pmem_metrics *counted(struct fixture *f)
{
	return virtio_pmem_metrics(f->dev);
}

/* ---- flushes ---- */

static void the_driver_is_told_where_it_is(void **state)
{
	struct fixture *f = *state;
	struct virtio_pmem_config space;

	virtio_dev_enter(f->dev);
	virtio_dev_config_read(f->dev, 0, &space, sizeof(space));
	virtio_dev_config_write(f->dev, 0, &space, 8);
	virtio_dev_leave(f->dev);
	assert_int_equal(space.start, START);
	assert_int_equal(space.size, SIZE);
	assert_int_equal(f->dev->metrics.cfg_fails, 1);
}

static void a_flush_is_answered_when_it_is_over(void **state)
{
	struct fixture *f = *state;
	uint32_t *ret = ask(f), len;
	uint16_t head;

	assert_int_equal(hand.started, 1);
	driver_run_rounds(&f->d, 2);
	assert_int_equal(*ret, UNANSWERED);
	finish_flush(f, 0);
	assert_true(driver_get_used(&f->q, &head, &len));
	assert_int_equal(len, 4);
	assert_int_equal(*ret, 0);
	assert_int_equal(f->d.interrupts[0], 1);
	assert_int_equal(hand.started, 1);
	assert_int_equal(counted(f)->queue_event_count, 1);
	assert_int_equal(counted(f)->event_fails, 0);
}

static void a_flush_that_fails_is_told(void **state)
{
	struct fixture *f = *state;
	uint32_t *ret = ask(f);

	finish_flush(f, -EIO);
	assert_int_not_equal(*ret, 0);
	assert_int_not_equal(*ret, UNANSWERED);
	assert_int_equal(counted(f)->event_fails, 1);
	ret = ask(f);
	finish_flush(f, 0);
	assert_int_equal(*ret, 0);
}

static void who_comes_later_waits_for_the_next(void **state)
{
	struct fixture *f = *state;
	uint32_t *first = add_request(f, VIRTIO_PMEM_REQ_TYPE_FLUSH), *second = ask(f), *third = ask(f), *fourth = ask(f);

	assert_int_equal(hand.started, 1);
	finish_flush(f, 0);
	assert_int_equal(*first | *second, 0); /* one flush for both */
	assert_int_equal(*third, UNANSWERED);
	assert_int_equal(hand.started, 2);
	finish_flush(f, 0);
	assert_int_equal(*third | *fourth, 0);
	assert_int_equal(hand.started, 2);
	assert_int_equal(f->q.used_ring->idx, 4);
}

static void a_full_ring_is_served(void **state)
{
	struct fixture *f = *state;
	uint32_t *ret[32];

	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(ret); i++)
			ret[i] = add_request(f, VIRTIO_PMEM_REQ_TYPE_FLUSH);
		driver_kick(&f->d, 0);
		finish_flush(f, 0);
		for (unsigned i = 0; i < ARRAY_SIZE(ret); i++)
			assert_int_equal(*ret[i], 0);
		assert_int_equal(hand.started, round + 1);
	}
	assert_int_equal(driver_status(&f->d), LIVE);
}

static void what_is_no_flush_fails_in_its_turn(void **state)
{
	struct fixture *f = *state;
	uint32_t *before = add_request(f, VIRTIO_PMEM_REQ_TYPE_FLUSH), *unknown = add_request(f, 1), *after = ask(f);

	finish_flush(f, 0);
	assert_int_equal(*before | *after, 0);
	assert_int_equal(*unknown, UINT32_MAX);
	assert_int_equal(counted(f)->event_fails, 1);
	assert_int_equal(driver_status(&f->d), LIVE);
}

static void requests_that_cannot_be_answered_break_the_device(void **state)
{
	struct fixture *f = *state;
	gpa_t req = guest_alloc(&f->g, 16, 16), ret = guest_alloc(&f->g, 16, 16);
	const struct driver_buf wrong[][2] = {
		{{req, 3, false}, {ret, 4, true}}, {{req, 4, false}, {ret, 3, true}}, {{req, 4, false}, {ret, 0, true}}};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		driver_queue_init(&f->q, &f->g, 16);
		driver_start(&f->d, 0, &f->q, 1);
		add_request(f, VIRTIO_PMEM_REQ_TYPE_FLUSH);
		driver_add(&f->q, wrong[i], 2);
		driver_kick(&f->d, 0);
		assert_int_equal(driver_status(&f->d), LIVE | VIRTIO_STATUS_NEEDS_RESET);
		assert_int_equal(f->q.used_ring->idx, 0);
		assert_int_equal(hand.started, 0);
		assert_int_equal(counted(f)->event_fails, i + 1);
	}
}

static void a_request_may_be_cut_anywhere(void **state)
{
	struct fixture *f = *state;
	uint32_t type = VIRTIO_PMEM_REQ_TYPE_FLUSH;
	gpa_t req = guest_put(&f->g, &type, 4), ret = guest_put(&f->g, "\xee\xee\xee\xee\xee", 5);
	struct driver_buf bufs[] = {{req, 1, false}, {req + 1, 3, false}, {ret, 1, true}, {ret + 1, 0, true}, {ret + 1, 4, true}};

	driver_add(&f->q, bufs, 5);
	driver_kick(&f->d, 0);
	finish_flush(f, 0);
	assert_memory_equal(guest_ptr(&f->g, ret), "\0\0\0\0\xee", 5);
}

static void the_kernel_may_have_no_room(void **state)
{
	struct fixture *f = *state;
	uint32_t *ret;

	hand.submit_result = -EAGAIN;
	ret = ask(f);
	hand.submit_result = 0;
	hand.under_way->result = 0;
	hand.is_done = true; /* which nothing tells: it was not handed over */
	assert_true(driver_run_until(&f->d, driver_queue_has_used, &f->q));
	assert_int_equal(*ret, 0);
}

/* ---- limits ---- */

static void flushes_keep_to_a_limit(void **state)
{
	struct fixture *f = *state;
	struct token_bucket_config slow = {1, 3600000, 0}, none = {0, 0, 0};
	struct rate_limiter_config limit = {.ops = &slow}, no_limit = {.ops = &none};
	uint32_t *ret;

	virtio_pmem_set_limiter(f->dev, &limit);
	ask(f);
	finish_flush(f, 0);
	ret = ask(f);
	driver_run_rounds(&f->d, 3);
	assert_int_equal(hand.started, 1);
	assert_int_equal(counted(f)->rate_limiter_throttled_events, 1);
	virtio_pmem_set_limiter(f->dev, &no_limit);
	driver_run_rounds(&f->d, 2);
	finish_flush(f, 0);
	assert_int_equal(*ret, 0);
	assert_int_equal(counted(f)->rate_limiter_event_count, 1);
}

static void a_flush_counts_as_many_bytes_as_the_file_has(void **state)
{
	struct fixture *f = *state;
	struct token_bucket_config bytes = {1500, 3600000, 0};
	struct rate_limiter_config limit = {.bandwidth = &bytes};

	virtio_pmem_set_limiter(f->dev, &limit);
	for (unsigned i = 0; i < 2; i++) {
		ask(f);
		finish_flush(f, 0);
	}
	ask(f); /* 1500 - 2 * 1000 are left */
	driver_run_rounds(&f->d, 3);
	assert_int_equal(hand.started, 2);
}

/* ---- in mid-operation ---- */

static void a_request_in_flight_holds_its_answer(void **state)
{
	struct fixture *f = *state;
	uint8_t *ret = (uint8_t *)ask(f);

	virtio_dev_enter(f->dev);
	assert_true(virtio_dev_holds(f->dev, ret + 3, 1));
	assert_false(virtio_dev_holds(f->dev, ret + 4, 4));
	virtio_dev_leave(f->dev);
	finish_flush(f, 0);
	virtio_dev_enter(f->dev);
	assert_false(virtio_dev_holds(f->dev, ret, 4));
	virtio_dev_leave(f->dev);
}

static void a_reset_forgets_who_waited(void **state)
{
	struct fixture *f = *state;
	uint32_t *old = ask(f), *ret;

	driver_reset(&f->d);
	driver_queue_init(&f->q, &f->g, 64);
	driver_start(&f->d, 0, &f->q, 1);
	ret = ask(f);
	assert_int_equal(hand.started, 1); /* it may have begun too early for this one */
	finish_flush(f, 0);
	assert_int_equal(*old, UNANSWERED);
	assert_int_equal(*ret, UNANSWERED);
	assert_int_equal(hand.started, 2);
	finish_flush(f, 0);
	assert_int_equal(*ret, 0);
	assert_int_equal(*old, UNANSWERED);
}

static void a_save_puts_who_waited_back(void **state)
{
	struct fixture *f = *state;
	uint32_t *first = ask(f), *second = add_request(f, VIRTIO_PMEM_REQ_TYPE_FLUSH);
	struct state_writer w;
	struct state_reader r;

	virtio_dev_quiesce(f->dev);
	state_writer_init(&w);
	virtio_dev_save(f->dev, &w);
	finish_flush(f, 0);
	assert_int_equal(f->q.used_ring->idx, 0);
	/* Here it goes on … */
	virtio_dev_resume(f->dev);
	assert_int_equal(hand.started, 2);
	finish_flush(f, 0);
	assert_int_equal(*first | *second, 0);
	/* … and where it is loaded too. */
	*first = *second = UNANSWERED;
	memset(f->q.used_ring, 0, 6 + 8 * f->q.size);
	stop_device(f);
	start_device(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_dev_load(f->dev, &r, &f->err), 0);
	assert_int_equal(hand.started, 2);
	virtio_dev_resume(f->dev);
	assert_int_equal(hand.started, 3);
	finish_flush(f, 0);
	assert_int_equal(*first | *second, 0);
	assert_int_equal(f->q.used_ring->idx, 2);
	state_writer_done(&w);
}

static void a_resume_waits_for_the_flush_from_before(void **state)
{
	struct fixture *f = *state;
	uint32_t *ret = ask(f);

	virtio_dev_quiesce(f->dev);
	virtio_dev_resume(f->dev);
	assert_int_equal(hand.started, 1);
	finish_flush(f, 0);
	assert_int_equal(*ret, UNANSWERED);
	finish_flush(f, 0);
	assert_int_equal(*ret, 0);
	assert_int_equal(f->q.used_ring->idx, 1);
}

static void a_load_is_refused_by_a_file_of_another_size(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;

	virtio_dev_quiesce(f->dev);
	state_writer_init(&w);
	virtio_dev_save(f->dev, &w);
	stop_device(f);
	f->dev = new_device(f, 2 * SIZE);
	driver_init(&f->d, f->dev, f->loop);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_dev_load(f->dev, &r, &f->err), -EINVAL);
	assert_string_equal(f->err.field, "path_on_host");
	state_writer_done(&w);
}

static void a_device_is_freed_in_mid_operation(void **state)
{
	struct fixture *f = *state;

	ask(f);
	stop_device(f);
	assert_null(hand.under_way);
	start_device(f);
}

static void a_real_engine_flushes(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		uint32_t *ret = ask(f), len;
		uint16_t head;

		assert_true(driver_wait_used(&f->d, &f->q, &head, &len));
		assert_int_equal(*ret, 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_driver_is_told_where_it_is),
		TEST(a_flush_is_answered_when_it_is_over),
		TEST(a_flush_that_fails_is_told),
		TEST(who_comes_later_waits_for_the_next),
		TEST(a_full_ring_is_served),
		TEST(what_is_no_flush_fails_in_its_turn),
		TEST(requests_that_cannot_be_answered_break_the_device),
		TEST(a_request_may_be_cut_anywhere),
		TEST(the_kernel_may_have_no_room),
		TEST(flushes_keep_to_a_limit),
		TEST(a_flush_counts_as_many_bytes_as_the_file_has),
		TEST(a_request_in_flight_holds_its_answer),
		TEST(a_reset_forgets_who_waited),
		TEST(a_save_puts_who_waited_back),
		TEST(a_resume_waits_for_the_flush_from_before),
		TEST(a_load_is_refused_by_a_file_of_another_size),
		TEST(a_device_is_freed_in_mid_operation),
		cmocka_unit_test_setup_teardown(a_real_engine_flushes, setup_real, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
