/* What a machine finds in its root file system besides: the `mounts` of its configuration. */
#ifndef HULL_GUEST_MOUNTS_H
#define HULL_GUEST_MOUNTS_H

#include "guest-kernel/config.h"

/* Mounts all of them, each in a folder that is made where there is none; one that is within another after that. In the machine's root.
 * 0, or -errno with `err` set and `*ret_failed` the index of the one that cannot be. */
int mounts_enter(const struct guest_config *config, size_t *ret_failed, struct error *err);

#endif
