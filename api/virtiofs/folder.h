/* The folder that is shared: found below the one that is allowed, and mounted where nobody else sees it. Called by main.c. */
#ifndef HULL_API_VIRTIOFS_FOLDER_H
#define HULL_API_VIRTIOFS_FOLDER_H

#include "common/error.h"

#include <stdbool.h>

/* Where folder_mount() puts it. Anybody may pass there, and virtiofsd needs nothing that lies there. */
#define FOLDER_MOUNT_POINT "/run"

/* Opens the folder `path`, which is `allowed`, or lies below it. What `allowed` holds is other people's, and changes while we look: no
 * name in it leads out, neither ".." nor a link (openat2(2), RESOLVE_BENEATH); `allowed` itself is the administrator's, with links as he
 * likes. A descriptor (O_PATH), or -errno with `err` set. */
int folder_open(const char *allowed, const char *path, struct error *err);

/* Gives this process a mount namespace of its own, in which the folder is at FOLDER_MOUNT_POINT: without devices, set-user-id and what
 * is mounted below it, and `read_only`. Needs CAP_SYS_ADMIN. 0 or -errno with `err` set. */
int folder_mount(int fd, bool read_only, struct error *err);

#endif
