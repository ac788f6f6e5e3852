/* What --volume says of a machine's mounts. */
#ifndef HULL_CLI_MOUNT_H
#define HULL_CLI_MOUNT_H

#include "cli/args.h"

#include <jansson.h>

/* Adds `mounts` to `spec` when --volume is there: those of `before` (what a machine has; NULL: it is a new one) and what it says. 0 or
 * -errno with `fail` set. */
int spec_add_mounts(const struct args *args, const json_t *before, json_t *spec, struct failure *fail);

/* Was `spec` refused because there is no such volume? Its name, borrowed from `spec`. */
bool mount_missing(const json_t *spec, const struct failure *fail, const char **ret_volume);

#endif
