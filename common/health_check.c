/* How it is found out whether what a machine is for works. */
#include "common/health_check.h"

#include "common/exec_spec.h"

#include <errno.h>

#define PATH_BYTES_MAX 1024

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
		.check = check_path, .help = "What is asked for."},
};
const struct json_table health_http_table = JSON_TABLE("HealthHttp", struct health_http, http_fields);

static const struct json_field tcp_fields[] = {
	{"port", JSON_FIELD_INT, offsetof(struct health_tcp, port), .required = true, .min = 1, .max = 65535,
		.help = "TCP port in the machine."},
};
const struct json_table health_tcp_table = JSON_TABLE("HealthTcp", struct health_tcp, tcp_fields);

static const struct json_field exec_fields[] = {
	{"command", JSON_FIELD_STRINGS, offsetof(struct health_exec, command), .required = true, .min = 1, .max = 4096,
		.item_max = EXEC_ARGUMENT_MAX, .help = "Program and arguments; it is run as the workload's user, in its folder."},
};
const struct json_table health_exec_table = JSON_TABLE("HealthExec", struct health_exec, exec_fields);

static const struct json_field check_fields[] = {HEALTH_CHECK_FIELDS};
const struct json_table health_check_table = JSON_TABLE("HealthCheck", struct health_check, check_fields);

int health_check_check(const struct health_check *check, struct error *err)
{
	if (!!check->http + !!check->tcp + !!check->exec != 1)
		return error_set(err, EINVAL, "must have one of http, tcp and exec");
	if (check->exec && !check->exec->command.items[0][0])
		return error_set_field(err, EINVAL, "exec.command[0]", "must not be empty");
	return 0;
}
