/* What serves machines sees nothing of the host but its programs. See network.h.
 *
 * It is of the same user as hulld where that is not root: what a hostile machine makes of it shall not read hulld's files, send to its sockets,
 * or trace its processes. */
#include "api/network/network.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEW_ROOT "/proc" /* is everywhere, and holds nothing that is needed */

pid_t confined_fork(void)
{
	return (pid_t)syscall(SYS_clone, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0);
}

/* To the same place in the new root. */
static int show(const char *path, struct error *err)
{
	char target[PATH_MAX];
	cleanup_close int file = -1;
	struct stat st;

	if (stat(path, &st) < 0)
		return 0; /* a host may be without it */
	snprintf(target, sizeof(target), NEW_ROOT "%s", path);
	if (S_ISDIR(st.st_mode) && make_directories(target, 0755, err) < 0)
		return -err->errnum;
	if (!S_ISDIR(st.st_mode))
		file = open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return mount(path, target, NULL, MS_BIND | MS_REC, NULL) < 0 ? error_set_errno(err, errno, "cannot show %s", path) : 0;
}

/* To listen at port 53. With the others it would change the network's rules, or mount something else. */
static int keep_one_capability(struct error *err)
{
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap != CAP_NET_BIND_SERVICE && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return error_set_errno(err, errno, "cannot give up capability %lu", cap);
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? error_set_errno(err, errno, "cannot give up capabilities") : 0;
}

int network_confine(const char *folder, struct error *err)
{
	const char *const shown[] = {"/usr", "/lib", "/lib64", "/sbin", "/bin", "/dev/null", "/dev/urandom", folder};
	struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID};

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("hull", NEW_ROOT, "tmpfs", MS_NOSUID, "mode=0755,size=64k") < 0 ||
		mkdir(NEW_ROOT "/dev", 0755) < 0)
		return error_set_errno(err, errno, "cannot make a root");
	for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
		if (show(shown[i], err) < 0)
			return -err->errnum;
	if (chdir(NEW_ROOT) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0 ||
		mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &read_only, sizeof(read_only)) < 0)
		return error_set_errno(err, errno, "cannot enter another root");
	return keep_one_capability(err);
}
