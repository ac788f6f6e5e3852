/* Folders of the host that an administrator lets machines see (hulld --mount-allow). Each is one project's, or every project's. Loop thread. */
#ifndef HULL_API_ALLOWED_FOLDERS_H
#define HULL_API_ALLOWED_FOLDERS_H

#include "api/store.h"

#define ALLOWED_FOLDERS_MAX 64

struct allowed_folder {
	char project[NAME_MAX_BYTES + 1]; /* "*": every project's */
	const char *path;		  /* borrowed; as host_path_check() wants it */
};

struct allowed_folders {
	struct allowed_folder items[ALLOWED_FOLDERS_MAX];
	size_t len;
};

/* "/srv/src", which is the project default's, "PROJECT=/srv/src" or "*=/srv/src": added to `ret`, which borrows it. 0 or -EINVAL with `err`
 * set. */
int allowed_folders_add(const char *text, struct allowed_folders *ret, struct error *err);

/* The folder by which the project may have `path` (a host_path): that itself or one above it, of several the one that is closest to it. By
 * their names alone: no link is looked at. NULL: it may not. */
const char *allowed_folders_find(const struct allowed_folders *folders, const char *project, const char *path);

#endif
