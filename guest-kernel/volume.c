#include "guest-kernel/volume.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "guest-kernel/console.h"
#include "guest-kernel/drive.h"
#include "guest-kernel/fresh_volume.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t) /* Linux, fs/ext4/ext4.h: to so many blocks */

/* Linux, Documentation/filesystems/ext4/super.rst: offsets in the superblock, which is at 1024. */
#define SUPERBLOCK_AT	 1024
#define BLOCKS_LOW_AT	 0x4
#define BLOCKS_HIGH_AT	 0x150
#define SUPERBLOCK_BYTES 1024

static uint32_t get_le32(const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof value);
	return le32toh(value);
}

/* To the size of its disk, where that has become larger. One that stays as it is does not keep the machine from running. */
static void grow(const char *device, int volume_fd, const char *path)
{
	cleanup_close int fd = open(device, O_RDONLY | O_CLOEXEC);
	unsigned char superblock[SUPERBLOCK_BYTES];
	uint64_t bytes, blocks, there;
	struct statfs fs;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0 || fstatfs(volume_fd, &fs) < 0 ||
		pread_full(fd, superblock, sizeof superblock, SUPERBLOCK_AT) != sizeof superblock) {
		console_say("cannot see how large %s is: %s", path, strerror(errno));
		return;
	}
	there = (uint64_t)get_le32(superblock + BLOCKS_HIGH_AT) << 32 | get_le32(superblock + BLOCKS_LOW_AT);
	blocks = bytes / (uint64_t)fs.f_bsize;
	if (blocks > there && ioctl(volume_fd, EXT4_IOC_RESIZE_FS, &blocks) < 0)
		console_say("cannot make %s larger: %s", path, strerror(errno));
}

/* A journal that has to be replayed cannot be on a disk that is read only. */
static int mount_device(const struct guest_mount *mount_of, const char *device, struct error *err)
{
	unsigned long flags = MS_NOATIME | (mount_of->read_only ? MS_RDONLY : 0);

	if (mount(device, mount_of->path, "ext4", flags, mount_of->read_only ? NULL : "discard") == 0)
		return 0;
	if (mount_of->read_only && errno == EROFS)
		return error_set(err, EUCLEAN, "was not unmounted cleanly: mount it once to write");
	return error_set_errno(err, errno, "mount ext4");
}

int volume_mount(const struct guest_mount *mount_of, const char *user, struct error *err)
{
	cleanup_close int below = open(mount_of->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), volume = -1;
	char device[32];
	int r = below < 0 ? make_directories(mount_of->path, 0755, err) : 0;

	if (r == 0)
		r = drive_find(mount_of->drive, DRIVE_TIMEOUT_MS, device, sizeof device, err);
	if (r == 0)
		r = mount_device(mount_of, device, err);
	if (r < 0 || mount_of->read_only)
		return r;
	volume = open(mount_of->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (volume < 0)
		return error_set_errno(err, errno, "open it");
	grow(device, volume, mount_of->path);
	return fresh_volume_fill(volume, below, user, err);
}
