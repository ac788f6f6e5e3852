/* virtio-blk, with both engines: what is read is what was written, and what is refused leaves the disk alone. */
#include "tests/unit/blk_fixture.h"

#include "common/accounting.h"

#include <sys/stat.h>

/* What the device states, and takes at most in one request. */
#define SIZE_MAX_BYTES 32768u
#define SEG_MAX	       254u

/* ---- what an honest driver gets ---- */

static void what_is_written_is_read(void **state)
{
	struct fixture *f = *state;
	uint8_t data[4096], file[4096];
	const struct blk_metrics *counts;
	struct accounting before = *accounting;
	struct made m;
	uint32_t len;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 512);
	assert_int_equal(do_write(f, 8, data, sizeof(data)), S_OK);
	read_file(f, file, sizeof(file), 8 * 512);
	assert_memory_equal(file, data, sizeof(data));
	m = add(f, T_IN, 8, NULL, 0, sizeof(data));
	assert_int_equal(run(f, m, &len), S_OK);
	assert_int_equal(len, sizeof(data) + 1);
	assert_memory_equal(guest_ptr(&f->g, m.data), data, sizeof(data));
	assert_int_equal(run(f, add(f, T_FLUSH, 0, NULL, 0, 0), &len), S_OK);
	assert_int_equal(len, 1);
	counts = virtio_blk_metrics(f->dev);
	assert_int_equal(counts->write_count, 1);
	assert_int_equal(counts->write_bytes, sizeof(data));
	assert_int_equal(counts->read_count, 1);
	assert_int_equal(counts->read_bytes, sizeof(data));
	assert_int_equal(counts->flush_count, 1);
	assert_int_equal(accounting->disk_written_bytes - before.disk_written_bytes, sizeof(data));
	assert_int_equal(accounting->disk_writes - before.disk_writes, 1);
	assert_int_equal(accounting->disk_read_bytes - before.disk_read_bytes, sizeof(data));
	assert_int_equal(accounting->disk_reads - before.disk_reads, 1);
	assert_int_equal(accounting->disk_flushes - before.disk_flushes, 1);
	assert_int_equal(counts->queue_event_count, 3);
	assert_int_equal(counts->invalid_reqs_count + counts->execute_fails + counts->no_avail_buffer, 0);
	assert_in_range(counts->read_agg.max_us, counts->read_agg.min_us, counts->read_agg.sum_us);
}

/* 2.7.4.1: the device must not assume how a request is cut into descriptors. */
static void framing_is_the_drivers_choice(void **state)
{
	struct fixture *f = *state;
	struct header header = {T_OUT, 0, 3};
	gpa_t h = guest_put(&f->g, &header, sizeof(header)), data = guest_alloc(&f->g, 2048, 16), in;
	uint8_t file[1024];
	struct driver_buf out_bufs[] = {{h, 7, false}, {h + 7, 9, false}, {data, 1000, false},
		{data + 1000, 24, false}, {data + 1024, 1, true}};
	struct driver_buf in_bufs[] = {
		{0, 16, false}, {data + 1100, 512, true}, {data + 1612, 257, true}, {data + 1869, 256, true}};
	uint32_t len;
	uint16_t head;

	memset(guest_ptr(&f->g, data), 0x5a, 1024);
	driver_add(&f->q, out_bufs, 5);
	driver_kick(&f->d, 0);
	assert_true(driver_wait_used(&f->d, &f->q, &head, &len));
	read_file(f, file, sizeof(file), 3 * 512);
	assert_memory_equal(file, guest_ptr(&f->g, data), sizeof(file));
	/* Header and data in one buffer; data and status in one, too. */
	header.type = T_IN;
	in_bufs[0].gpa = guest_put(&f->g, &header, sizeof(header));
	in = data + 1100;
	driver_add(&f->q, in_bufs, 4);
	driver_kick(&f->d, 0);
	assert_true(driver_wait_used(&f->d, &f->q, &head, &len));
	assert_int_equal(len, 1025);
	assert_memory_equal(file, guest_ptr(&f->g, in), sizeof(file));
	assert_int_equal(*(uint8_t *)guest_ptr(&f->g, in + 1024), S_OK);
}

static void the_serial_is_the_drive_id(void **state)
{
	struct fixture *f = *state;
	struct made m = add(f, T_GET_ID, 0, NULL, 0, 20);
	uint32_t len;

	assert_int_equal(run(f, m, &len), S_OK);
	assert_int_equal(len, 21);
	assert_memory_equal(guest_ptr(&f->g, m.data), "serial-number-of-mor", 20);
}

