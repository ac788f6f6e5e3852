/* A file system that makes no holes, while `no_holes`. Its test is linked with -Wl,--wrap=fallocate. */
#ifndef HULL_TESTS_UNIT_NO_HOLES_H
#define HULL_TESTS_UNIT_NO_HOLES_H

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

static bool no_holes;

int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (!no_holes)
		return __real_fallocate(fd, mode, offset, len);
	errno = EOPNOTSUPP;
	return -1;
}

#endif
