/* JSON Merge Patch (RFC 7396). */
#ifndef HULL_API_MERGE_PATCH_H
#define HULL_API_MERGE_PATCH_H

#include "api/problem.h"
#include "common/json.h"

#include <jansson.h>

/* What `target` (NULL: nothing) is once `patch` has been applied: a new reference; neither is changed. No deeper than the patch is. */
json_t *merge_patch(const json_t *target, const json_t *patch);

/* The same with what is described by `table`, and is there as text: read into `*ret`. 0, or -ECANCELED with `problem` set. A field that
 * there is none of is refused also where it would be removed, and so is what would be larger than a request may be. */
int merge_patch_read(const struct json_table *table, const char *before, const json_t *patch, void *ret, struct problem *problem);

#endif
