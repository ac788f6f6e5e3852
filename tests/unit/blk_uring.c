/* The disk's ring after it was enabled: nothing but disk operations, for whoever gets hold of it. The engine's source is
 * part of this test, since nobody else is shown the ring. */
#include "tests/unit/test.h"

#include "devices/blk_uring.c"

#include <fcntl.h>
#include <poll.h>

static int run_sqe(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	int res;

	assert_int_equal(io_uring_submit(ring), 1);
	assert_int_equal(io_uring_wait_cqe(ring, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res;
}

static void the_ring_does_disk_operations_only(void **state)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct blk_backend *backend = blk_uring_new(fd, 4);
	struct io_uring *ring;
	char byte = 1;

	(void)state;
	if (!backend) {
		close(fd);
		skip();
	}
	ring = &to_uring(backend)->ring;
	io_uring_prep_read(io_uring_get_sqe(ring), fd, &byte, 1, 0);
	assert_int_equal(run_sqe(ring), 1);
	assert_int_equal(byte, 0);
	io_uring_prep_openat(io_uring_get_sqe(ring), AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	assert_int_equal(run_sqe(ring), -EACCES);
	io_uring_prep_socket(io_uring_get_sqe(ring), AF_UNIX, SOCK_STREAM, 0, 0);
	assert_int_equal(run_sqe(ring), -EACCES);
	io_uring_prep_nop(io_uring_get_sqe(ring));
	assert_int_equal(run_sqe(ring), -EACCES);
	assert_int_equal(io_uring_register_files(ring, &fd, 1), -EACCES);
	assert_int_equal(ring_register(ring, IORING_REGISTER_RESTRICTIONS, NULL, 0), -EACCES);
	backend->ops->free(backend);
	close(fd);
}

/* It is reaped at once, and then nobody is woken; or it ends later, and somebody is. */
static void each_end_is_told_of_once(void **state)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct blk_backend *backend = blk_uring_new(fd, 4);
	char bytes[512];

	(void)state;
	if (!backend) {
		close(fd);
		skip();
	}
	for (int i = 0; i < 1000; i++) {
		struct iovec iov = {bytes, sizeof(bytes)};
		struct blk_io io = {.op = BLK_OP_READ, .len = sizeof(bytes), .iov = &iov, .n_iov = 1};
		struct pollfd event = {.fd = backend->event_fd, .events = POLLIN};
		uint64_t count;

		assert_false(backend->ops->start(backend, &io));
		assert_int_equal(backend->ops->submit(backend), 1);
		if (backend->ops->reap(backend, false)) {
			assert_int_equal(poll(&event, 1, 0), 0);
			continue;
		}
		assert_int_equal(poll(&event, 1, 10000), 1);
		assert_int_equal(read(backend->event_fd, &count, sizeof(count)), sizeof(count));
		assert_ptr_equal(backend->ops->reap(backend, false), &io);
	}
	backend->ops->free(backend);
	close(fd);
}

static void a_closed_ring_leaves_no_descriptor(void **state)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC), before, after;
	struct blk_backend *backend;

	(void)state;
	before = dup(fd);
	close(before);
	for (int i = 0; i < 10; i++) {
		backend = blk_uring_new(fd, 4);
		if (backend)
			backend->ops->free(backend);
	}
	after = dup(fd);
	assert_int_equal(after, before);
	close(after);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ring_does_disk_operations_only),
		cmocka_unit_test(each_end_is_told_of_once),
		cmocka_unit_test(a_closed_ring_leaves_no_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
