/* How it is found out whether what a machine is for works. */
#include "common/health_check.h"

#include <errno.h>
#include <string.h>

#define PATH_BYTES_MAX	  1024
#define COMMAND_BYTES_MAX 65536 /* all of it: as JSON, whatever is in it, no more than an order can have */

/* It becomes part of a request's first line. */
static int check_path(const char *path, struct error *err)
{
	const char *c = path;

	while (*c > 0x20 && *c < 0x7f)
		c++;
	return path[0] == '/' && !*c ? 0 : error_set(err, EINVAL, "must begin with / and be printable ASCII without spaces");
}

static const struct json_field http_fields[] = {
	{"port", JSON_FIELD_INT, offsetof(struct health_http, port), .required = true, .min = 1, .max = 65535,
		.help = "TCP port in the machine."},
	{"path", JSON_FIELD_STRING, offsetof(struct health_http, path), .def_string = "/", .min = 1, .max = PATH_BYTES_MAX,
		.check = check_path, .pattern = "^/[!-~]*$", .help = "What is asked for."},
};
const struct json_table health_http_table = JSON_TABLE("HealthHttp", struct health_http, http_fields);

static const struct json_field tcp_fields[] = {
	{"port", JSON_FIELD_INT, offsetof(struct health_tcp, port), .required = true, .min = 1, .max = 65535,
		.help = "TCP port in the machine."},
};
const struct json_table health_tcp_table = JSON_TABLE("HealthTcp", struct health_tcp, tcp_fields);

static const struct json_field exec_fields[] = {
	{"command", JSON_FIELD_STRINGS, offsetof(struct health_exec, command), .required = true, .min = 1,
		.item_max = COMMAND_BYTES_MAX, .first_min = 1, .help = "Program and arguments; it is run as the workload's user, in its folder."},
};
const struct json_table health_exec_table = JSON_TABLE("HealthExec", struct health_exec, exec_fields);

static const struct json_field check_fields[] = {HEALTH_CHECK_FIELDS};
const struct json_table health_check_table =
	JSON_TABLE_WITH_RULE("HealthCheck", struct health_check, check_fields, HEALTH_CHECK_RULE);

static int check_command(const struct json_strings *command, struct error *err)
{
	size_t bytes = 0;

	for (size_t i = 0; i < command->len; i++)
		bytes += strlen(command->items[i]) + 1;
	if (bytes > COMMAND_BYTES_MAX)
		return error_set_field(err, EINVAL, "exec.command", "must not have more than %d bytes", COMMAND_BYTES_MAX);
	return 0;
}

int health_check_check(const struct health_check *check, struct error *err)
{
	if (!!check->http + !!check->tcp + !!check->exec != 1)
		return error_set(err, EINVAL, "must have one of http, tcp and exec");
	return check->exec ? check_command(&check->exec->command, err) : 0;
}
