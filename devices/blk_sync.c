/* The synchronous engine: for hosts where io_uring is forbidden. Every operation is done when start() returns. */
#include "devices/blk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

struct blk_sync {
	struct blk_backend engine;
	int fd;
};

void blk_io_advance(struct blk_io *io, uint64_t done)
{
	io->offset += done;
	io->len -= done;
	while (done > 0 && done >= io->iov->iov_len) {
		done -= io->iov->iov_len;
		io->iov++;
		io->n_iov--;
	}
	if (done > 0) {
		io->iov->iov_base = (char *)io->iov->iov_base + done;
		io->iov->iov_len -= done;
	}
}

int blk_io_fallocate_mode(const struct blk_io *io)
{
	return FALLOC_FL_KEEP_SIZE |
	       (io->op == BLK_OP_WRITE_ZEROES ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
}

static int transfer(int fd, struct blk_io *io)
{
	while (io->len > 0) {
		int n_iov = io->n_iov < IOV_MAX ? (int)io->n_iov : IOV_MAX;
		ssize_t n;

		if (io->op == BLK_OP_READ)
			n = preadv(fd, io->iov, n_iov, (off_t)io->offset);
		else
			n = pwritev2(fd, io->iov, n_iov, (off_t)io->offset, io->durable ? RWF_DSYNC : 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO; /* the file has become shorter than the disk */
		blk_io_advance(io, (uint64_t)n);
	}
	return 0;
}

static int flush(int fd)
{
	return fdatasync(fd) < 0 ? -errno : 0;
}

static int zero(int fd, const struct blk_io *io)
{
	if (fallocate(fd, blk_io_fallocate_mode(io), (off_t)io->offset, (off_t)io->len) < 0)
		return -errno;
	return io->durable ? flush(fd) : 0;
}

static bool sync_start(struct blk_backend *engine, struct blk_io *io)
{
	int fd = ((struct blk_sync *)engine)->fd;

	switch (io->op) {
	case BLK_OP_READ:
	case BLK_OP_WRITE:
		io->result = transfer(fd, io);
		break;
	case BLK_OP_FLUSH:
		io->result = flush(fd);
		break;
	default:
		io->result = zero(fd, io);
	}
	return true;
}

static int sync_submit(struct blk_backend *engine)
{
	(void)engine;
	return 0;
}

static struct blk_io *sync_reap(struct blk_backend *engine, bool wait)
{
	(void)engine;
	(void)wait;
	return NULL;
}

static void sync_free(struct blk_backend *engine)
{
	free(engine);
}

static const struct blk_backend_ops sync_ops = {"synchronous", sync_start, sync_submit, sync_reap, sync_free};

struct blk_backend *blk_sync_new(int fd)
{
	struct blk_sync *sync = calloc(1, sizeof(*sync));

	if (!sync)
		return NULL;
	*sync = (struct blk_sync){.engine = {.ops = &sync_ops, .event_fd = -1}, .fd = fd};
	return &sync->engine;
}
