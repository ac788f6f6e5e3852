/* What --volume says of a machine's mounts. */
#include "cli/mount.h"

#include "cli/host_path.h"
#include "cli/output.h"
#include "cli/spec.h"
#include "common/cleanup.h"

#include <stdlib.h>
#include <string.h>

/* A volume's name as it is, a folder of the host in full. The caller frees; NULL with `fail` set. */
static char *read_source(const char *text, size_t len, struct failure *fail)
{
	char *source = strndup(text, len), *full;
	struct error err;

	if (!source)
		abort();
	if (!host_path_is(source))
		return source;
	full = host_path_in_full(".", source, &err);
	free(source);
	if (!full)
		failure_usage(fail, "--volume", "%s", err.message);
	return full;
}

/* "SOURCE:PATH[:ro]"; a PATH with a colon has a mode behind it. */
static json_t *parse(const char *text, struct failure *fail)
{
	const char *path = strchr(text, ':'), *mode = path ? strrchr(path + 1, ':') : NULL;
	bool has_mode = mode && (strcmp(mode, ":ro") == 0 || strcmp(mode, ":rw") == 0);
	size_t path_len = path ? strlen(path + 1) - (has_mode ? 3 : 0) : 0;
	cleanup_free char *source = NULL;
	json_t *mount;

	if (!path || path == text || !path_len) {
		failure_usage(fail, "--volume", "\"%s\" is not VOLUME:PATH[:ro] or FOLDER:PATH[:ro]", text);
		failure_hint(fail, "for example -v data:/var/lib/data, or -v ./src:/srv");
		return NULL;
	}
	if (mode && !has_mode) {
		failure_usage(fail, "--volume", "\"%s\" ends with \"%s\", which is neither ro nor rw", text, mode + 1);
		failure_hint(fail, "a folder of such a name is %s:rw", text);
		return NULL;
	}
	source = read_source(text, (size_t)(path - text), fail);
	if (!source)
		return NULL;
	mount = json_pack("{s:s, s:s%, s:b}", host_path_is(source) ? "host_path" : "volume", source, "path", path + 1, path_len, "read_only",
		has_mode && strcmp(mode, ":ro") == 0);
	if (!mount)
		failure_usage(fail, "--volume", "is not UTF-8");
	return mount;
}

static const char *source_of(const json_t *mount)
{
	const char *folder = json_string_value(json_object_get(mount, "host_path"));

	return folder ? folder : json_text(mount, "volume");
}

static size_t find(const json_t *mounts, const char *source)
{
	size_t i = 0;

	while (i < json_array_size(mounts) && strcmp(source_of(json_array_get(mounts, i)), source) != 0)
		i++;
	return i;
}

static int add(json_t *mounts, const char *text, bool replaces, struct failure *fail)
{
	json_t *mount = parse(text, fail);
	size_t i;

	if (!mount)
		return -fail->error.errnum;
	i = replaces ? find(mounts, source_of(mount)) : json_array_size(mounts);
	if (i < json_array_size(mounts))
		json_array_set_new(mounts, i, mount);
	else
		json_array_append_new(mounts, mount);
	return 0;
}

static int take_away(json_t *mounts, const char *text, struct failure *fail)
{
	cleanup_free char *source = read_source(text, strlen(text), fail);
	size_t i;

	if (!source)
		return -fail->error.errnum;
	i = find(mounts, source);
	if (i == json_array_size(mounts))
		return failure_usage(fail, "--volume", "%s is not mounted", source);
	json_array_remove(mounts, i);
	return 0;
}

int spec_add_mounts(const struct args *args, const json_t *before, json_t *spec, struct failure *fail)
{
	json_t *mounts = json_is_array(before) ? json_deep_copy(before) : json_array();
	const char *value;
	size_t i = 0;
	int r = 0;

	while (r == 0 && (value = args_next(args, "volume", &i))) {
		cleanup_free char *removed = before ? spec_removed_name(value) : NULL;

		r = removed ? take_away(mounts, removed, fail) : add(mounts, value, before, fail);
	}
	if (args_value(args, "volume"))
		json_object_set(spec, "mounts", mounts);
	json_decref(mounts);
	return r;
}

bool mount_missing(const json_t *spec, const struct failure *fail, const char **ret_volume)
{
	size_t i;

	if (strcmp(fail->code, "not_found") != 0 || sscanf(fail->error.field, "mounts[%zu].volume", &i) != 1)
		return false;
	*ret_volume = json_text(json_array_get(json_object_get(spec, "mounts"), i), "volume");
	return true;
}
