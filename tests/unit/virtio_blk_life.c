/* A disk's life, with both engines: what may be opened, and requests in flight at a save, a reset and the end. */
#include "tests/unit/blk_fixture.h"

#include "devices/blk_io.h"
#include "devices/virtio_mmio.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ---- in mid-operation ---- */

static void fill_queue(struct fixture *f, struct made *made, unsigned n)
{
	uint8_t *data = malloc(32768);

	for (unsigned i = 0; i < n; i++) {
		memset(data, (int)i + 1, 32768);
		made[i] = add(f, T_OUT, i * 64, data, 32768, 0);
	}
	free(data);
	driver_kick(&f->d, 0);
}

static void a_save_waits_for_requests_in_flight(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;
	struct made made[16], later;
	uint8_t last;
	uint32_t len;
	uint16_t head;

	fill_queue(f, made, 16);
	virtio_dev_quiesce(f->dev);
	assert_int_equal(f->q.used_ring->idx, 16);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(status_of(f, made[i]), S_OK);
	/* Made available after the quiesce: stays in the ring, and is found by whoever resumes. */
	add(f, T_GET_ID, 0, NULL, 0, 20);
	later = add(f, T_IN, 0, NULL, 0, 512);
	driver_kick(&f->d, 0);
	assert_int_equal(f->q.used_ring->idx, 16);
	state_writer_init(&w);
	virtio_dev_save(f->dev, &w);
	stop_device(f);

	f->dev = new_device(f, false, BLK_CACHE_WRITEBACK);
	driver_init(&f->d, f->dev, f->loop);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_dev_load(f->dev, &r, &f->err), 0);
	driver_kick(&f->d, 0);
	assert_int_equal(f->q.used_ring->idx, 16); /* not before */
	virtio_dev_resume(f->dev);
	f->q.last_used = 16;
	assert_true(driver_wait_used(&f->d, &f->q, &head, &len));
	assert_true(driver_wait_used(&f->d, &f->q, &head, &len));
	assert_int_equal(status_of(f, later), S_OK);
	read_file(f, &last, 1, 16 * 32768 - 1);
	assert_int_equal(last, 16);
	assert_int_equal(do_write(f, 0, guest_ptr(&f->g, later.data), 512), S_OK);
	state_writer_done(&w);
}

static void a_disk_whose_file_has_grown_is_as_large_as_it_was(void **state)
{
	uint64_t before, after;
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;

	f->dev->ops->config_read(f->dev, 0, &before, sizeof(before));
	virtio_dev_quiesce(f->dev);
	assert_int_equal(f->dev->ops->sync(f->dev, &f->err), 0);
	state_writer_init(&w);
	virtio_dev_save(f->dev, &w);
	stop_device(f);
	assert_int_equal(truncate(f->path, 2 * DISK_BYTES), 0);
	state_reader_init(&r, w.buf.data, w.buf.len);
	f->dev = new_device(f, false, BLK_CACHE_WRITEBACK);
	driver_init(&f->d, f->dev, f->loop);
	assert_int_equal(virtio_dev_load(f->dev, &r, &f->err), 0);
	f->dev->ops->config_read(f->dev, 0, &after, sizeof(after));
	assert_int_equal(after, before);
	state_writer_done(&w);
}

static void a_save_is_refused_by_a_smaller_disk(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;

	virtio_dev_quiesce(f->dev);
	state_writer_init(&w);
	virtio_dev_save(f->dev, &w);
	stop_device(f);
	assert_int_equal(truncate(f->path, DISK_BYTES / 2), 0);
	f->dev = new_device(f, false, BLK_CACHE_WRITEBACK);
	driver_init(&f->d, f->dev, f->loop);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_dev_load(f->dev, &r, &f->err), -EINVAL);
	assert_string_equal(f->err.field, "path_on_host");
	assert_int_equal(driver_status(&f->d), 0);
	state_writer_done(&w);
}

