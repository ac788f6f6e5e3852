/* A disk on a real file, with either engine, and a small virtio driver. */
#ifndef HULL_TESTS_UNIT_BLK_FIXTURE_H
#define HULL_TESTS_UNIT_BLK_FIXTURE_H

#include "tests/unit/virtq_driver.h"

#include "devices/virtio_blk.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

enum { T_IN, T_OUT, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK, S_IOERR, S_UNSUPP, S_NONE = 0xee };
enum { F_RO = 5, F_FLUSH = 9, F_DISCARD = 13 };

#define DISK_SECTORS 2048u
#define DISK_BYTES   (DISK_SECTORS * 512u)

struct fixture {
	char dir[PATH_MAX], path[PATH_MAX + 8];
	struct loop *loop;
	struct guest g;
	struct driver_queue q;
	struct driver d;
	struct virtio_dev *dev;
	enum blk_engine engine;
	uint16_t n_queues; /* 0: the usual one */
	struct error err;
};

static inline int setup_files(void **state)
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

static inline struct virtio_dev *new_device(struct fixture *f, bool read_only, enum blk_cache cache)
{
	struct virtio_blk_config config = {
		.id = "serial-number-of-more-than-20-bytes",
		.path = f->path,
		.fd = virtio_blk_open(f->path, read_only, &f->err),
		.read_only = read_only,
		.cache = cache,
		.engine = f->engine,
		.n_queues = f->n_queues,
	};

	assert_true(config.fd >= 0);
	return virtio_blk_new(&config, f->loop, &f->g.mem, &f->err);
}

static inline void start_device(struct fixture *f, bool read_only, enum blk_cache cache, uint64_t features)
{
	f->dev = new_device(f, read_only, cache);
	assert_non_null(f->dev);
	driver_init(&f->d, f->dev, f->loop);
	driver_queue_init(&f->q, &f->g, 128);
	assert_int_equal(driver_start(&f->d, features, &f->q, 1),
		VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
			VIRTIO_STATUS_DRIVER_OK);
}

static inline int setup_async(void **state)
{
	setup_files(state);
	start_device(*state, false, BLK_CACHE_WRITEBACK, 1ull << F_FLUSH | 1ull << F_DISCARD);
	return 0;
}

static inline int setup_sync(void **state)
{
	struct fixture *f;

	setup_files(state);
	f = *state;
	f->engine = BLK_ENGINE_SYNC;
	start_device(f, false, BLK_CACHE_WRITEBACK, 1ull << F_FLUSH | 1ull << F_DISCARD);
	return 0;
}

static inline void stop_device(struct fixture *f)
{
	if (!f->dev)
		return;
	driver_done(&f->d);
	virtio_dev_free(f->dev);
	f->dev = NULL;
}

static inline int teardown(void **state)
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

/* Makes a request available on `q`: header, data (readable for OUT and ranges, else writable), status. */
static inline struct made add_on(struct fixture *f, struct driver_queue *q, uint32_t type, uint64_t sector, const void *out,
	uint32_t out_len, uint32_t in_len)
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
	m.head = driver_add(q, bufs, n);
	return m;
}

static inline struct made add(
	struct fixture *f, uint32_t type, uint64_t sector, const void *out, uint32_t out_len, uint32_t in_len)
{
	return add_on(f, &f->q, type, sector, out, out_len, in_len);
}

static inline uint8_t status_of(struct fixture *f, struct made m)
{
	return *(uint8_t *)guest_ptr(&f->g, m.status);
}

/* Rings, waits for one completion, which must be that of `m`. Its status; `*ret_len` is the used length. */
static inline uint8_t run(struct fixture *f, struct made m, uint32_t *ret_len)
{
	uint32_t len;
	uint16_t head;

	driver_kick(&f->d, 0);
	assert_true(driver_wait_used(&f->d, &f->q, &head, ret_len ? ret_len : &len));
	assert_int_equal(head, m.head);
	return status_of(f, m);
}

static inline uint8_t do_write(struct fixture *f, uint64_t sector, const void *data, uint32_t len)
{
	return run(f, add(f, T_OUT, sector, data, len, 0), NULL);
}

static inline void read_file(struct fixture *f, void *data, size_t len, off_t offset)
{
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(pread(fd, data, len, offset), len);
	close(fd);
}

static inline uint8_t do_range(struct fixture *f, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	struct {
		uint64_t sector;
		uint32_t n, flags;
	} range = {sector, n, flags};

	return run(f, add(f, type, 0, &range, sizeof(range), 0), NULL);
}

/* The whole way back: reset, and a queue that works. */
static inline void restart(struct fixture *f)
{
	const uint8_t sector[512] = {1, 2, 3};

	driver_queue_init(&f->q, &f->g, 128);
	driver_start(&f->d, 1ull << F_FLUSH, &f->q, 1);
	assert_int_equal(do_write(f, 0, sector, sizeof(sector)), S_OK);
}

#endif
