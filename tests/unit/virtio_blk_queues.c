/* A disk of several queues, each with a thread: requests side by side, and threads that are brought to rest in the middle of them. */
#include "tests/unit/blk_fixture.h"
#include "tests/unit/queues_driver.h"

#include <errno.h>

#define N	4
#define PART	(DISK_SECTORS / N) /* each queue has its own sectors */
#define F_MQ	12
#define FEATURES (1ull << F_FLUSH | 1ull << F_MQ)

struct world {
	struct fixture *f;
	struct queues_driver d;
	unsigned threads, descriptors; /* before there was a device */
};

static void make(struct world *w)
{
	struct fixture *f = w->f;

	f->dev = new_device(f, false, BLK_CACHE_WRITEBACK);
	assert_non_null(f->dev);
	queues_init(&w->d, f->dev, f->loop, N);
}

static void unmake(struct world *w)
{
	w->f->d = w->d.d; /* which is ended with it */
	stop_device(w->f);
	queues_close(&w->d);
}

static int setup_world(void **state, enum blk_engine engine)
{
	struct world *w = calloc(1, sizeof(*w));

	setup_files((void **)&w->f);
	w->f->engine = engine;
	w->f->n_queues = N;
	w->threads = count_entries("/proc/self/task");
	w->descriptors = count_entries("/proc/self/fd");
	make(w);
	queues_start(&w->d, &w->f->g, FEATURES);
	*state = w;
	return 0;
}

static int setup_threads(void **state)
{
	return setup_world(state, BLK_ENGINE_ASYNC);
}

static int setup_threads_sync(void **state)
{
	return setup_world(state, BLK_ENGINE_SYNC);
}

static int teardown_world(void **state)
{
	struct world *w = *state;

	if (w->f->dev)
		unmake(w);
	assert_int_equal(count_entries("/proc/self/task"), w->threads);
	assert_true(count_entries("/proc/self/fd") <= w->descriptors);
	*state = w->f;
	free(w);
	return teardown(state);
}

static struct made add_to(struct world *w, uint16_t i, uint32_t type, uint64_t sector, const void *out, uint32_t out_len, uint32_t in_len)
{
	return add_on(w->f, &w->d.q[i], type, i * PART + sector, out, out_len, in_len);
}

/* Writes to each part, `n` requests of a sector each; not rung for. */
static void fill(struct world *w, struct made made[N][16], unsigned n, uint8_t seed)
{
	uint8_t data[512];

	for (unsigned k = 0; k < n; k++)
		for (uint16_t i = 0; i < N; i++) {
			memset(data, (int)(seed + i * 16 + k), sizeof(data));
			made[i][k] = add_to(w, i, T_OUT, k, data, sizeof(data), 0);
		}
}

static void ring_all(struct world *w)
{
	for (uint16_t i = 0; i < N; i++)
		queues_kick(&w->d, i);
}

static void wait_for_all(struct world *w, unsigned n)
{
	uint16_t head;
	uint32_t len;

	for (uint16_t i = 0; i < N; i++)
		for (unsigned k = 0; k < n; k++)
			assert_true(queues_wait_used(&w->d, i, &head, &len));
}

static void check_file(struct world *w, unsigned n, uint8_t seed)
{
	uint8_t data[512];

	for (uint16_t i = 0; i < N; i++)
		for (unsigned k = 0; k < n; k++) {
			read_file(w->f, data, sizeof(data), (off_t)(i * PART + k) * 512);
			assert_int_equal(data[0], (uint8_t)(seed + i * 16 + k));
			assert_int_equal(data[511], data[0]);
		}
}

static void each_queue_has_a_thread(void **state)
{
	struct world *w = *state;
	const struct blk_metrics *metrics = virtio_blk_metrics(w->f->dev);
	struct made made[N][16];
	uint16_t n_queues;

	assert_int_equal(count_entries("/proc/self/task"), w->threads + N);
	virtio_dev_enter(w->f->dev);
	assert_true(virtio_dev_features(w->f->dev) >> F_MQ & 1);
	virtio_dev_config_read(w->f->dev, 34, &n_queues, sizeof(n_queues));
	virtio_dev_leave(w->f->dev);
	assert_int_equal(n_queues, N);
	for (uint8_t round = 0; round < 50; round++) {
		fill(w, made, 16, round);
		ring_all(w);
		wait_for_all(w, 16);
		w->f->g.brk = guest_alloc(&w->f->g, 0, 1) > 4 << 20 ? GUEST_BASE + (1 << 20) : w->f->g.brk;
	}
	for (uint16_t i = 0; i < N; i++)
		assert_int_equal(status_of(w->f, made[i][15]), S_OK);
	check_file(w, 16, 49);
	assert_int_equal(metric_read(&metrics->write_count), 50 * 16 * N);
	assert_int_equal(metric_read(&metrics->write_bytes), 50 * 16 * N * 512);
	assert_true(metric_read(&metrics->queue_event_count) >= N);
	assert_int_equal(metric_read(&metrics->execute_fails), 0);
	assert_true(metric_read(&metrics->write_agg.sum_us) >= metric_read(&metrics->write_agg.max_us));
	/* The loop listened to the first doorbells, too, and then does not. */
	virtio_dev_doorbell(w->f->dev, 2);
	assert_true(w->d.deaf[2] && !w->d.deaf[1]);
}

