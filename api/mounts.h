/* The `mounts` of a machine: what else than its own disk it finds in its root file system. */
#ifndef HULL_API_MOUNTS_H
#define HULL_API_MOUNTS_H

#include "api/spec.h"

extern const struct json_table mount_table; /* of struct mount_spec */

/* Can a machine have something there: an absolute path without needless parts, and not where hull-init mounts what the kernel has. 0 or
 * -EINVAL with `err` set. */
int mount_path_check(const char *path, struct error *err);
#define MOUNT_PATH_PATTERN "^(?!/(proc|sys|dev|run)(/|$))(/(?!\\.{1,2}(/|$))[^/\\u0000]+)+$"

/* The same, for a folder of the host: wherever it is. */
int host_path_check(const char *path, struct error *err);
#define HOST_PATH_PATTERN "^(/(?!\\.{1,2}(/|$))[^/\\u0000]+)+$"
#define HOST_PATH_MAX	  1024

/* Of two such paths, by their names alone. */
bool path_is_or_is_below(const char *path, const char *folder);

/* Do they go together: no path twice, no volume twice? 0, or -EINVAL or -ENODATA with `err` set. */
int mounts_check(const struct json_array *mounts, struct error *err);

#endif
