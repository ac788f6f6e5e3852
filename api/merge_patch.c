#include "api/merge_patch.h"

#include "api/http.h"

#include <string.h>
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

int merge_patch_read(const struct json_table *table, const char *before, const json_t *patch, void *ret, struct problem *problem)
{
	struct error err;
	json_t *target = json_parse(before, strlen(before), &err), *merged, *value;
	const char *name;
	size_t size;
	int r;

	if (!target)
		return problem_from_error(problem, &err);
	merged = merge_patch(target, patch);
	json_object_foreach((json_t *)patch, name, value)
		if (json_is_null(value) && !json_find_field(table, name))
			json_object_set(merged, name, value);
	size = json_dumpb(merged, NULL, 0, JSON_COMPACT);
	r = json_read(table, merged, ret, &err);
	json_decref(merged);
	json_decref(target);
	if (r < 0)
		return problem_from_error(problem, &err);
	if (size <= HTTP_JSON_MAX)
		return 0;
	/* Many small patches make nothing that one request could not have. */
	json_done(table, ret);
	return problem_set(problem, PROBLEM_PAYLOAD_TOO_LARGE, NULL,
		"the whole specification would have %zu bytes, and may have at most %u", size, HTTP_JSON_MAX);
}