static void a_disk_of_one_queue_has_no_thread(void **state)
{
	struct world *w = *state;

	unmake(w);
	w->f->n_queues = 1;
	w->f->dev = new_device(w->f, false, BLK_CACHE_WRITEBACK);
	assert_int_equal(count_entries("/proc/self/task"), w->threads);
	virtio_dev_enter(w->f->dev);
	assert_false(virtio_dev_features(w->f->dev) >> F_MQ & 1);
	virtio_dev_leave(w->f->dev);
	virtio_dev_free(w->f->dev);
	w->f->dev = NULL;
}

static void a_save_has_all_queues_at_rest(void **state)
{
	struct world *w = *state;
	struct fixture *f = w->f;
	struct made made[N][16];
	struct state_writer writer;
	struct state_reader reader;
	uint16_t used[N];

	fill(w, made, 16, 1);
	ring_all(w);
	virtio_dev_quiesce(f->dev); /* wherever they are */
	for (uint16_t i = 0; i < N; i++)
		used[i] = f->dev->queues[i].next_used;
	ring_all(w); /* which nobody hears, or looks at */
	state_writer_init(&writer);
	virtio_dev_save(f->dev, &writer);
	for (uint16_t i = 0; i < N; i++)
		assert_int_equal(w->d.q[i].used_ring->idx, used[i]);
	unmake(w);

	/* The driver, and what it has in its queues, live on. */
	struct queues_driver before = w->d;
	make(w);
	memcpy(w->d.q, before.q, sizeof(before.q));
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	if (virtio_dev_load(f->dev, &reader, &f->err) < 0)
		fail_msg("%s", f->err.message);
	virtio_dev_resume(f->dev);
	wait_for_all(w, 16);
	check_file(w, 16, 1);
	fill(w, made, 16, 77);
	ring_all(w);
	wait_for_all(w, 16);
	check_file(w, 16, 77);

	/* A disk of fewer queues is another one. */
	unmake(w);
	f->n_queues = 2;
	f->dev = new_device(f, false, BLK_CACHE_WRITEBACK);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(virtio_dev_load(f->dev, &reader, &f->err), -EINVAL);
	assert_non_null(strstr(f->err.message, "has 4 queues instead of 2"));
	virtio_dev_free(f->dev);
	f->dev = NULL;
	state_writer_done(&writer);
}

/* From the moment the status reads 0, guest memory stands still, whatever the threads were at. */
static void a_vcpu_resets_while_the_threads_work(void **state)
{
	struct world *w = *state;
	struct fixture *f = w->f;
	uint8_t *snapshot = malloc(f->g.size);
	unsigned in_flight = 0;

	for (unsigned round = 0; round < 60; round++) {
		struct made made[N][16];

		for (unsigned k = 0; k < 16; k++)
			for (uint16_t i = 0; i < N; i++) {
				made[i][k] = add_to(w, i, T_IN, k, NULL, 0, 4096);
				queues_kick(&w->d, i);
			}
		driver_reset(&w->d.d);
		memcpy(snapshot, f->g.ram, f->g.size);
		for (uint16_t i = 0; i < N; i++)
			for (unsigned k = 0; k < 16; k++)
				in_flight += status_of(f, made[i][k]) == S_NONE;
		ring_all(w);
		driver_run_rounds(&w->d.d, 2);
		assert_memory_equal(snapshot, f->g.ram, f->g.size);
		assert_int_equal(driver_status(&w->d.d), 0);
		f->g.brk = GUEST_BASE;
		memset(f->g.ram, 0, f->g.size);
		queues_start(&w->d, &f->g, FEATURES);
	}
	assert_true(in_flight > 0); /* else this tested nothing */
	free(snapshot);
}

