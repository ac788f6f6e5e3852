#include "api/allowed_folders.h"

#include "api/mounts.h"

#include <errno.h>
#include <string.h>

#define EVERY_PROJECT "*"

int allowed_folders_add(const char *text, struct allowed_folders *ret, struct error *err)
{
	struct allowed_folder *folder = &ret->items[ret->len];
	const char *equals = text[0] == '/' ? NULL : strchr(text, '=');
	int len = equals ? (int)(equals - text) : 0;

	if (ret->len == ALLOWED_FOLDERS_MAX)
		return error_set(err, EINVAL, "may be there %d times at most", ALLOWED_FOLDERS_MAX);
	if (len > NAME_MAX_BYTES)
		return error_set(err, EINVAL, "the project's name must have at most %d bytes", NAME_MAX_BYTES);
	snprintf(folder->project, sizeof(folder->project), "%.*s", equals ? len : (int)strlen(PROJECT_DEFAULT),
		equals ? text : PROJECT_DEFAULT);
	if (strcmp(folder->project, EVERY_PROJECT) != 0 && name_check(folder->project, err) < 0)
		return error_prefix(err, "the project's name: ");
	folder->path = equals ? equals + 1 : text;
	if (host_path_check(folder->path, err) < 0)
		return -err->errnum;
	ret->len++;
	return 0;
}

const char *allowed_folders_find(const struct allowed_folders *folders, const char *project, const char *path)
{
	const char *closest = NULL;

	for (size_t i = 0; i < folders->len; i++) {
		const struct allowed_folder *folder = &folders->items[i];

		if (strcmp(folder->project, EVERY_PROJECT) != 0 && strcmp(folder->project, project) != 0)
			continue;
		if (path_is_or_is_below(path, folder->path) && (!closest || strlen(folder->path) > strlen(closest)))
			closest = folder->path;
	}
	return closest;
}
