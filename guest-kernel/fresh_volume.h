/* A volume that no machine has mounted yet gets what the machine has at that place, as an engine of containers does it.
 *
 * Theory of operation. mkfs.ext4 has left lost+found in it, which programs that want an empty folder (databases) do not like: it is the mark
 * of a fresh volume, and goes at the end. A machine that is killed in between is no harm:
 *
 *	lost+found alone        → fresh: owner and mode; a copy in .hull-fresh, on disk
 *	no lost+found any more  → what is in .hull-fresh goes up; and then that */
#ifndef HULL_GUEST_FRESH_VOLUME_H
#define HULL_GUEST_FRESH_VOLUME_H

#include "common/error.h"

/* Of a volume whose root folder is `volume_fd`. `image_fd`: the folder below it; -1: the machine had none, and the volume becomes that of
 * `user` (as the workload's is said), if there is such a user. All are borrowed. Needs /proc. 0, or -errno with `err` set. */
int fresh_volume_fill(int volume_fd, int image_fd, const char *user, struct error *err);

#endif