static void what_is_quiesced_goes_on(void **state)
{
	struct world *w = *state;
	struct made made[N][16];

	for (uint8_t round = 0; round < 40; round++) {
		fill(w, made, 8, round);
		ring_all(w);
		virtio_dev_quiesce(w->f->dev);
		for (uint16_t i = 0; i < N; i++)
			assert_int_equal(w->d.q[i].used_ring->idx, w->f->dev->queues[i].next_avail); /* nothing in between */
		virtio_dev_resume(w->f->dev);
		wait_for_all(w, 8);
	}
	check_file(w, 8, 39);
}

static void one_queue_breaks_the_rules_while_the_others_work(void **state)
{
	struct world *w = *state;
	struct made made[N][16];
	uint16_t head, broken_at;
	uint32_t len;

	fill(w, made, 16, 3);
	driver_publish(&w->d.q[1], 1000); /* no such descriptor */
	ring_all(w);
	assert_true(driver_run_until(&w->d.d, queues_needs_reset, &w->d.d));
	assert_int_equal(__atomic_load_n(&w->d.d.config_interrupts, __ATOMIC_SEQ_CST), 1);
	assert_int_equal(w->f->dev->times_broken, 1);
	/* What had been begun is answered. */
	for (unsigned k = 0; k < 16; k++)
		assert_true(queues_wait_used(&w->d, 1, &head, &len));
	/* After that the others do not work either. */
	virtio_dev_quiesce(w->f->dev);
	broken_at = w->d.q[0].used_ring->idx;
	add_to(w, 0, T_IN, 0, NULL, 0, 512);
	ring_all(w);
	virtio_dev_resume(w->f->dev);
	driver_run_rounds(&w->d.d, 2);
	driver_reset(&w->d.d);
	assert_int_equal(w->d.q[0].used_ring->idx, broken_at);
	/* A reset mends it. */
	queues_start(&w->d, &w->f->g, FEATURES);
	fill(w, made, 16, 9);
	ring_all(w);
	wait_for_all(w, 16);
	check_file(w, 16, 9);
	assert_false(queues_needs_reset(&w->d.d));
}

/* What a thread has found is known before the rings are saved, though the loop thread has not heard of it. */
static void a_broken_queue_is_saved_as_broken(void **state)
{
	struct world *w = *state;
	uint16_t head;
	uint32_t len;

	add_to(w, 3, T_IN, 0, NULL, 0, 512);
	driver_publish(&w->d.q[3], 1000);
	queues_kick(&w->d, 3);
	assert_true(queues_wait_used(&w->d, 3, &head, &len));
	virtio_dev_quiesce(w->f->dev);
	assert_true(queues_needs_reset(&w->d.d));
	/* And what a reset has overtaken is forgotten. */
	queues_start(&w->d, &w->f->g, FEATURES);
	driver_publish(&w->d.q[3], 1000);
	queues_kick(&w->d, 3);
	driver_reset(&w->d.d);
	driver_run_rounds(&w->d.d, 2);
	assert_int_equal(driver_status(&w->d.d), 0);
}

static void requests_in_flight_hold_their_buffers(void **state)
{
	struct world *w = *state;
	struct virtio_dev *dev = w->f->dev;
	unsigned in_flight = 0;
	uint16_t head;
	uint32_t len;

	for (int i = 0; i < 2000 && !in_flight; i++) {
		struct made m = add_to(w, 2, T_FLUSH, 0, NULL, 0, 0);
		void *header = guest_ptr(&w->f->g, m.header);

		queues_kick(&w->d, 2);
		virtio_dev_enter(dev);
		in_flight += virtio_dev_holds(dev, header, 16);
		assert_true(virtio_dev_holds(dev, guest_ptr(&w->f->g, w->d.q[3].used), 1));
		virtio_dev_leave(dev);
		assert_true(queues_wait_used(&w->d, 2, &head, &len));
		virtio_dev_enter(dev);
		assert_false(virtio_dev_holds(dev, header, 16));
		virtio_dev_leave(dev);
		w->f->g.brk = w->f->g.brk > 4 << 20 ? GUEST_BASE + (1 << 20) : w->f->g.brk;
	}
	assert_int_equal(in_flight, 1); /* else this tested nothing */
}

static void a_queue_without_a_vector_interrupts_by_the_loop(void **state)
{
	struct world *w = *state;
	uint16_t head;
	uint32_t len;

	driver_reset(&w->d.d);
	w->d.no_vector[1] = true;
	queues_start(&w->d, &w->f->g, FEATURES);
	add_to(w, 1, T_IN, 0, NULL, 0, 512);
	queues_kick(&w->d, 1);
	assert_true(driver_wait_used(&w->d.d, &w->d.q[1], &head, &len));
	while (!__atomic_load_n(&w->d.d.interrupts[1], __ATOMIC_SEQ_CST))
		driver_run_rounds(&w->d.d, 1);
}

