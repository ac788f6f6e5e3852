/* virtio-blk over real files, with both engines: what is read is what was written, what is refused leaves the disk
 * alone, and requests in flight survive save and reset. */
#include "tests/unit/virtq_driver.h"

#include "common/io.h"
#include "devices/blk_io.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_mmio.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { T_IN, T_OUT, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK, S_IOERR, S_UNSUPP, S_NONE = 0xee };
enum { F_RO = 5, F_FLUSH = 9, F_DISCARD = 13 };

#define DISK_SECTORS 2048u
#define DISK_BYTES   (DISK_SECTORS * 512u)

/* What the device states, and takes at most in one request. */
#define SIZE_MAX_BYTES 32768u
#define SEG_MAX	       254u

struct fixture {
	char dir[PATH_MAX], path[PATH_MAX + 8];
	struct loop *loop;
	struct guest g;
	struct driver_queue q;
	struct driver d;
	struct virtio_dev *dev;
	enum blk_engine engine;
	struct error err;
};

static int setup_files(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(f->dir, sizeof(f->dir), "%s/hull-blk.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/disk", f->dir);
	fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
	close(fd);
	f->loop = loop_new();
	assert_non_null(f->loop);
	guest_init(&f->g, 8 << 20);
	*state = f;
	return 0;
}

static struct virtio_dev *new_device(struct fixture *f, bool read_only, enum blk_cache cache)
{
	struct virtio_blk_config config = {
		.id = "serial-number-of-more-than-20-bytes",
		.path = f->path,
		.fd = virtio_blk_open(f->path, read_only, &f->err),
		.read_only = read_only,
		.cache = cache,
		.engine = f->engine,
	};

	assert_true(config.fd >= 0);
	return virtio_blk_new(&config, f->loop, &f->g.mem, &f->err);
}

static void start_device(struct fixture *f, bool read_only, enum blk_cache cache, uint64_t features)
{
	f->dev = new_device(f, read_only, cache);
	assert_non_null(f->dev);
	driver_init(&f->d, f->dev, f->loop);
	driver_queue_init(&f->q, &f->g, 128);
	assert_int_equal(driver_start(&f->d, features, &f->q, 1),
		VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
			VIRTIO_STATUS_DRIVER_OK);
}

static int setup_async(void **state)
{
	setup_files(state);
	start_device(*state, false, BLK_CACHE_WRITEBACK, 1ull << F_FLUSH | 1ull << F_DISCARD);
	return 0;
}

static int setup_sync(void **state)
{
	struct fixture *f;

	setup_files(state);
	f = *state;
	f->engine = BLK_ENGINE_SYNC;
	start_device(f, false, BLK_CACHE_WRITEBACK, 1ull << F_FLUSH | 1ull << F_DISCARD);
	return 0;
}

static void stop_device(struct fixture *f)
{
	if (!f->dev)
		return;
	driver_done(&f->d);
	virtio_dev_free(f->dev);
	f->dev = NULL;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop_device(f);
	loop_free(f->loop);
	guest_done(&f->g);
	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

/* ---- requests ---- */

struct header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct made {
	uint16_t head;
	gpa_t header, data, status;
};

/* Makes a request available: header, data (readable for OUT and ranges, else writable), status. */
static struct made add(
	struct fixture *f, uint32_t type, uint64_t sector, const void *out, uint32_t out_len, uint32_t in_len)
{
	struct header header = {type, 0, sector};
	struct made m = {.header = guest_put(&f->g, &header, sizeof(header)),
		.data = guest_alloc(&f->g, out_len + in_len, 16)};
	uint8_t none = S_NONE;
	struct driver_buf bufs[4] = {{m.header, sizeof(header), false}};
	uint16_t n = 1;

	m.status = guest_put(&f->g, &none, 1);
	if (out_len) {
		memcpy(guest_ptr(&f->g, m.data), out, out_len);
		bufs[n++] = (struct driver_buf){m.data, out_len, false};
	}
	if (in_len)
		bufs[n++] = (struct driver_buf){m.data + out_len, in_len, true};
	bufs[n++] = (struct driver_buf){m.status, 1, true};
	m.head = driver_add(&f->q, bufs, n);
	return m;
}

static uint8_t status_of(struct fixture *f, struct made m)
{
	return *(uint8_t *)guest_ptr(&f->g, m.status);
}

/* Rings, waits for one completion, which must be that of `m`. Its status; `*ret_len` is the used length. */
static uint8_t run(struct fixture *f, struct made m, uint32_t *ret_len)
{
	uint32_t len;
	uint16_t head;

	driver_kick(&f->d, 0);
	assert_true(driver_wait_used(&f->d, &f->q, &head, ret_len ? ret_len : &len));
	assert_int_equal(head, m.head);
	return status_of(f, m);
}

static uint8_t do_write(struct fixture *f, uint64_t sector, const void *data, uint32_t len)
{
	return run(f, add(f, T_OUT, sector, data, len, 0), NULL);
}

static void read_file(struct fixture *f, void *data, size_t len, off_t offset)
{
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(pread(fd, data, len, offset), len);
	close(fd);
}

static uint8_t do_range(struct fixture *f, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	struct {
		uint64_t sector;
		uint32_t n, flags;
	} range = {sector, n, flags};

	return run(f, add(f, type, 0, &range, sizeof(range), 0), NULL);
}

/* ---- what an honest driver gets ---- */

static void what_is_written_is_read(void **state)
{
	struct fixture *f = *state;
	uint8_t data[4096], file[4096];
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

/* The whole way back: reset, and a queue that works. */
static void restart(struct fixture *f)
{
	const uint8_t sector[512] = {1, 2, 3};

	driver_queue_init(&f->q, &f->g, 128);
	driver_start(&f->d, 1ull << F_FLUSH, &f->q, 1);
	assert_int_equal(do_write(f, 0, sector, sizeof(sector)), S_OK);
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

static void a_save_is_refused_by_a_disk_of_another_size(void **state)
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
		BOTH(a_save_waits_for_requests_in_flight),
		BOTH(a_save_is_refused_by_a_disk_of_another_size),
		BOTH(a_reset_waits_for_the_kernel),
		BOTH(a_vcpu_resets_while_the_loop_works),
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