static void discard_and_zeroes_read_back_as_zero(void **state)
{
	struct fixture *f = *state;
	uint8_t ones[65536], file[65536];
	struct stat before, after;
	const size_t third = 32 * 512;

	memset(ones, 1, sizeof(ones));
	assert_int_equal(do_write(f, 0, ones, sizeof(ones)), S_OK);
	assert_int_equal(run(f, add(f, T_FLUSH, 0, NULL, 0, 0), NULL), S_OK);
	stat(f->path, &before);
	assert_int_equal(do_range(f, T_DISCARD, 0, 32, 0), S_OK);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, 32, 32, 0), S_OK);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, 64, 32, 1), S_OK);
	stat(f->path, &after);
	read_file(f, file, sizeof(file), 0);
	for (size_t i = 0; i < sizeof(file); i++)
		assert_int_equal(file[i], i >= 3 * third);
	assert_int_equal(after.st_size, DISK_BYTES);
	assert_true(after.st_blocks < before.st_blocks);
}

static void the_configuration_space_tells_of_the_disk(void **state)
{
	struct fixture *f = *state;
	uint64_t capacity;
	uint32_t size_max, seg_max, blk_size, word = 0xffffffff;

	virtio_dev_enter(f->dev);
	virtio_dev_config_read(f->dev, 0, &capacity, 8);
	virtio_dev_config_read(f->dev, 8, &size_max, 4);
	virtio_dev_config_read(f->dev, 12, &seg_max, 4);
	virtio_dev_config_read(f->dev, 20, &blk_size, 4);
	assert_int_equal(capacity, DISK_SECTORS);
	assert_int_equal(virtio_dev_features(f->dev) & 6, 6); /* SIZE_MAX and SEG_MAX: the two count */
	assert_int_equal(size_max, SIZE_MAX_BYTES);
	assert_int_equal(seg_max, SEG_MAX);
	assert_int_equal(blk_size, 512);
	virtio_dev_config_read(f->dev, 58, &word, 4); /* beyond its end: zeroes */
	assert_int_equal(word, 0);
	virtio_dev_config_write(f->dev, 0, &word, 4); /* nothing in it is the driver's */
	virtio_dev_config_read(f->dev, 0, &capacity, 8);
	assert_int_equal(capacity, DISK_SECTORS);
	virtio_dev_leave(f->dev);
}

static bool all_used(void *ctx)
{
	const struct fixture *f = ctx;

	return __atomic_load_n(&f->q.used_ring->idx, __ATOMIC_ACQUIRE) == f->q.next_avail;
}

static void a_batch_takes_one_doorbell(void **state)
{
	struct fixture *f = *state;
	uint8_t data[512], file[512];
	struct made made[32];

	for (unsigned i = 0; i < 32; i++) {
		memset(data, (int)i + 1, sizeof(data));
		made[i] = add(f, T_OUT, i * 3, data, sizeof(data), 0);
	}
	driver_kick(&f->d, 0);
	assert_true(driver_run_until(&f->d, all_used, f));
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(status_of(f, made[i]), S_OK);
		read_file(f, file, sizeof(file), i * 3 * 512);
		assert_int_equal(file[511], i + 1);
	}
	assert_true(f->d.interrupts[0] >= 1 && f->d.interrupts[0] <= 32);
	if (f->engine == BLK_ENGINE_SYNC)
		assert_int_equal(f->d.interrupts[0], 1);
}

/* ---- what is refused ---- */

static void requests_off_the_disk_fail(void **state)
{
	struct fixture *f = *state;
	uint8_t data[1024] = {1}, *all = malloc(DISK_BYTES), *zero = calloc(1, DISK_BYTES);

	assert_int_equal(do_write(f, DISK_SECTORS, data, 512), S_IOERR);
	assert_int_equal(do_write(f, DISK_SECTORS - 1, data, 1024), S_IOERR);
	assert_int_equal(do_write(f, UINT64_MAX, data, 1024), S_IOERR);
	assert_int_equal(do_write(f, 1ull << 55, data, 512), S_IOERR); /* wraps as bytes */
	assert_int_equal(do_write(f, 0, data, 511), S_IOERR);
	assert_int_equal(run(f, add(f, T_OUT, 0, NULL, 0, 0), NULL), S_IOERR);
	assert_int_equal(run(f, add(f, T_IN, DISK_SECTORS, NULL, 0, 512), NULL), S_IOERR);
	assert_int_equal(do_range(f, T_DISCARD, DISK_SECTORS - 1, 2, 0), S_IOERR);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, UINT64_MAX, 1, 0), S_IOERR);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, 0, UINT32_MAX, 0), S_IOERR);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, 0, 0, 0), S_IOERR);
	read_file(f, all, DISK_BYTES, 0);
	assert_memory_equal(all, zero, DISK_BYTES);
	assert_int_equal(virtio_blk_metrics(f->dev)->invalid_reqs_count, 11);
	assert_int_equal(do_write(f, DISK_SECTORS - 2, data, 1024), S_OK);
	free(all);
	free(zero);
}

