/* JSON Merge Patch (RFC 7396). */
#ifndef HULL_API_MERGE_PATCH_H
#define HULL_API_MERGE_PATCH_H

#include <jansson.h>

/* What `target` (NULL: nothing) is once `patch` has been applied: a new reference; neither is changed. No deeper than the patch is. */
json_t *merge_patch(const json_t *target, const json_t *patch);

#endif
