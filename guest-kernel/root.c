/* The mounts.
 *
 *	initramfs "/"            stays below, unreachable for the workload
 *	├─ proc sys dev          for hull-init at the end
 *	├─ image                 EROFS, read-only       lower layer
 *	├─ scratch               ext4 or tmpfs          upper/ and work/ in it
 *	└─ root  ──moved──▶ "/"  overlay of the two: the machine's root
 *
 * The overlay is moved over "/" rather than only chrooted into: in a chroot nobody may make user namespaces. The way
 * back, for a clean unmount, is a descriptor of the initramfs's own "/" that was opened before. */
#include "guest-kernel/root.h"

#include "common/cleanup.h"
#include "guest-kernel/console.h"
#include "guest-kernel/drive.h"
#include "guest-kernel/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

static int initramfs_fd = -1; /* "/" of the initramfs, while the machine's root lies over it */

struct mount_point {
	const char *type, *path, *options;
	unsigned long flags;
	mode_t mode; /* of the folder, when it has to be made */
	bool optional;
};

/* In the machine's root, in this order. */
static const struct mount_point root_mounts[] = {
	{"proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555, false},
	{"sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555, false},
	{"cgroup2", "/sys/fs/cgroup", "nsdelegate", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755, true},
	{"devtmpfs", "/dev", "mode=0755", MS_NOSUID, 0755, false},
	{"devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666", MS_NOSUID | MS_NOEXEC, 0755, true},
	{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, 01777, false},
	{"mqueue", "/dev/mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 01777, true},
	{"tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV, 0755, false},
};

static int make_folder(const char *path, mode_t mode, struct error *err)
{
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return error_set_errno(err, errno, "make %s", path);
	return 0;
}

static int mount_at(const char *what, const char *path, const char *type, unsigned long flags, const char *options,
	struct error *err)
{
	if (mount(what, path, type, flags, options) < 0)
		return error_set_errno(err, errno, "mount %s at %s", type, path);
	return 0;
}

int root_mount_kernel_files(struct error *err)
{
	static const char *const mounts[][2] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		int r = make_folder(mounts[i][1], 0755, err);

		if (r == 0)
			r = mount_at(mounts[i][0], mounts[i][1], mounts[i][0], MS_NOSUID, NULL, err);
		if (r < 0 && r != -EBUSY) /* a kernel with CONFIG_DEVTMPFS_MOUNT was first */
			return r;
	}
	return 0;
}

static int mount_drive(const char *serial, const char *path, const char *type, unsigned long flags, struct error *err)
{
	char device[32];
	int r = make_folder(path, 0755, err);

	if (r == 0)
		r = drive_find(serial, DRIVE_TIMEOUT_MS, device, sizeof device, err);
	if (r == 0)
		r = mount_at(device, path, type, flags, NULL, err);
	return r < 0 ? error_prefix(err, "drive \"%s\": ", serial) : 0;
}

static int mount_scratch(const char *serial, struct error *err)
{
	int r;

	if (serial)
		return mount_drive(serial, "/scratch", "ext4", MS_NOATIME, err);
	r = make_folder("/scratch", 0755, err);
	return r < 0 ? r : mount_at("tmpfs", "/scratch", "tmpfs", 0, "mode=0755", err);
}

/* The upper layer's top folder is what the machine sees as "/": it starts with the image's owner and mode. */
static int make_upper(struct error *err)
{
	struct stat image;

	if (stat("/image", &image) < 0)
		return error_set_errno(err, errno, "stat /image");
	if (mkdir("/scratch/upper", 0755) == 0) {
		if (chown("/scratch/upper", image.st_uid, image.st_gid) < 0 ||
			chmod("/scratch/upper", image.st_mode & 07777) < 0)
			return error_set_errno(err, errno, "give /scratch/upper the image's owner and mode");
	} else if (errno != EEXIST) {
		return error_set_errno(err, errno, "make /scratch/upper");
	}
	return make_folder("/scratch/work", 0755, err);
}

static int mount_overlay(struct error *err)
{
	int r = make_upper(err);

	if (r == 0)
		r = make_folder("/root", 0755, err);
	if (r == 0)
		r = mount_at("overlay", "/root", "overlay", 0,
			"lowerdir=/image,upperdir=/scratch/upper,workdir=/scratch/work", err);
	return r;
}

static int move_root(struct error *err)
{
	cleanup_close int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat status;
	int contents;

	if (fd < 0 || fstat(fd, &status) < 0)
		return error_set_errno(err, errno, "open the initramfs");
	/* Its RAM goes back, and a key or password in the configuration is gone. */
	contents = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (contents >= 0)
		folder_delete_contents(contents, status.st_dev);
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return error_set_errno(err, errno, "switch to the root file system");
	initramfs_fd = steal_fd(&fd);
	return 0;
}

static int mount_all(struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(root_mounts); i++) {
		const struct mount_point *m = &root_mounts[i];
		int r = make_folder(m->path, m->mode, err);

		if (r == 0)
			r = mount_at(m->type, m->path, m->type, m->flags, m->options, err);
		if (r < 0 && !m->optional)
			return r;
	}
	return 0;
}

/* What programs expect of every Unix and a devtmpfs or a minimal image does not have. */
static void make_conveniences(void)
{
	static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}};

	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			console_say("cannot make %s: %s", links[i][1], strerror(errno));
	if (mkdir("/tmp", 01777) == 0 && chmod("/tmp", 01777) < 0)
		console_say("cannot open /tmp to everyone: %s", strerror(errno));
	if (mkdir("/run/lock", 01777) == 0 && chmod("/run/lock", 01777) < 0)
		console_say("cannot open /run/lock to everyone: %s", strerror(errno));
}

int root_enter(const struct guest_root *drives, struct error *err)
{
	int r = mount_drive(drives->image, "/image", "erofs", MS_RDONLY | MS_NODEV, err);

	if (r == 0)
		r = mount_scratch(drives->scratch, err);
	if (r == 0)
		r = mount_overlay(err);
	if (r == 0)
		r = move_root(err);
	if (r == 0)
		r = mount_all(err);
	if (r == 0)
		make_conveniences();
	return r;
}

static void unmount(const char *path)
{
	if (umount2(path, 0) == 0 || errno == EINVAL || errno == ENOENT)
		return;
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		console_say("cannot unmount %s: %s", path, strerror(errno));
}

void root_leave(void)
{
	cleanup_close int machine_root = -1;
	char path[64];

	sync();
	if (initramfs_fd >= 0) {
		machine_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fchdir(initramfs_fd) < 0 || chroot(".") < 0) {
			console_say("cannot go back to the initramfs: %s", strerror(errno));
			return;
		}
		initramfs_fd = close_fd(initramfs_fd);
		console_open(NULL); /* descriptors 0 to 2 were of the machine's /dev */
		snprintf(path, sizeof path, "/proc/self/fd/%d", machine_root);
		/* With everything mounted in it; the superblocks end when the last of our references goes. */
		if (machine_root >= 0 && umount2(path, MNT_DETACH) < 0)
			console_say("cannot detach the root file system: %s", strerror(errno));
		machine_root = close_fd(machine_root);
	}
	unmount("/scratch");
	unmount("/image");
	sync();
}
