/* Folders of the host, as people write them. */
#ifndef HULL_CLI_HOST_PATH_H
#define HULL_CLI_HOST_PATH_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

/* Is it one, and not the name of a volume? It begins with a slash or a dot. */
bool host_path_is(const char *text);
/* In full, as the API wants it: what begins with a dot is found on this machine, from `folder` on, links followed. The caller frees; NULL with
 * `err` set. Aborts without memory. */
char *host_path_in_full(const char *folder, const char *text, struct error *err);
/* The same with each `host_path` of a machine's `mounts`, which may be of any kind. 0 or -errno with `err` set, its field the one that is to
 * blame. */
int host_paths_in_full(const char *folder, json_t *mounts, struct error *err);

#endif