/* 40 requests over four queues need 0.3 s of a limit that allows 10 at once and 100 a second; were it one for each queue, no time. */
static void a_limit_is_shared_and_can_be_changed(void **state)
{
	struct world *w = *state;
	struct token_bucket_config ops = {.size = 10, .refill_time = 100}, none = {0};
	struct rate_limiter_config limiter = {.ops = &ops};
	struct made made[N][16];
	uint64_t begun_ns = monotonic_ns();

	virtio_blk_set_limiter(w->f->dev, &limiter);
	fill(w, made, 10, 5);
	ring_all(w);
	wait_for_all(w, 10);
	assert_true(monotonic_ns() - begun_ns >= 250000000);
	assert_true(metric_read(&virtio_blk_metrics(w->f->dev)->rate_limiter_throttled_events) > 0);
	/* What waits for a limit hears that it is gone. */
	ops = (struct token_bucket_config){.size = 1, .refill_time = 1000000};
	virtio_blk_set_limiter(w->f->dev, &limiter);
	fill(w, made, 10, 6);
	ring_all(w);
	limiter.ops = &none;
	virtio_blk_set_limiter(w->f->dev, &limiter);
	wait_for_all(w, 10);
	check_file(w, 10, 6);
}

static void the_file_is_exchanged_while_the_threads_work(void **state)
{
	struct world *w = *state;
	struct fixture *f = w->f;
	struct made made[N][16], m;
	char other[PATH_MAX + 16];
	uint64_t capacity;
	uint16_t head;
	uint32_t len;
	int fd;

	snprintf(other, sizeof(other), "%s/other", f->dir);
	fd = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, DISK_BYTES / 2), 0);
	assert_int_equal(pwrite(fd, "another", 7, 0), 7);
	close(fd);
	fill(w, made, 16, 21);
	ring_all(w);
	assert_int_equal(virtio_blk_set_file(f->dev, other, &f->err), 0);
	wait_for_all(w, 16);
	virtio_dev_enter(f->dev);
	virtio_dev_config_read(f->dev, 0, &capacity, sizeof(capacity));
	virtio_dev_leave(f->dev);
	assert_int_equal(capacity, DISK_SECTORS / 2);
	m = add_on(f, &w->d.q[3], T_IN, DISK_SECTORS / 2, NULL, 0, 512); /* not any more */
	queues_kick(&w->d, 3);
	assert_true(queues_wait_used(&w->d, 3, &head, &len));
	assert_int_equal(status_of(f, m), S_IOERR);
	/* Back again; the other is let go of. */
	assert_int_equal(virtio_blk_set_file(f->dev, "/nowhere", &f->err), -ENOENT);
	assert_int_equal(virtio_blk_set_file(f->dev, f->path, &f->err), 0);
	fill(w, made, 16, 22);
	ring_all(w);
	wait_for_all(w, 16);
	check_file(w, 16, 22);
	fd = virtio_blk_open(other, false, &f->err);
	assert_true(fd >= 0);
	close(fd);
	unlink(other);
}

static void threads_end_in_mid_operation(void **state)
{
	struct world *w = *state;
	struct made made[N][16];

	fill(w, made, 16, 1);
	ring_all(w);
	unmake(w);
	assert_int_equal(count_entries("/proc/self/task"), w->threads);
}

#define THREADS(name)                                                                                                  \
	cmocka_unit_test_setup_teardown(name, setup_threads, teardown_world),                                          \
		{#name " (sync)", name, setup_threads_sync, teardown_world, NULL}

int main(void)
{
	const struct CMUnitTest tests[] = {
		THREADS(each_queue_has_a_thread),
		THREADS(a_disk_of_one_queue_has_no_thread),
		THREADS(a_save_has_all_queues_at_rest),
		THREADS(a_vcpu_resets_while_the_threads_work),
		THREADS(what_is_quiesced_goes_on),
		THREADS(one_queue_breaks_the_rules_while_the_others_work),
		THREADS(a_broken_queue_is_saved_as_broken),
		cmocka_unit_test_setup_teardown(requests_in_flight_hold_their_buffers, setup_threads, teardown_world),
		THREADS(a_queue_without_a_vector_interrupts_by_the_loop),
		THREADS(a_limit_is_shared_and_can_be_changed),
		THREADS(the_file_is_exchanged_while_the_threads_work),
		THREADS(threads_end_in_mid_operation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
