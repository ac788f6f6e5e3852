/* The mounts: from the initramfs to the machine's own root file system, and back at the end. */
#ifndef HULL_GUEST_ROOT_H
#define HULL_GUEST_ROOT_H

#include "common/error.h"
#include "guest-kernel/config.h"

/* /proc, /sys and /dev in the initramfs, where they stay: root_leave() needs them again. */
int root_mount_kernel_files(struct error *err);

/* Mounts image and scratch, lays one over the other, deletes what the initramfs held and makes the result "/", with
 * proc, sys, cgroup2, dev, dev/pts, dev/shm and run in it. The working directory is then "/". 0 or -errno with `err`. */
int root_enter(const struct guest_root *drives, struct error *err);

/* Goes back to the initramfs and unmounts the machine's root, so that the scratch file system is clean. Closes
 * descriptors 0 to 2's console and opens it again. Only when no other process is left. What cannot be unmounted is
 * made read-only; failing that, it was synced. Harmless when root_enter() never came so far. */
void root_leave(void);

#endif