/* After a reset the guest's memory is its own again: whatever was under way has ended or never happens. */
static void a_reset_waits_for_the_kernel(void **state)
{
	struct fixture *f = *state;
	struct made made[16], m;
	uint16_t used;
	uint8_t *snapshot = malloc(f->g.size);

	for (int round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 16; i++)
			made[i] = add(f, T_IN, i * 64, NULL, 0, 4096);
		driver_kick(&f->d, 0);
		driver_reset(&f->d);
		used = f->q.used_ring->idx;
		memcpy(snapshot, f->g.ram, f->g.size);
		loop_post(f->loop, driver_on_deadline, &f->d);
		loop_run(f->loop); /* completion events left over find nothing */
		assert_memory_equal(snapshot, f->g.ram, f->g.size);
		assert_int_equal(f->q.used_ring->idx, used);
		assert_int_equal(driver_status(&f->d), 0);
		f->g.brk = GUEST_BASE;
		driver_queue_init(&f->q, &f->g, 128);
		memset(f->g.ram, 0, 65536);
		driver_start(&f->d, 0, &f->q, 1);
		m = add(f, T_IN, 0, NULL, 0, 512);
		assert_int_equal(run(f, m, NULL), S_OK);
	}
	(void)made;
	free(snapshot);
}

/* ---- with a thread for the loop, as in the monitor ---- */

static void *loop_thread(void *ctx)
{
	assert(loop_run(ctx) == 0);
	return NULL;
}

static void mmio_write(struct virtio_mmio *mmio, uint32_t offset, uint32_t value)
{
	virtio_mmio_write(mmio, offset, &value, sizeof(value));
}

static void mmio_start(struct virtio_mmio *mmio, const struct driver_queue *q)
{
	const uint32_t writes[][2] = {{0x70, 1}, {0x70, 3}, {0x24, 1}, {0x20, 1}, {0x24, 0}, {0x20, 0},
		{0x70, 11}, {0x30, 0}, {0x38, q->size}, {0x80, (uint32_t)q->desc}, {0x90, (uint32_t)q->avail},
		{0xa0, (uint32_t)q->used}, {0x44, 1}, {0x70, 15}};
	uint32_t status;

	for (size_t i = 0; i < ARRAY_SIZE(writes); i++)
		mmio_write(mmio, writes[i][0], writes[i][1]);
	virtio_mmio_read(mmio, 0x70, &status, sizeof(status));
	assert_int_equal(status, 15);
}

/* A vCPU resets the device while the loop serves it. From the moment the status reads 0, guest memory stands still. */
static void a_vcpu_resets_while_the_loop_works(void **state)
{
	struct fixture *f = *state;
	struct virtio_mmio *mmio = virtio_mmio_new(f->dev, f->loop, &f->err);
	uint8_t *snapshot = malloc(f->g.size);
	struct made made[16];
	int fd = open(f->path, O_RDWR | O_CLOEXEC), in_flight = 0;
	pthread_t thread;

	assert_non_null(mmio);
	memset(snapshot, 0x77, f->g.size);
	assert_int_equal(pwrite(fd, snapshot, DISK_BYTES, 0), DISK_BYTES);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(pthread_create(&thread, NULL, loop_thread, f->loop), 0);
	for (int round = 0; round < 100; round++) {
		mmio_write(mmio, 0x70, 0);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* so that reads take their time */
		f->g.brk = GUEST_BASE;
		memset(f->g.ram, 0, f->g.size);
		driver_queue_init(&f->q, &f->g, 128);
		mmio_start(mmio, &f->q);
		for (unsigned i = 0; i < 16; i++) {
			made[i] = add(f, T_IN, i * 64, NULL, 0, 32768);
			mmio_write(mmio, 0x50, 0);
		}
		for (int spin = 0; spin < round * 50; spin++)
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		mmio_write(mmio, 0x70, 0);
		memcpy(snapshot, f->g.ram, f->g.size);
		for (unsigned i = 0; i < 16; i++)
			in_flight += status_of(f, made[i]) == S_NONE;
		sched_yield();
		assert_memory_equal(snapshot, f->g.ram, f->g.size);
	}
	assert_true(in_flight > 0); /* else this tested nothing */
	loop_stop(f->loop);
	pthread_join(thread, NULL);
	close(fd);
	free(snapshot);
	virtio_mmio_free(mmio);
	loop_remove(f->d.deadline);
	f->dev = NULL;
}

