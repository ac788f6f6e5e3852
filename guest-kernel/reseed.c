/* Reseeding the kernel's random number generator (Linux, include/uapi/linux/random.h). */
#include "guest-kernel/reseed.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>

int reseed_kernel(const void *seed, size_t len, struct error *err)
{
	cleanup_close int fd = open("/dev/random", O_RDWR | O_CLOEXEC);
	cleanup_free struct rand_pool_info *pool = calloc(1, sizeof(*pool) + len);
	int r = 0;

	if (fd < 0 || !pool)
		return error_set_errno(err, errno, "cannot reach the kernel's random numbers");
	pool->entropy_count = (int)len * 8;
	pool->buf_size = (int)len;
	memcpy(pool->buf, seed, len);
	/* The first goes into the pool; the second makes the numbers depend on it at once, not in a minute. */
	if (ioctl(fd, RNDADDENTROPY, pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		r = error_set_errno(err, errno, "the kernel does not take the seed");
	explicit_bzero(pool->buf, len);
	return r;
}
