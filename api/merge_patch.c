#include "api/merge_patch.h"

#include <stdlib.h>

/* Section 2. */
json_t *merge_patch(const json_t *target, const json_t *patch)
{
	json_t *merged = json_is_object(patch) && json_is_object(target) ? json_copy((json_t *)target)
			 : json_is_object(patch)			 ? json_object()
									 : json_deep_copy(patch);
	const char *name;
	json_t *value;

	if (!merged)
		abort();
	if (!json_is_object(patch))
		return merged;
	json_object_foreach((json_t *)patch, name, value) {
		if (json_is_null(value))
			json_object_del(merged, name);
		else if (json_object_set_new(merged, name, merge_patch(json_object_get(target, name), value)) < 0)
			abort();
	}
	return merged;
}
