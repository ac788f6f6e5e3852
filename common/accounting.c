/* A machine's counts in a file that is mapped. See accounting.h. */
#include "common/accounting.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static struct accounting own;
struct accounting *accounting = &own;

int accounting_open(const char *path, struct error *err)
{
	cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	void *page = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, ACCOUNTING_BYTES) == 0)
		page = mmap(NULL, ACCOUNTING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return error_set_errno(err, errno, "cannot count in %s", path);
	accounting = page;
	accounting->version = ACCOUNTING_VERSION;
	return 0;
}

int accounting_read(const char *path, struct accounting *ret)
{
	cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n = fd < 0 ? -errno : read_full(fd, ret, sizeof(*ret));

	if (n < 0)
		return (int)n;
	return n == sizeof(*ret) && ret->version == ACCOUNTING_VERSION ? 0 : -ENODATA;
}
