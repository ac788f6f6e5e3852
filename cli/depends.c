/* From --depends-on to the API's Dependencies. */
#include "cli/spec.h"

#include "cli/output.h"
#include "common/cleanup.h"

#include <stdlib.h>
#include <string.h>

#define OPTION "--depends-on"

/* Its place in the list; behind the last: it is not there. */
static size_t find(const json_t *list, const char *name)
{
	size_t i = 0;

	while (i < json_array_size(list) && strcmp(json_text(json_array_get(list, i), "machine"), name) != 0)
		i++;
	return i;
}

/* NAME[:CONDITION] */
static int add(json_t *list, const char *text, struct failure *fail)
{
	const char *colon = strchr(text, ':');
	cleanup_free char *name = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
	json_t *dependency = json_pack("{s:s, s:s}", "machine", name ? name : "", "condition", colon ? colon + 1 : "ready");
	size_t i;

	if (!dependency)
		return failure_usage(fail, OPTION, "is not UTF-8");
	i = find(list, name ? name : "");
	if (i < json_array_size(list))
		json_array_set_new(list, i, dependency);
	else
		json_array_append_new(list, dependency);
	return 0;
}

/* NAME- */
static int take_away(json_t *list, const char *text, struct failure *fail)
{
	cleanup_free char *name = strndup(text, strlen(text) - 1);
	size_t i = name ? find(list, name) : 0;

	if (i == json_array_size(list))
		return failure_usage(fail, OPTION, "%s is none of those that it depends on", name ? name : text);
	json_array_remove(list, i);
	return 0;
}

int spec_add_dependencies(const struct args *args, const json_t *before, json_t *spec, struct failure *fail)
{
	json_t *list = json_deep_copy(before);
	const char *value;
	size_t i = 0;
	int r = 0;

	if (!json_is_array(list)) {
		json_decref(list);
		list = json_array();
	}
	while (r == 0 && (value = args_next(args, "depends-on", &i))) {
		size_t len = strlen(value);

		r = len > 1 && value[len - 1] == '-' ? take_away(list, value, fail) : add(list, value, fail);
	}
	if (r == 0 && args_value(args, "depends-on"))
		json_object_set(spec, "depends_on", list);
	json_decref(list);
	return r;
}
