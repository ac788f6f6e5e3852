/* The disk's file: opening it with the refusals a user needs, locking it, measuring it. */
#include "devices/blk_io.h"

#include "common/log.h"
#include "devices/virtio_blk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIELD	     "path_on_host"
#define SECTOR_BYTES 512u

static int refuse(struct error *err, int errnum, const char *path, const char *why)
{
	return error_set_field(err, errnum, FIELD, "%s: %s", path, why);
}

static int check_kind(const struct stat *st, const char *path, struct error *err)
{
	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
	case S_IFBLK:
		return 0;
	case S_IFDIR:
		return refuse(err, EISDIR, path, "is a folder; a disk is a file or a block device");
	case S_IFIFO:
		return refuse(err, EINVAL, path, "is a pipe; a disk is a file or a block device");
	case S_IFSOCK:
		return refuse(err, EINVAL, path, "is a socket; a disk is a file or a block device");
	default:
		return refuse(err, EINVAL, path, "is a character device; a disk is a file or a block device");
	}
}

/* An open-file-description lock: exclusive for a writer, shared among readers. It goes with the last descriptor, so a
 * killed monitor leaves none, and one passed on to another process stays locked. */
static int lock(int fd, const char *path, bool read_only, struct error *err)
{
	struct flock whole = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return refuse(err, EBUSY, path,
			read_only ? "is in use for writing by another machine" :
				    "is in use by another machine");
	/* A file system without locks guards nothing: that is for its administrator to know, not for us to forbid. */
	if (errno == ENOLCK || errno == ENOTSUP || errno == ENOSYS || errno == EINVAL)
		return 0;
	return refuse(err, errno, path, strerror(errno));
}

/* A block device is written by its claimant only: one that is mounted, swapped to or part of another device is refused, as
 * two writers destroy a file system (open(2), O_EXCL without O_CREAT). */
static int claim_flags(const struct stat *st, bool read_only)
{
	return S_ISBLK(st->st_mode) && !read_only ? O_EXCL : 0;
}

/* Opened and locked: a descriptor, or -errno with `err` set. */
static int open_locked(const char *path, bool read_only, struct error *err)
{
	cleanup_close int fd = -1;
	struct stat st;
	int r;

	/* Looked at before it is opened: opening a pipe or a tape has effects of its own. Looked at again when open. */
	if (stat(path, &st) < 0)
		return refuse(err, errno, path, strerror(errno));
	r = check_kind(&st, path, err);
	if (r < 0)
		return r;
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | claim_flags(&st, read_only) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == EBUSY)
		return refuse(err, EBUSY, path, "is in use: mounted, or claimed by another program");
	if (fd < 0)
		return error_set_field(err, errno, FIELD, "%s: cannot be opened for %s: %s", path,
			read_only ? "reading" : "writing", strerror(errno));
	/* O_NONBLOCK was for what it might have become meanwhile; on a disk it would make reads fail with EAGAIN. */
	if (fcntl(fd, F_SETFL, 0) < 0)
		return refuse(err, errno, path, strerror(errno));
	r = lock(fd, path, read_only, err);
	return r < 0 ? r : steal_fd(&fd);
}

int virtio_blk_open(const char *path, bool read_only, struct error *err)
{
	cleanup_close int fd = open_locked(path, read_only, err);
	struct blk_geometry geometry;
	int r = fd < 0 ? fd : blk_geometry_read(fd, path, read_only, &geometry, err);

	return r < 0 ? r : steal_fd(&fd);
}

int blk_file_open(const char *path, bool read_only, uint64_t *ret_size_bytes, struct error *err)
{
	cleanup_close int fd = open_locked(path, read_only, err);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END); /* of a block device, too */

	if (fd < 0)
		return fd;
	if (size <= 0)
		return refuse(err, size < 0 ? errno : EINVAL, path, size < 0 ? strerror(errno) : "is empty");
	*ret_size_bytes = (uint64_t)size;
	return steal_fd(&fd);
}

/* Punching a hole behind the end of a file changes nothing, and tells whether its file system knows how to. A block
 * device is not asked: what it cannot do is answered request by request. */
static bool can_punch_holes(int fd, const struct stat *st)
{
	if (S_ISBLK(st->st_mode))
		return true;
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st->st_size, SECTOR_BYTES) == 0;
}

static int measure_block_device(int fd, const char *path, struct blk_geometry *ret, struct error *err)
{
	unsigned physical = 0;
	int logical = 0;

	if (ioctl(fd, BLKGETSIZE64, &ret->size_bytes) < 0 || ioctl(fd, BLKSSZGET, &logical) < 0)
		return refuse(err, errno, path, strerror(errno));
	if (logical > 0)
		ret->logical_block_bytes = ret->physical_block_bytes = (uint32_t)logical;
	if (ioctl(fd, BLKPBSZGET, &physical) == 0 && physical > ret->logical_block_bytes)
		ret->physical_block_bytes = physical;
	return 0;
}

int blk_geometry_read(int fd, const char *path, bool read_only, struct blk_geometry *ret, struct error *err)
{
	struct blk_geometry g = {.logical_block_bytes = SECTOR_BYTES, .physical_block_bytes = 4096};
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return refuse(err, errno, path, strerror(errno));
	r = check_kind(&st, path, err);
	if (r == 0 && S_ISBLK(st.st_mode))
		r = measure_block_device(fd, path, &g, err);
	else
		g.size_bytes = (uint64_t)st.st_size;
	if (r < 0)
		return r;
	if (g.size_bytes == 0)
		return refuse(err, EINVAL, path, "is empty");
	if (g.size_bytes % SECTOR_BYTES)
		return error_set_field(err, EINVAL, FIELD,
			"%s: its size, %llu bytes, is not a multiple of %u", path,
			(unsigned long long)g.size_bytes, SECTOR_BYTES);
	g.can_punch_holes = !read_only && can_punch_holes(fd, &st);
	*ret = g;
	return 0;
}

struct blk_backend *blk_engine_new(int fd, unsigned depth, bool async, const char *path)
{
	struct blk_backend *engine = async ? blk_uring_new(fd, depth) : NULL;

	if (async && !engine)
		log_info("disk %s: no io_uring (%s), so it works synchronously", path, strerror(errno));
	return engine ? engine : blk_sync_new(fd);
}
