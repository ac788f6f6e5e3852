/* What to run in a machine, and why it was refused. */
#include "common/exec_spec.h"

#include <errno.h>
#include <string.h>

int exec_check_env_name(const char *name, struct error *err)
{
	if (!name[0] || strchr(name, '='))
		return error_set(err, EINVAL, "is no name of an environment variable");
	return 0;
}

int exec_check_folder(const char *path, struct error *err)
{
	return path[0] == '/' ? 0 : error_set(err, EINVAL, "must be an absolute path");
}

static const struct json_field spec_fields[] = {
	{"command", JSON_FIELD_STRINGS, offsetof(struct exec_spec, command), .sparse = true, .min = 1, .max = 4096,
		.item_max = EXEC_ARGUMENT_MAX, .help = "Program and arguments; without a slash it is looked up in PATH."},
	{"workload", JSON_FIELD_BOOL, offsetof(struct exec_spec, workload),
		.help = "The machine's own command, in a machine that was started as attached."},
	{"env", JSON_FIELD_MAP, offsetof(struct exec_spec, env), .check = exec_check_env_name,
		.pattern = EXEC_ENV_NAME_PATTERN, .help = "Environment variables, laid over the workload's."},
	{"user", JSON_FIELD_STRING, offsetof(struct exec_spec, user), .min = 1, .max = 255,
		.help = "User name or number, optionally :group; the workload's when absent."},
	{"workdir", JSON_FIELD_STRING, offsetof(struct exec_spec, workdir), .min = 1, .check = exec_check_folder,
		.pattern = EXEC_FOLDER_PATTERN, .help = "Working directory; the workload's when absent."},
	{"tty", JSON_FIELD_BOOL, offsetof(struct exec_spec, tty), .help = "Give it a terminal."},
	{"rows", JSON_FIELD_INT, offsetof(struct exec_spec, rows), .def = 24, .min = 1, .max = 65535,
		.help = "Of the terminal."},
	{"columns", JSON_FIELD_INT, offsetof(struct exec_spec, columns), .def = 80, .min = 1, .max = 65535,
		.help = "Of the terminal."},
};
const struct json_table exec_spec_table = JSON_TABLE_WITH_RULE("ExecSpec", struct exec_spec, spec_fields,
	"{\"oneOf\": [{\"required\": [\"command\"], \"properties\": {\"workload\": {\"const\": false}}},"
	" {\"required\": [\"workload\"], \"properties\": {\"workload\": {\"const\": true}, \"command\": false, \"user\": false,"
	" \"workdir\": false}}]}");

int exec_spec_check(const struct exec_spec *spec, struct error *err)
{
	if (!spec->command.len && !spec->workload)
		return error_set_field(err, ENODATA, "command", "is required");
	if (spec->command.len && spec->workload)
		return error_set_field(err, EINVAL, "workload", "it is not together with another command");
	if (spec->workload && (spec->user || spec->workdir))
		return error_set_field(err, EINVAL, spec->user ? "user" : "workdir", "the workload has its own");
	return 0;
}

static const struct json_field refusal_fields[] = {
	{"errno", JSON_FIELD_INT, offsetof(struct exec_refusal, errnum), .required = true, .min = 1, .max = 4095},
	{"field", JSON_FIELD_STRING, offsetof(struct exec_refusal, field), .def_string = "", .max = ERROR_FIELD_MAX - 1},
	{"message", JSON_FIELD_STRING, offsetof(struct exec_refusal, message), .required = true,
		.max = ERROR_MESSAGE_MAX - 1},
};
const struct json_table exec_refusal_table = JSON_TABLE("ExecRefusal", struct exec_refusal, refusal_fields);

json_t *exec_refusal_dump(const struct error *err)
{
	return json_pack("{s:i, s:o, s:o}", "errno", err->errnum, "field", json_lossy_string(err->field), "message",
		json_lossy_string(err->message));
}