/* A transfer of SEG_MAX segments, the last of them `last_len` bytes; all but that lie in the same memory. */
static uint8_t run_longest(struct fixture *f, uint32_t type, uint32_t last_len, uint32_t *ret_len)
{
	struct header header = {type, 0, 0};
	struct driver_buf bufs[SEG_MAX + 2] = {{guest_put(&f->g, &header, sizeof(header)), sizeof(header), false}};
	uint8_t none = S_NONE;
	gpa_t data = guest_alloc(&f->g, 2 * SIZE_MAX_BYTES, 16);
	struct made m = {.status = guest_put(&f->g, &none, 1)};

	for (unsigned i = 1; i <= SEG_MAX; i++)
		bufs[i] = (struct driver_buf){data, i < SEG_MAX ? SIZE_MAX_BYTES : last_len, type == T_IN};
	memset(guest_ptr(&f->g, data), 1, last_len);
	bufs[SEG_MAX + 1] = (struct driver_buf){m.status, 1, true};
	m.head = driver_add(&f->q, bufs, SEG_MAX + 2);
	return run(f, m, ret_len);
}

/* A reset waits for what is in flight, so that is bounded. */
static void a_request_beyond_the_stated_limits_fails(void **state)
{
	struct fixture *f = *state;
	const off_t longest = (off_t)SEG_MAX * SIZE_MAX_BYTES;
	struct stat st;
	uint32_t len;

	stop_device(f);
	assert_int_equal(truncate(f->path, 0), 0);
	assert_int_equal(truncate(f->path, 2 * longest), 0);
	f->dev = new_device(f, false, BLK_CACHE_WRITEBACK);
	driver_init(&f->d, f->dev, f->loop);
	driver_queue_init(&f->q, &f->g, SEG_MAX + 2);
	driver_start(&f->d, 1ull << F_FLUSH, &f->q, 1); /* one that does not look at SIZE_MAX */

	assert_int_equal(run_longest(f, T_OUT, SIZE_MAX_BYTES + 512, &len), S_IOERR);
	assert_int_equal(len, 1);
	assert_int_equal(run_longest(f, T_IN, SIZE_MAX_BYTES + 512, &len), S_IOERR);
	assert_int_equal(len, 1);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_blocks, 0);

	assert_int_equal(run_longest(f, T_OUT, SIZE_MAX_BYTES, &len), S_OK);
	assert_int_equal(run_longest(f, T_IN, SIZE_MAX_BYTES, &len), S_OK);
	assert_int_equal(len, longest + 1);
	assert_int_equal(driver_status(&f->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

static void unknown_requests_are_unsupported(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(run(f, add(f, 2, 0, NULL, 0, 0), NULL), S_UNSUPP);
	assert_int_equal(run(f, add(f, 14, 0, NULL, 0, 16), NULL), S_UNSUPP);
	assert_int_equal(run(f, add(f, UINT32_MAX, 0, NULL, 0, 0), NULL), S_UNSUPP);
	assert_int_equal(do_range(f, T_DISCARD, 0, 8, 1), S_UNSUPP);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, 0, 8, 2), S_UNSUPP);
	assert_int_equal(driver_status(&f->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

static void expect_broken(struct fixture *f)
{
	uint16_t used = f->q.used_ring->idx;

	driver_kick(&f->d, 0);
	assert_int_equal(driver_status(&f->d) & VIRTIO_STATUS_NEEDS_RESET, VIRTIO_STATUS_NEEDS_RESET);
	assert_int_equal(f->d.config_interrupts, 1);
	assert_int_equal(f->q.used_ring->idx, used);
	driver_kick(&f->d, 0); /* no one listens any more */
	assert_int_equal(f->d.config_interrupts, 1);
}

static void a_request_without_status_byte_breaks_the_device(void **state)
{
	struct fixture *f = *state;
	gpa_t h = guest_alloc(&f->g, 1024, 16);
	struct driver_buf bufs[] = {{h, 16, false}, {h + 16, 512, false}};

	driver_add(&f->q, bufs, 2);
	expect_broken(f);
	restart(f);
}

static void a_request_with_a_short_header_breaks_the_device(void **state)
{
	struct fixture *f = *state;
	gpa_t h = guest_alloc(&f->g, 1024, 16);
	struct driver_buf bufs[] = {{h, 15, false}, {h + 16, 513, true}};

	driver_add(&f->q, bufs, 2);
	expect_broken(f);
	restart(f);
}

static void a_buffer_outside_memory_breaks_the_device(void **state)
{
	struct fixture *f = *state;
	gpa_t h = guest_alloc(&f->g, 1024, 16);
	struct driver_buf bufs[] = {{h, 16, false}, {UINT64_MAX - 100, 512, true}, {h + 600, 1, true}};

	driver_add(&f->q, bufs, 3);
	expect_broken(f);
	restart(f);
}

static void an_index_that_runs_away_breaks_the_device(void **state)
{
	struct fixture *f = *state;

	f->q.avail_ring->idx = 129;
	expect_broken(f);
	restart(f);
}

static void a_read_only_disk_is_not_written(void **state)
{
	struct fixture *f;
	uint8_t data[512] = {1}, file[512], zero[512] = {0};

	setup_files(state);
	f = *state;
	start_device(f, true, BLK_CACHE_WRITEBACK, 0); /* F_RO not accepted by the driver */
	assert_true(virtio_dev_features(f->dev) >> F_RO & 1);
	assert_false(virtio_dev_features(f->dev) >> F_DISCARD & 1);
	assert_int_equal(do_write(f, 0, data, 512), S_IOERR);
	assert_int_equal(do_range(f, T_DISCARD, 0, 8, 0), S_IOERR);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, 0, 8, 0), S_IOERR);
	read_file(f, file, 512, 0);
	assert_memory_equal(file, zero, 512);
	assert_int_equal(run(f, add(f, T_IN, 0, NULL, 0, 512), NULL), S_OK);
	assert_int_equal(run(f, add(f, T_FLUSH, 0, NULL, 0, 0), NULL), S_OK);
}

static void an_unsafe_disk_offers_no_flush(void **state)
{
	struct fixture *f;

	setup_files(state);
	f = *state;
	start_device(f, false, BLK_CACHE_UNSAFE, 0);
	assert_false(virtio_dev_features(f->dev) >> F_FLUSH & 1);
	assert_int_equal(run(f, add(f, T_FLUSH, 0, NULL, 0, 0), NULL), S_UNSUPP);
}

static void a_driver_without_flush_gets_durable_writes(void **state)
{
	struct fixture *f = *state;
	uint8_t data[512] = {7}, file[512];

	driver_queue_init(&f->q, &f->g, 128);
	driver_start(&f->d, 1ull << F_DISCARD, &f->q, 1);
	assert_int_equal(do_write(f, 8, data, 512), S_OK);
	assert_int_equal(do_range(f, T_WRITE_ZEROES, 9, 1, 1), S_OK); /* and a flush behind it */
	read_file(f, file, 512, 8 * 512);
	assert_memory_equal(file, data, 512);
}

static void a_disk_that_shrank_fails_reads(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(truncate(f->path, 512 * 10), 0);
	assert_int_equal(run(f, add(f, T_IN, 100, NULL, 0, 4096), NULL), S_IOERR);
	assert_int_equal(run(f, add(f, T_IN, 6, NULL, 0, 4096), NULL), S_IOERR); /* a part is there */
	assert_int_equal(run(f, add(f, T_IN, 0, NULL, 0, 4096), NULL), S_OK);
}

#define BOTH(name)                                                                                           \
	cmocka_unit_test_setup_teardown(name, setup_async, teardown),                                        \
		{#name " (sync)", name, setup_sync, teardown, NULL}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(what_is_written_is_read),
		BOTH(framing_is_the_drivers_choice),
		BOTH(the_serial_is_the_drive_id),
		BOTH(discard_and_zeroes_read_back_as_zero),
		BOTH(the_configuration_space_tells_of_the_disk),
		BOTH(a_batch_takes_one_doorbell),
		BOTH(requests_off_the_disk_fail),
		BOTH(a_request_beyond_the_stated_limits_fails),
		BOTH(unknown_requests_are_unsupported),
		BOTH(a_request_without_status_byte_breaks_the_device),
		BOTH(a_request_with_a_short_header_breaks_the_device),
		BOTH(a_buffer_outside_memory_breaks_the_device),
		BOTH(an_index_that_runs_away_breaks_the_device),
		cmocka_unit_test_setup_teardown(a_read_only_disk_is_not_written, NULL, teardown),
		cmocka_unit_test_setup_teardown(an_unsafe_disk_offers_no_flush, NULL, teardown),
		BOTH(a_driver_without_flush_gets_durable_writes),
		BOTH(a_disk_that_shrank_fails_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
