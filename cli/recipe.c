/* Reading and checking recipes. */
#include "cli/recipe.h"

#include "cli/spec.h"
#include "common/buf.h"
#include "common/checked.h"
#include "common/stop_signal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define RECIPE_MAX_BYTES (1u << 20)

/* True when `text` has only characters of `more`, letters, digits; and begins with a small letter or a digit. */
static bool is_word(const char *text, const char *more)
{
	if (!islower((unsigned char)text[0]) && !isdigit((unsigned char)text[0]))
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr(more, *text))
			return false;
	return true;
}

/* A package's name, and perhaps "=VERSION" (Debian policy 5.6.1, 5.6.12): nothing that apt or mmdebstrap would take for a
 * pattern, an option or a list. */
static int check_package(const char *value, struct error *err)
{
	return is_word(value, "+-.=~:") ? 0 : error_set(err, EINVAL, "\"%s\" is no name of a Debian package", value);
}

/* What a shell script and passwd(5) can hold: "user", "user:group", by name or number. */
static int check_owner(const char *value, struct error *err)
{
	const char *colon = strchr(value, ':');

	if (is_word(value, "_-:") && strlen(value) <= 65 && (!colon || (colon[1] && !strchr(colon + 1, ':'))))
		return 0;
	return error_set(err, EINVAL, "\"%s\" is no USER or USER:GROUP", value);
}

static bool has_dots(const char *path)
{
	for (const char *c = path; *c;) {
		size_t len = strcspn(c, "/");

		if ((len == 1 && c[0] == '.') || (len == 2 && c[0] == '.' && c[1] == '.'))
			return true;
		c += len + (c[len] == '/');
	}
	return false;
}

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

static int check_to(const char *value, struct error *err)
{
	if (value[0] != '/' || !value[1] || value[strlen(value) - 1] == '/' || strstr(value, "//"))
		return error_set(err, EINVAL, "\"%s\" is no absolute path of a file in the image", value);
	if (has_dots(value) || has_control(value))
		return error_set(err, EINVAL, "\"%s\": neither \".\", \"..\" nor control characters", value);
	return 0;
}

static int check_mode(const char *value, struct error *err)
{
	if (strlen(value) > 4 || strspn(value, "01234567") != strlen(value))
		return error_set(err, EINVAL, "\"%s\" is no octal mode as \"0755\"", value);
	return 0;
}

static int check_workdir(const char *value, struct error *err)
{
	return value[0] == '/' && !has_control(value) ? 0 : error_set(err, EINVAL, "must be absolute");
}

/* As the API, which would say so only when the image is made. */
static int check_env_name(const char *value, struct error *err)
{
	return value[0] && !strchr(value, '=') ? 0 : error_set(err, EINVAL, "is no name of an environment variable");
}

static int check_name(const char *value, struct error *err)
{
	size_t len = strlen(value);

	if (len <= 63 && strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-") == len && value[0] != '-' &&
		value[len - 1] != '-')
		return 0;
	return error_set(err, EINVAL, "\"%s\": small letters, digits and dashes between them, 63 at most", value);
}

static const struct json_field copy_fields[] = {
	{"from", JSON_FIELD_STRING, offsetof(struct recipe_copy, from), .required = true, .min = 1},
	{"to", JSON_FIELD_STRING, offsetof(struct recipe_copy, to), .required = true, .min = 1, .check = check_to},
	{"owner", JSON_FIELD_STRING, offsetof(struct recipe_copy, owner), .min = 1, .check = check_owner},
	{"mode", JSON_FIELD_STRING, offsetof(struct recipe_copy, mode), .min = 3, .check = check_mode},
};
static const struct json_table copy_table = JSON_TABLE("Copy", struct recipe_copy, copy_fields);

static const struct json_field config_fields[] = {
	{"command", JSON_FIELD_STRINGS, offsetof(struct recipe_config, command)},
	{"env", JSON_FIELD_MAP, offsetof(struct recipe_config, env), .check = check_env_name},
	{"user", JSON_FIELD_STRING, offsetof(struct recipe_config, user), .min = 1, .check = check_owner},
	{"workdir", JSON_FIELD_STRING, offsetof(struct recipe_config, workdir), .min = 1, .check = check_workdir},
	{"stop_signal", JSON_FIELD_ENUM, offsetof(struct recipe_config, stop_signal), .names = stop_signal_names, .sparse = true},
	{"ports", JSON_FIELD_ANY, offsetof(struct recipe_config, ports)},
};
const struct json_table recipe_config_table = JSON_TABLE("ImageConfig", struct recipe_config, config_fields);

static const struct json_field recipe_fields[] = {
	{"name", JSON_FIELD_STRING, offsetof(struct recipe, name), .min = 1, .check = check_name},
	{"packages", JSON_FIELD_STRINGS, offsetof(struct recipe, packages), .check = check_package},
	{"copy", JSON_FIELD_ARRAY, offsetof(struct recipe, copy), .table = &copy_table},
	{"run", JSON_FIELD_STRINGS, offsetof(struct recipe, run)},
	{"config", JSON_FIELD_OBJECT, offsetof(struct recipe, config), .table = &recipe_config_table},
	{"labels", JSON_FIELD_MAP, offsetof(struct recipe, labels)},
};
const struct json_table recipe_table = JSON_TABLE("Recipe", struct recipe, recipe_fields);

