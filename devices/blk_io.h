/* What is below virtio-blk: a raw file or block device, its size, and engines that do operations on it.
 *
 * Theory of operation. The owner start()s operations, then submit()s what has gathered with one call to the kernel, and
 * reap()s what has finished when event_fd becomes readable. An operation belongs to the engine from start() until it
 * is reaped (or until start() says it finished at once); its buffers are then the kernel's too. */
#ifndef HULL_DEVICES_BLK_IO_H
#define HULL_DEVICES_BLK_IO_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct blk_geometry {
	uint64_t size_bytes;
	uint32_t logical_block_bytes; /* 512 for a file */
	uint32_t physical_block_bytes; /* what is written without reading first */
	bool can_punch_holes;
};

/* Opens a file or block device of any size but 0, whole sectors or not, with the refusals of virtio_blk_open(). A descriptor,
 * or -errno with `err` set (field "path_on_host"). */
int blk_file_open(const char *path, bool read_only, uint64_t *ret_size_bytes, struct error *err);

/* Measures `fd`. 0, or -errno with `err` set (field "path_on_host"): not a file or block device, empty, not a whole
 * number of sectors. */
int blk_geometry_read(int fd, const char *path, bool read_only, struct blk_geometry *ret, struct error *err);

enum blk_op {
	BLK_OP_READ,
	BLK_OP_WRITE,
	BLK_OP_FLUSH,
	BLK_OP_DISCARD,
	BLK_OP_WRITE_ZEROES,
	BLK_OP_UNMAP_ZEROES
};

struct blk_io {
	enum blk_op op;
	bool durable; /* a write, or zeroes: on stable storage before it counts as finished */
	uint64_t offset; /* bytes; moves on when the kernel does a part */
	uint64_t len; /* bytes left */
	struct iovec *iov; /* READ, WRITE: `len` bytes in all; moves on likewise */
	unsigned n_iov;
	int result; /* once finished: 0 or -errno */
};

struct blk_backend {
	const struct blk_backend_ops *ops;
	int event_fd; /* readable, edge-triggered, when something can be reaped; -1: everything finishes at once */
};

struct blk_backend_ops {
	const char *name;
	/* True when `io` has finished at once. At most `depth` operations may be under way. */
	bool (*start)(struct blk_backend *engine, struct blk_io *io);
	/* How many operations were handed to the kernel; -errno when it has no room now: try again later. Reap after it in
	 * either case: event_fd does not tell of what finished meanwhile. */
	int (*submit)(struct blk_backend *engine);
	/* An operation that has finished; NULL when there is none yet, or with `wait` when none is under way. */
	struct blk_io *(*reap)(struct blk_backend *engine, bool wait);
	/* Nothing may be under way. The file stays open: it is the owner's. */
	void (*free)(struct blk_backend *engine);
};

/* Each NULL with errno set. `fd` is borrowed; `depth` is a power of two. */
struct blk_backend *blk_uring_new(int fd, unsigned depth);
struct blk_backend *blk_sync_new(int fd);

/* io_uring where it is wanted and may be used (else a line in the log that names `path`), or plain system calls. Likewise. */
struct blk_backend *blk_engine_new(int fd, unsigned depth, bool async, const char *path);

/* For engines: how much of `io` is left after the kernel did `done` bytes of it. */
void blk_io_advance(struct blk_io *io, uint64_t done);
/* For engines: the fallocate() mode of a DISCARD or zeroes. */
int blk_io_fallocate_mode(const struct blk_io *io);

#endif
