#include "cli/host_path.h"

#include "common/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool host_path_is(const char *text)
{
	return text[0] == '/' || text[0] == '.';
}

char *host_path_in_full(const char *folder, const char *text, struct error *err)
{
	cleanup_free char *path = NULL;
	char *full;

	if (text[0] != '.')
		full = strdup(text);
	else if (asprintf(&path, "%s/%s", folder, text) < 0)
		abort();
	else
		full = realpath(path, NULL);
	if (!full && (text[0] != '.' || errno == ENOMEM))
		abort();
	if (!full)
		error_set_errno(err, errno, "%s", text);
	/* A shell completes a folder's name with a slash. */
	for (size_t len = full ? strlen(full) : 0; len > 1 && full[len - 1] == '/'; len--)
		full[len - 1] = '\0';
	return full;
}

int host_paths_in_full(const char *folder, json_t *mounts, struct error *err)
{
	json_t *mount;
	size_t i;

	json_array_foreach(mounts, i, mount) {
		const char *text = json_string_value(json_object_get(mount, "host_path"));
		cleanup_free char *full = text ? host_path_in_full(folder, text, err) : NULL;

		if (text && !full) {
			error_in_field(err, "host_path");
			return error_in_field(err, "mounts[%zu]", i);
		}
		if (full)
			json_object_set_new(mount, "host_path", json_string(full));
	}
	return 0;
}
