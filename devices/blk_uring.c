/* The io_uring engine: one ring a queue of a disk, which can do nothing but input and output.
 *
 * Theory of operation. seccomp sees io_uring_enter(), not what is in the ring, so the ring is restricted by the kernel
 * instead (IORING_REGISTER_RESTRICTIONS): only the operations below, without flags, and no further registration. That is
 * set while the ring is still disabled, and cannot be undone. The file is not registered with it, on purpose: a ring is
 * taken down in the background, some time after its process is gone, and the disk's lock would stay that long.
 *
 * As many operations are under way as the submission ring has entries, at most; the completion ring has twice as many,
 * so neither can overflow. Calls come from one thread at a time (the lock of the queue), but not always the same. */
#include "devices/blk_io.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

struct blk_uring {
	struct blk_backend engine;
	struct io_uring ring;
	int fd; /* borrowed */
	unsigned under_way; /* started and not reaped */
};

static const uint8_t allowed_operations[] = {IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE,
	IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE};

static struct blk_uring *to_uring(struct blk_backend *engine)
{
	return container_of(engine, struct blk_uring, engine);
}

/* Puts `io`, as far as it is not done, into the submission ring. There is room: see above. */
static void prepare(struct blk_uring *u, struct blk_io *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (!sqe) {
		log_error("a disk has more operations under way than its ring holds"); /* our own bug */
		abort();
	}
	switch (io->op) {
	case BLK_OP_READ:
		if (io->n_iov == 1)
			io_uring_prep_read(
				sqe, u->fd, io->iov->iov_base, (unsigned)io->iov->iov_len, io->offset);
		else
			io_uring_prep_readv(sqe, u->fd, io->iov, io->n_iov, io->offset);
		break;
	case BLK_OP_WRITE:
		if (io->n_iov == 1)
			io_uring_prep_write(
				sqe, u->fd, io->iov->iov_base, (unsigned)io->iov->iov_len, io->offset);
		else
			io_uring_prep_writev(sqe, u->fd, io->iov, io->n_iov, io->offset);
		sqe->rw_flags = io->durable ? RWF_DSYNC : 0;
		break;
	case BLK_OP_FLUSH:
		io_uring_prep_fsync(sqe, u->fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		io_uring_prep_fallocate(
			sqe, u->fd, blk_io_fallocate_mode(io), (off_t)io->offset, (off_t)io->len);
	}
	io_uring_sqe_set_data(sqe, io);
}

static bool uring_start(struct blk_backend *engine, struct blk_io *io)
{
	struct blk_uring *u = to_uring(engine);

	u->under_way++;
	prepare(u, io);
	return false;
}

static int uring_submit(struct blk_backend *engine)
{
	struct blk_uring *u = to_uring(engine);
	int r, n = 0;

	/* What finishes during the call is reaped after it: it need not wake the loop. */
	io_uring_cq_eventfd_toggle(&u->ring, false);
	/* One call as a rule; the kernel takes fewer when it runs out of memory on the way. */
	while (io_uring_sq_ready(&u->ring) > 0) {
		r = io_uring_submit(&u->ring);
		if (r <= 0 && r != -EINTR) {
			n = r < 0 ? r : -EAGAIN;
			break;
		}
		n += r > 0 ? r : 0;
	}
	io_uring_cq_eventfd_toggle(&u->ring, true);
	/* Full barrier: this store against the load of the completion ring's tail by the owner's reap(). The kernel does the
	 * reverse, so what it does not tell of is seen there. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return n;
}

/* What the kernel says of `io`. False when a part of it is left to do, which is then started again. */
static bool take_result(struct blk_uring *u, struct blk_io *io, int res)
{
	bool transfer = io->op == BLK_OP_READ || io->op == BLK_OP_WRITE;

	if (res < 0) {
		io->result = res;
		return true;
	}
	if (transfer && res == 0) {
		io->result = -EIO; /* the file has become shorter than the disk */
		return true;
	}
	if (transfer && (uint64_t)res < io->len) {
		blk_io_advance(io, (uint64_t)res);
		prepare(u, io);
		return false;
	}
	if (!transfer && io->durable) {
		io->durable = false;
		io->op = BLK_OP_FLUSH;
		prepare(u, io);
		return false;
	}
	io->result = 0;
	return true;
}

/* Submits what is left and waits for a completion. The kernel holds guest memory until then, so there is no giving up:
 * disk I/O that has begun cannot be cancelled either. */
static void wait_for_completion(struct blk_uring *u)
{
	int r = io_uring_submit_and_wait(&u->ring, 1);

	if (r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY || r == -ENOMEM)
		return;
	log_error("io_uring_enter: %s", strerror(-r));
	abort();
}

static struct blk_io *uring_reap(struct blk_backend *engine, bool wait)
{
	struct blk_uring *u = to_uring(engine);
	struct io_uring_cqe *cqe;
	struct blk_io *io;
	int res;

	while (u->under_way > 0) {
		if (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
			io = io_uring_cqe_get_data(cqe);
			res = cqe->res;
			io_uring_cqe_seen(&u->ring, cqe);
			if (take_result(u, io, res)) {
				u->under_way--;
				return io;
			}
		} else if (wait) {
			wait_for_completion(u);
		} else {
			break;
		}
	}
	return NULL;
}

static void uring_free(struct blk_backend *engine)
{
	struct blk_uring *u = to_uring(engine);

	io_uring_queue_exit(&u->ring);
	close_fd(u->engine.event_fd);
	free(u);
}

/* liburing 2.3's shared library does not export its wrappers of the two registrations below. */
static int ring_register(const struct io_uring *ring, unsigned opcode, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, opcode, arg, n) < 0 ? -errno : 0;
}

static int restrict_ring(const struct io_uring *ring)
{
	struct io_uring_restriction rules[ARRAY_SIZE(allowed_operations)];

	memset(rules, 0, sizeof(rules));
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		rules[i].opcode = IORING_RESTRICTION_SQE_OP;
		rules[i].sqe_op = allowed_operations[i];
	}
	return ring_register(ring, IORING_REGISTER_RESTRICTIONS, rules, ARRAY_SIZE(rules));
}

struct blk_backend *blk_uring_new(int fd, unsigned depth)
{
	struct io_uring_params params = {.flags = IORING_SETUP_R_DISABLED};
	struct blk_uring *u = calloc(1, sizeof(*u));
	static const struct blk_backend_ops ops = {
		"io_uring", uring_start, uring_submit, uring_reap, uring_free};
	int r;

	if (!u)
		return NULL;
	u->engine.ops = &ops;
	u->fd = fd;
	r = io_uring_queue_init_params(depth, &u->ring, &params);
	if (r < 0) {
		free(u);
		errno = -r;
		return NULL;
	}
	u->engine.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = u->engine.event_fd < 0 ? -errno : io_uring_register_eventfd(&u->ring, u->engine.event_fd);
	if (r >= 0)
		r = restrict_ring(&u->ring);
	if (r >= 0)
		r = ring_register(&u->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (r < 0) {
		uring_free(&u->engine);
		errno = -r;
		return NULL;
	}
	return &u->engine;
}