/* Memory that is to be taken away is asked for first: what the kernel is still at is held, and no more than that. A flush is
 * never done at once. */
static void a_request_in_flight_holds_its_buffers(void **state)
{
	struct fixture *f = *state;
	unsigned in_flight = 0;

	for (int i = 0; i < 1000 && !in_flight; i++) {
		struct made m = add(f, T_FLUSH, 0, NULL, 0, 0);
		void *header = guest_ptr(&f->g, m.header), *status = guest_ptr(&f->g, m.status);

		driver_kick(&f->d, 0);
		virtio_dev_enter(f->dev);
		if (status_of(f, m) == S_NONE) {
			in_flight++;
			assert_true(virtio_dev_holds(f->dev, header, 16));
			assert_true(virtio_dev_holds(f->dev, status, 1));
		}
		assert_true(virtio_dev_holds(f->dev, guest_ptr(&f->g, f->q.used), 1));
		virtio_dev_leave(f->dev);
		assert_true(driver_wait_used(&f->d, &f->q, &m.head, &(uint32_t){0}));
		assert_int_equal(status_of(f, m), S_OK);
		assert_false(virtio_dev_holds(f->dev, header, 16));
		assert_false(virtio_dev_holds(f->dev, status, 1));
	}
	assert_int_equal(in_flight, 1); /* else this tested nothing */
}

static void a_reused_descriptor_cannot_exceed_the_slots(void **state)
{
	struct fixture *f = *state;
	struct made m;

	/* The same chain, made available far more often than the queue is long, in bites the ring can hold. */
	m = add(f, T_IN, 0, NULL, 0, 4096);
	for (int round = 0; round < 8 && !(driver_status(&f->d) & VIRTIO_STATUS_NEEDS_RESET); round++) {
		for (int i = 0; i < 100; i++)
			driver_publish(&f->q, m.head);
		driver_kick(&f->d, 0);
	}
	driver_reset(&f->d);
	restart(f);
}

static void a_device_is_freed_in_mid_operation(void **state)
{
	struct fixture *f = *state;
	struct made made[16];

	fill_queue(f, made, 16);
	stop_device(f);
}

static void a_doorbell_before_driver_ok_is_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t data[512] = {1};

	driver_reset(&f->d);
	driver_queue_init(&f->q, &f->g, 128);
	virtio_dev_enter(f->dev);
	assert_int_equal(driver_queue_attach(&f->q, &f->dev->queues[0]), 0);
	virtio_dev_leave(f->dev);
	add(f, T_OUT, 0, data, 512, 0);
	for (int i = 0; i < 1000; i++)
		driver_kick(&f->d, (uint16_t)i);
	assert_int_equal(f->q.used_ring->idx, 0);
}

/* ---- opening ---- */

static int expect_refusal(struct fixture *f, const char *path, bool read_only, const char *why)
{
	int r = virtio_blk_open(path, read_only, &f->err);

	assert_true(r < 0);
	assert_string_equal(f->err.field, "path_on_host");
	if (!strstr(f->err.message, why))
		fail_msg("\"%s\" does not say \"%s\"", f->err.message, why);
	return r;
}

