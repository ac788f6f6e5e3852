/* The `mounts` of a machine: what else than its own disk it finds in its root file system. */
#ifndef HULL_API_MOUNTS_H
#define HULL_API_MOUNTS_H

#include "api/spec.h"

extern const struct json_table mount_table; /* of struct mount_spec */

/* Can a machine have something there: an absolute path without needless parts, and not where hull-init mounts what the kernel has. 0 or
 * -EINVAL with `err` set. */
int mount_path_check(const char *path, struct error *err);
#define MOUNT_PATH_PATTERN "^(?!/(proc|sys|dev|run)(/|$))(/(?!\\.{1,2}(/|$))[^/\\u0000]+)+$"

/* Do they go together: no path twice, no volume twice? 0, or -EINVAL or -ENODATA with `err` set. */
int mounts_check(const struct json_array *mounts, struct error *err);

#endif
