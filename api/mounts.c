#include "api/mounts.h"

#include <errno.h>
#include <string.h>

#define MOUNT_PATH_MAX 1024

/* A name of it that is none but for what the file system makes of it. */
static bool is_needless(const char *name, size_t len)
{
	return len == 0 || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');
}

bool path_is_or_is_below(const char *path, const char *folder)
{
	size_t len = strlen(folder);

	return strncmp(path, folder, len) == 0 && (!path[len] || path[len] == '/');
}

int host_path_check(const char *path, struct error *err)
{
	const char *rest = path;

	do {
		size_t len = rest[0] == '/' ? strcspn(rest + 1, "/") : 0;

		if (is_needless(rest + 1, len))
			return error_set(err, EINVAL, "must be an absolute path, and not /, without empty names, . and .., and without a slash at its end");
		rest += len + 1;
	} while (*rest);
	return 0;
}

int mount_path_check(const char *path, struct error *err)
{
	static const char *const taken[] = {"/proc", "/sys", "/dev", "/run"};

	if (host_path_check(path, err) < 0)
		return -err->errnum;
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		if (path_is_or_is_below(path, taken[i]))
			return error_set(err, EINVAL, "must not be %s, or below it: the machine has its own there", taken[i]);
	return 0;
}

static const struct json_field mount_fields[] = {
	{"volume", JSON_FIELD_STRING, offsetof(struct mount_spec, volume), .max = NAME_MAX_BYTES, .check = name_check,
		.pattern = NAME_PATTERN, .help = "Name of a volume of the project."},
	{"host_path", JSON_FIELD_STRING, offsetof(struct mount_spec, host_path), .max = HOST_PATH_MAX, .check = host_path_check,
		.pattern = HOST_PATH_PATTERN, .help = "A folder of the host, which the host's administrator lets the project's machines see."},
	{"path", JSON_FIELD_STRING, offsetof(struct mount_spec, path), .required = true, .max = MOUNT_PATH_MAX,
		.check = mount_path_check, .pattern = MOUNT_PATH_PATTERN,
		.help = "Folder of the machine; made where there is none. One may be within another."},
	{"read_only", JSON_FIELD_BOOL, offsetof(struct mount_spec, read_only), .help = "The machine cannot write to it."},
};
const struct json_table mount_table =
	JSON_TABLE_WITH_RULE("Mount", struct mount_spec, mount_fields, "{\"oneOf\": [{\"required\": [\"volume\"]}, {\"required\": [\"host_path\"]}]}");

static int mount_check(const struct mount_spec *mounts, size_t i, struct error *err)
{
	const struct mount_spec *mount = &mounts[i];

	if (!mount->volume && !mount->host_path)
		return error_set_field(err, ENODATA, "volume", "is required, or a host_path");
	if (mount->volume && mount->host_path)
		return error_set_field(err, EINVAL, "host_path", "does not go with a volume");
	for (size_t j = 0; j < i; j++) {
		if (strcmp(mount->path, mounts[j].path) == 0)
			return error_set_field(err, EINVAL, "path", "%.200s is there twice", mount->path);
		if (mount->volume && mounts[j].volume && strcmp(mount->volume, mounts[j].volume) == 0)
			return error_set_field(err, EINVAL, "volume", "%s is mounted twice", mount->volume);
	}
	return 0;
}

int mounts_check(const struct json_array *mounts, struct error *err)
{
	for (size_t i = 0; i < mounts->len; i++)
		if (mount_check(mounts->items, i, err) < 0)
			return error_in_field(err, "mounts[%zu]", i);
	return 0;
}
