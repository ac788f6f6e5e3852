#include "api/mounts.h"

#include <errno.h>
#include <string.h>

#define MOUNT_PATH_MAX 1024

/* A name of it that is none but for what the file system makes of it. */
static bool is_needless(const char *name, size_t len)
{
	return len == 0 || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');
}

static bool is_or_is_below(const char *path, const char *folder)
{
	size_t len = strlen(folder);

	return strncmp(path, folder, len) == 0 && (!path[len] || path[len] == '/');
}

int mount_path_check(const char *path, struct error *err)
{
	static const char *const taken[] = {"/proc", "/sys", "/dev", "/run"};

	const char *rest = path;

	do {
		size_t len = rest[0] == '/' ? strcspn(rest + 1, "/") : 0;

		if (is_needless(rest + 1, len))
			return error_set(err, EINVAL, "must be an absolute path, and not /, without empty names, . and ..");
		rest += len + 1;
	} while (*rest);
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		if (is_or_is_below(path, taken[i]))
			return error_set(err, EINVAL, "must not be %s, or below it: the machine has its own there", taken[i]);
	return 0;
}

static const struct json_field mount_fields[] = {
	{"volume", JSON_FIELD_STRING, offsetof(struct mount_spec, volume), .max = NAME_MAX_BYTES, .check = name_check,
		.pattern = NAME_PATTERN, .help = "Name of a volume of the project."},
	{"path", JSON_FIELD_STRING, offsetof(struct mount_spec, path), .required = true, .min = 2, .max = MOUNT_PATH_MAX,
		.check = mount_path_check, .pattern = MOUNT_PATH_PATTERN,
		.help = "Folder of the machine; made where there is none. One may be within another."},
	{"read_only", JSON_FIELD_BOOL, offsetof(struct mount_spec, read_only), .help = "The machine cannot write to it."},
};
const struct json_table mount_table =
	JSON_TABLE_WITH_RULE("Mount", struct mount_spec, mount_fields, "{\"oneOf\": [{\"required\": [\"volume\"]}]}");

static int mount_check(const struct mount_spec *mounts, size_t i, struct error *err)
{
	const struct mount_spec *mount = &mounts[i];

	if (!mount->volume)
		return error_set_field(err, ENODATA, "volume", "is required");
	for (size_t j = 0; j < i; j++) {
		if (strcmp(mount->path, mounts[j].path) == 0)
			return error_set_field(err, EINVAL, "path", "%.200s is there twice", mount->path);
		if (strcmp(mount->volume, mounts[j].volume) == 0)
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