static void what_is_no_disk_is_refused(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char other[PATH_MAX + 16];
	int s;

	assert_int_equal(expect_refusal(f, "/nowhere/disk", false, "No such file"), -ENOENT);
	expect_refusal(f, f->dir, false, "is a folder");
	expect_refusal(f, f->dir, true, "is a folder");
	expect_refusal(f, "/dev/null", false, "character device");
	snprintf(other, sizeof(other), "%s/other", f->dir);
	assert_int_equal(mkfifo(other, 0600), 0);
	expect_refusal(f, other, false, "is a pipe");
	unlink(other);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", other);
	assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof(address)), 0);
	expect_refusal(f, address.sun_path, true, "is a socket");
	unlink(address.sun_path);
	close(s);
	assert_int_equal(truncate(f->path, 0), 0);
	expect_refusal(f, f->path, false, "is empty");
	assert_int_equal(truncate(f->path, 1000), 0);
	expect_refusal(f, f->path, false, "1000 bytes, is not a multiple of 512");
}

static void a_disk_has_one_writer_or_many_readers(void **state)
{
	struct fixture *f = *state;
	int a, b;

	a = virtio_blk_open(f->path, false, &f->err);
	assert_true(a >= 0);
	expect_refusal(f, f->path, false, "is in use by another machine");
	expect_refusal(f, f->path, true, "is in use for writing by another machine");
	close(a);
	a = virtio_blk_open(f->path, true, &f->err);
	b = virtio_blk_open(f->path, true, &f->err);
	assert_true(a >= 0 && b >= 0);
	expect_refusal(f, f->path, false, "is in use by another machine");
	close(a);
	close(b);
	a = virtio_blk_open(f->path, false, &f->err);
	assert_true(a >= 0);
	close(a);
}

static void a_device_refuses_what_open_would(void **state)
{
	struct fixture *f = *state;
	struct virtio_blk_config config = {.id = "x", .path = "a pipe"};
	int pipe_fds[2];

	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	config.fd = pipe_fds[0];
	assert_null(virtio_blk_new(&config, f->loop, &f->g.mem, &f->err));
	assert_string_equal(f->err.field, "path_on_host");
	assert_int_equal(fcntl(pipe_fds[0], F_GETFD), -1); /* taken over, also on failure */
	close(pipe_fds[1]);
}

/* ---- the ring's own restrictions ---- */

static void io_uring_is_used_where_it_may_be(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->path, O_RDWR | O_CLOEXEC);
	struct blk_backend *backend = blk_uring_new(fd, 8);

	if (!backend) {
		print_message("no io_uring here: the asynchronous tests ran on the synchronous engine\n");
		close(fd);
		skip();
	}
	assert_string_equal(backend->ops->name, "io_uring");
	assert_null(backend->ops->reap(backend, true)); /* nothing is under way: nothing to wait for */
	backend->ops->free(backend);
	close(fd);
}

#define BOTH(name)                                                                                           \
	cmocka_unit_test_setup_teardown(name, setup_async, teardown),                                        \
		{#name " (sync)", name, setup_sync, teardown, NULL}
#define FILES(name) cmocka_unit_test_setup_teardown(name, setup_files, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(a_save_waits_for_requests_in_flight),
		BOTH(a_disk_whose_file_has_grown_is_as_large_as_it_was),
		BOTH(a_save_is_refused_by_a_smaller_disk),
		BOTH(a_reset_waits_for_the_kernel),
		BOTH(a_vcpu_resets_while_the_loop_works),
		cmocka_unit_test_setup_teardown(a_request_in_flight_holds_its_buffers, setup_async, teardown),
		BOTH(a_reused_descriptor_cannot_exceed_the_slots),
		BOTH(a_device_is_freed_in_mid_operation),
		BOTH(a_doorbell_before_driver_ok_is_nothing),
		FILES(what_is_no_disk_is_refused),
		FILES(a_disk_has_one_writer_or_many_readers),
		FILES(a_device_refuses_what_open_would),
		FILES(io_uring_is_used_where_it_may_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
