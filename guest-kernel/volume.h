/* Volumes: ext4 file systems on drives of their own, which last longer than the machine. */
#ifndef HULL_GUEST_VOLUME_H
#define HULL_GUEST_VOLUME_H

#include "common/error.h"
#include "guest-kernel/config.h"

/* Mounts one at its path, made where there is no such folder; grows it to its drive's size, and fills it where it is fresh
 * (fresh_volume.h; `user` is the workload's), unless it is read-only. In the machine's root. root_leave() unmounts it. 0 or -errno with
 * `err` set. */
int volume_mount(const struct guest_mount *mount_of, const char *user, struct error *err);

#endif