static int add_copies(const struct args *args, json_t *copies, struct failure *fail)
{
	const char *value;
	size_t i = 0;

	while ((value = args_next(args, "copy", &i))) {
		const char *colon = strrchr(value, ':');

		if (!colon || colon == value)
			return failure_usage(fail, "--copy", "\"%s\" is not SOURCE:PATH-IN-THE-IMAGE", value);
		if (json_array_append_new(copies, json_pack("{s:s%, s:s}", "from", value, (size_t)(colon - value), "to", colon + 1)) < 0)
			return failure_usage(fail, "--copy", "is not UTF-8");
	}
	return 0;
}

/* Packages, copies and the command as JSON, so that the same table checks them. */
static json_t *json_from_options(const struct args *args, struct failure *fail)
{
	json_t *recipe = json_object(), *packages = json_array(), *copy = json_array(), *command = json_array();
	json_t *config = json_object();
	int r = spec_add_texts(args, "package", packages, fail);

	if (r == 0)
		r = add_copies(args, copy, fail);
	if (r == 0)
		r = spec_add_texts(args, "command", command, fail);
	if (r == 0)
		r = spec_add_text(args, "user", config, fail);
	if (r == 0)
		r = spec_add_text(args, "workdir", config, fail);
	json_object_set_new(config, "command", command);
	json_object_set_new(recipe, "packages", packages);
	json_object_set_new(recipe, "copy", copy);
	json_object_set_new(recipe, "config", config);
	if (r == 0)
		return recipe;
	json_decref(recipe);
	return NULL;
}

static json_t *json_from_file(const char *path, struct failure *fail)
{
	struct buf text;
	json_t *json = NULL;
	int r;

	buf_init(&text, RECIPE_MAX_BYTES);
	r = buf_read_file(&text, path);
	if (r < 0)
		failure_usage(fail, "--file", "cannot read %s: %s", path, strerror(-r));
	else if (!(json = json_parse(text.data ? text.data : "", text.len, &fail->error)))
		error_in_field(&fail->error, "%s", path);
	buf_done(&text);
	return json;
}

static int check_ports(const struct recipe *recipe, struct error *err)
{
	const json_t *ports = recipe->config.ports, *port;
	size_t i;

	if (!ports)
		return 0;
	if (!json_is_array(ports))
		return error_set_field(err, EINVAL, "config.ports", "must be an array of port numbers");
	json_array_foreach (ports, i, port)
		if (!json_is_integer(port) || json_integer_value(port) < 1 || json_integer_value(port) > 65535) {
			error_set_field(err, EINVAL, "", "must be a number from 1 to 65535");
			return error_in_field(err, "config.ports[%zu]", i);
		}
	return 0;
}

static int check(const struct recipe *recipe, bool inside, struct error *err)
{
	const struct recipe_copy *copies = recipe->copy.items;

	for (size_t i = 0; i < recipe->copy.len && inside; i++)
		if (copies[i].from[0] == '/' || has_control(copies[i].from)) {
			error_set_field(err, EINVAL, "from", "\"%s\" must be relative to the recipe's folder", copies[i].from);
			return error_in_field(err, "copy[%zu]", i);
		}
	return check_ports(recipe, err);
}

static int open_folder(const char *file, int *ret, struct failure *fail)
{
	const char *slash = file ? strrchr(file, '/') : NULL;
	cleanup_free char *folder = slash ? strndup(file, (size_t)(slash - file) + 1) : strdup(".");

	*ret = folder ? open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	return *ret < 0 ? error_set_errno(&fail->error, errno, "cannot open the folder of %s", file ? file : "files") : 0;
}

int recipe_from_args(struct recipe *ret, int *ret_folder, bool *ret_inside, const struct args *args, struct failure *fail)
{
	static const char *const instead[] = {"package", "copy", "command", "user", "workdir"};
	const char *file = args_value(args, "file"), *name = args->n_operands ? args->operands[0] : NULL;
	json_t *json;
	int r;

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; file && i < ARRAY_SIZE(instead); i++)
		if (args_flag(args, instead[i]))
			return failure_usage(fail, "--file", "not together with --%s: that stands in the recipe", instead[i]);
	if (!file && !args_flag(args, "package") && !args_flag(args, "copy")) {
		failure_usage(fail, "image build", "of what?");
		return failure_hint(fail, "give a recipe with --file, or name packages with --package");
	}
	json = file ? json_from_file(file, fail) : json_from_options(args, fail);
	if (!json)
		return -fail->error.errnum;
	if (name && json_is_object(json))
		json_object_set_new(json, "name", json_string(name));
	r = json_read(&recipe_table, json, ret, &fail->error);
	json_decref(json);
	*ret_inside = file != NULL;
	if (r == 0)
		r = check(ret, *ret_inside, &fail->error);
	if (r == 0 && !ret->name)
		return failure_usage(fail, "NAME", "the image needs a name, here or in the recipe");
	return r < 0 ? r : open_folder(file, ret_folder, fail);
}

void recipe_done(struct recipe *recipe)
{
	json_done(&recipe_table, recipe);
}
