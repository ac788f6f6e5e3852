/* The field tables of the API, and the checks of single values they name. */
#include "api/spec.h"

#include "api/keep.h"
#include "api/mounts.h"
#include "common/exec_spec.h"
#include "common/stop_signal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <string.h>

#define STOP_TIMEOUT_S_MAX 3600
#define IDLE_AFTER_S_MAX   (30 * 86400)

const char *const machine_state_names[] = {
	[MACHINE_CREATING] = "creating",
	[MACHINE_CREATED] = "created",
	[MACHINE_STARTING] = "starting",
	[MACHINE_RUNNING] = "running",
	[MACHINE_SUSPENDING] = "suspending",
	[MACHINE_SUSPENDED] = "suspended",
	[MACHINE_RESUMING] = "resuming",
	[MACHINE_STOPPING] = "stopping",
	[MACHINE_STOPPED] = "stopped",
	[MACHINE_FAILED] = "failed",
	NULL,
};
static_assert(ARRAY_SIZE(machine_state_names) == MACHINE_N_STATES + 1, "every state has a name");

const char *const status_cause_names[] = {"poweroff", "reset", "panic", "signal", "error", NULL};
static const char *const policy_names[] = {"never", "on-failure", "always", NULL};

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

enum network_kind network_kind_of(const char *network)
{
	return strcmp(network, "default") == 0 ? NETWORK_DEFAULT : strcmp(network, "none") == 0 ? NETWORK_NONE : NETWORK_NAMED;
}

int name_check(const char *name, struct error *err)
{
	size_t len = strlen(name);
	bool ok = len >= 1 && len <= NAME_MAX_BYTES && is_alnum(name[0]) && is_alnum(name[len - 1]);

	for (size_t i = 0; ok && i < len; i++)
		ok = is_alnum(name[i]) || name[i] == '-';
	if (!ok)
		return error_set(err, EINVAL,
			"must be 1 to %d characters of a-z, 0-9 and -, and begin and end with a letter or digit", NAME_MAX_BYTES);
	return 0;
}

int digest_check(const char *digest, struct error *err)
{
	static const char prefix[] = "sha256:";
	const char *hex = digest + sizeof(prefix) - 1;

	if (strncmp(digest, prefix, sizeof(prefix) - 1) != 0 || strlen(hex) != DIGEST_HEX_BYTES ||
		strspn(hex, "0123456789abcdef") != DIGEST_HEX_BYTES)
		return error_set(err, EINVAL, "must be sha256: and %d lower-case hexadecimal digits", DIGEST_HEX_BYTES);
	return 0;
}

int secret_name_check(const char *name, struct error *err)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_", digits[] = "0123456789";
	size_t len = strlen(name);
	bool ok = len >= 1 && len <= SECRET_NAME_MAX && !strchr(digits, name[0]);

	for (size_t i = 0; ok && i < len; i++)
		ok = strchr(letters, name[i]) || strchr(digits, name[i]);
	if (!ok)
		return error_set(err, EINVAL, "must be 1 to %d letters, digits and _, and not begin with a digit", SECRET_NAME_MAX);
	return 0;
}

/* RFC 1123, section 2.1; the last label begins with a letter, so that it is no address. */
int dns_name_check(const char *hostname, struct error *err)
{
	const char *label = hostname;
	bool ok = strlen(hostname) <= HOSTNAME_MAX_BYTES;

	for (size_t len; ok; label += len + 1) {
		len = strspn(label, "abcdefghijklmnopqrstuvwxyz0123456789-");
		ok = len >= 1 && len <= NAME_MAX_BYTES && label[0] != '-' && label[len - 1] != '-' && strchr(".", label[len]);
		if (ok && !label[len]) {
			ok = label[0] < '0' || label[0] > '9';
			break;
		}
	}
	if (!ok)
		return error_set(err, EINVAL,
			"must be a host name, as web.localhost: at most %d bytes, labels of a-z, 0-9 and - between dots, the last with a "
			"letter first",
			HOSTNAME_MAX_BYTES);
	return 0;
}

bool dns_name_is_within(const char *hostname, const char *domain)
{
	size_t len = strlen(hostname), domain_len = strlen(domain);

	return len >= domain_len && strcmp(hostname + len - domain_len, domain) == 0 &&
	       (len == domain_len || hostname[len - domain_len - 1] == '.');
}

#define OCTET	     "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4_PATTERN "^" OCTET "(\\." OCTET "){3}$"

static int address_check(const char *address, struct error *err)
{
	struct in_addr parsed;

	if (inet_pton(AF_INET, address, &parsed) != 1)
		return error_set(err, EINVAL, "must be an IPv4 address, as 127.0.0.1");
	return 0;
}

static const char *const protocol_names[] = PROTOCOL_NAMES;
static const struct json_field port_fields[] = {
	{"host", JSON_FIELD_INT, offsetof(struct port_spec, host), .min = 1, .max = 65535, .sparse = true,
		.help = "Port on the host; required without a hostname."},
	{"hostname", JSON_FIELD_STRING, offsetof(struct port_spec, hostname), .min = 1, .max = HOSTNAME_MAX_BYTES,
		.check = dns_name_check, .pattern = DNS_NAME_PATTERN,
		.help = "In the place of a port on the host: the name that requests over HTTP and HTTPS are for. Those of one name are "
			"shared by all machines of the project that have it, run, and are healthy where that is looked at."},
	{"guest", JSON_FIELD_INT, offsetof(struct port_spec, guest), .required = true, .min = 1, .max = 65535,
		.help = "Port in the machine, on its loopback address or any other."},
	{"address", JSON_FIELD_STRING, offsetof(struct port_spec, address), .def_string = "127.0.0.1", .max = 15,
		.check = address_check, .pattern = IPV4_PATTERN, .help = "IPv4 address on the host; 0.0.0.0 for all."},
	{"protocol", JSON_FIELD_ENUM, offsetof(struct port_spec, protocol), .names = protocol_names,
		.help = "One number may be published for both."},
};
static const struct json_table port_table = JSON_TABLE("Port", struct port_spec, port_fields);

static const struct json_field restart_fields[] = {
	{"policy", JSON_FIELD_ENUM, offsetof(struct restart_spec, policy), .names = policy_names,
		.help = "When the machine is started again after it ended by itself."},
	{"max_retries", JSON_FIELD_INT, offsetof(struct restart_spec, max_retries), .max = 1000000,
		.help = "Restarts in a row after failed runs; 0: no limit."},
};
static const struct json_table restart_table = JSON_TABLE("Restart", struct restart_spec, restart_fields);

/* What the image says, or one of stop_signal_names. */
static const char *const machine_signal_names[] = {"image", STOP_SIGNALS, NULL};

static const struct json_field stop_fields[] = {
	{"signal", JSON_FIELD_ENUM, offsetof(struct stop_spec, signal), .names = machine_signal_names,
		.help = "What asks the workload to end; image: what the image says, else SIGTERM."},
	{"timeout_s", JSON_FIELD_INT, offsetof(struct stop_spec, timeout_s), .def = 10, .max = STOP_TIMEOUT_S_MAX,
		.help = "Seconds that a stop takes at most, unless it says otherwise: then the machine is killed."},
	{"drain_s", JSON_FIELD_INT, offsetof(struct stop_spec, drain_s), .def = 5, .max = STOP_TIMEOUT_S_MAX,
		.help = "Of these, seconds that connections to its ports have to end before the workload is asked to; half of the stop's at most."},
};
static const struct json_table stop_table = JSON_TABLE("Stop", struct stop_spec, stop_fields);

static const struct json_field logs_fields[] = {
	{"max_mib", JSON_FIELD_INT, offsetof(struct logs_spec, max_mib), .max = KEEP_MIB_MAX,
		.help = "MiB that are kept of each, the newest; 0, or more than the host's: the host's (--log-keep of hulld, 16)."},
	{"max_age_days", JSON_FIELD_INT, offsetof(struct logs_spec, max_age_days), .max = KEEP_DAYS_MAX,
		.help = "Days that what is in one is kept; 0, or more than the host's: the host's (--log-keep of hulld, 90)."},
};
static const struct json_table logs_table = JSON_TABLE("Logs", struct logs_spec, logs_fields);

static const char *const idle_action_names[] = {[IDLE_STOP] = "stop", [IDLE_SUSPEND] = "suspend", NULL};

static const struct json_field idle_fields[] = {
	{"after_s", JSON_FIELD_INT, offsetof(struct idle_spec, after_s), .required = true, .min = 1, .max = IDLE_AFTER_S_MAX,
		.help = "Seconds for which no connection to its ports may have been there, no client of a UDP port have sent anything, no "
			"program have been executed in it and no file copied."},
	{"action", JSON_FIELD_ENUM, offsetof(struct idle_spec, action), .names = idle_action_names,
		.help = "stop: it is stopped, and asleep; who connects to one of its ports has it started, and waits for it. suspend: it is suspended, "
			"and then resumed."},
};
static const struct json_table idle_table = JSON_TABLE("Idle", struct idle_spec, idle_fields);

static const char *const condition_names[] = {
	[DEPENDS_READY] = "ready",
	[DEPENDS_STARTED] = "started",
	[DEPENDS_HEALTHY] = "healthy",
	[DEPENDS_COMPLETED] = "completed",
	NULL,
};

static const struct json_field dependency_fields[] = {
	{"machine", JSON_FIELD_STRING, offsetof(struct dependency_spec, machine), .required = true, .max = NAME_MAX_BYTES,
		.check = name_check, .pattern = NAME_PATTERN, .help = "Name of another machine of the project."},
	{"condition", JSON_FIELD_ENUM, offsetof(struct dependency_spec, condition), .names = condition_names,
		.help = "What has to be so of it: started, healthy, completed (its last run ended with status 0), or ready: "
			"healthy if it has a health check, else started."},
};
static const struct json_table dependency_table = JSON_TABLE("Dependency", struct dependency_spec, dependency_fields);

/* A machine has as long to come up as its checks take to fail, and more only if that is said: so a check means the same with it and
 * without, and what was stored before there was any. A day, as between two checks: an import at the first start, a database's log. */
#define GRACE_S_MAX 86400

#define HEALTH_SPEC_FIELDS                                                                                    \
	HEALTH_CHECK_FIELDS,                                                                                          \
	{"interval_s", JSON_FIELD_INT, offsetof(struct health_spec, interval_s), .def = 10, .min = 1, .max = 86400,     \
		.help = "Seconds from the end of one check to the next."},                                              \
	{"timeout_s", JSON_FIELD_INT, offsetof(struct health_spec, timeout_s), .def = 2, .min = 1, .max = 300,          \
		.help = "Seconds that one check may take."},                                                            \
	{"retries", JSON_FIELD_INT, offsetof(struct health_spec, retries), .def = 3, .min = 1, .max = 1000,             \
		.help = "Checks in a row that have to fail until it is unhealthy."},                                    \
	{"grace_s", JSON_FIELD_INT, offsetof(struct health_spec, grace_s), .max = GRACE_S_MAX,                         \
		.help = "Seconds from the workload's start in which it may come up: until the first success, what fails in "  \
			"them does not count. The time for which it is frozen is none of them."}

static const struct json_field health_spec_fields[] = {HEALTH_SPEC_FIELDS};
static const struct json_table health_spec_table =
	JSON_TABLE_WITH_RULE("HealthSpec", struct health_spec, health_spec_fields, HEALTH_CHECK_RULE);

const char *const health_state_names[] = {
	[HEALTH_UNKNOWN] = "unknown",
	[HEALTH_STARTING] = "starting",
	[HEALTH_HEALTHY] = "healthy",
	[HEALTH_UNHEALTHY] = "unhealthy",
	NULL,
};

static const struct json_field health_fields[] = {
	HEALTH_SPEC_FIELDS,
	{"state", JSON_FIELD_ENUM, offsetof(struct health_view, state), .names = health_state_names, .read_only = true,
		.help = "unknown: it does not run; starting: no check has succeeded yet."},
	{"reason", JSON_FIELD_STRING, offsetof(struct health_view, reason), .read_only = true, .nullable = true,
		.help = "Why the last check failed."},
	{"since", JSON_FIELD_STRING, offsetof(struct health_view, since), .read_only = true, .nullable = true,
		.help = "When it came into this state."},
};
static const struct json_table health_table = JSON_TABLE("Health", struct health_view, health_fields);

/* The fields that MachineSpec and Machine share; offsets are the same in both, the spec being first in the view. */
#define MACHINE_SPEC_FIELDS                                                                                   \
	{"name", JSON_FIELD_STRING, offsetof(struct machine_spec, name), .max = NAME_MAX_BYTES, .check = name_check,   \
		.pattern = NAME_PATTERN, .help = "Unique; made up when absent."},                                      \
	{"image", JSON_FIELD_STRING, offsetof(struct machine_spec, image), .required = true, .max = NAME_MAX_BYTES,    \
		.check = name_check, .pattern = NAME_PATTERN, .help = "Name of an image."},                             \
	{"cpus", JSON_FIELD_INT, offsetof(struct machine_spec, cpus), .def = 1, .min = 1, .max = 32,                   \
		.help = "Virtual processors."},                                                                        \
	{"memory_mib", JSON_FIELD_INT, offsetof(struct machine_spec, memory_mib), .def = 256, .min = 64,              \
		.max = 1048576, .help = "Memory in MiB; at most what the host has."},                                  \
	{"disk_mib", JSON_FIELD_INT, offsetof(struct machine_spec, disk_mib), .def = 1024, .min = 16,                  \
		.max = 16777216, .help = "Size in MiB of the machine's own sparse disk, which takes all writes."},     \
	{"command", JSON_FIELD_STRINGS, offsetof(struct machine_spec, command), .item_max = EXEC_ARGUMENT_MAX,         \
		.first_min = 1, .help = "Program and arguments; the image's when absent."},                                            \
	{"env", JSON_FIELD_MAP, offsetof(struct machine_spec, env), .check = exec_check_env_name,                      \
		.pattern = EXEC_ENV_NAME_PATTERN, .help = "Environment variables, laid over the image's."},            \
	{"secrets", JSON_FIELD_STRINGS, offsetof(struct machine_spec, secrets), .max = SECRETS_MAX,                    \
		.check = secret_name_check, .pattern = SECRET_NAME_PATTERN, .schema = "{\"uniqueItems\": true}",           \
		.help = "Names of the project's secrets, whose values are variables of that name at each start."},     \
	{"user", JSON_FIELD_STRING, offsetof(struct machine_spec, user), .min = 1, .max = 255,                         \
		.help = "User name or number, optionally :group; the image's when absent."},                           \
	{"workdir", JSON_FIELD_STRING, offsetof(struct machine_spec, workdir), .min = 1, .check = exec_check_folder,   \
		.pattern = EXEC_FOLDER_PATTERN, .help = "Working directory; the image's when absent."},                \
	{"ports", JSON_FIELD_ARRAY, offsetof(struct machine_spec, ports), .table = &port_table, .max = 64,             \
		.help = "Ports published on the host, or by host name."},                                                           \
	{"mounts", JSON_FIELD_ARRAY, offsetof(struct machine_spec, mounts), .table = &mount_table, .max = MOUNTS_MAX,   \
		.help = "What lasts longer than the machine, and where it is found in it."},                           \
	{"network", JSON_FIELD_STRING, offsetof(struct machine_spec, network), .def_string = "default",                \
		.max = NAME_MAX_BYTES, .check = name_check, .pattern = NAME_PATTERN,                                           \
		.help = "default: outgoing connections by way of the host; none: loopback only; or the name of a network."}, \
	{"restart", JSON_FIELD_OBJECT, offsetof(struct machine_spec, restart), .table = &restart_table},               \
	{"stop", JSON_FIELD_OBJECT, offsetof(struct machine_spec, stop), .table = &stop_table,                         \
		.help = "How it is asked to end."},                                                                    \
	{"logs", JSON_FIELD_OBJECT, offsetof(struct machine_spec, logs), .table = &logs_table,                         \
		.help = "How much of what it and its monitor say is kept, and for how long."},                         \
	{"depends_on", JSON_FIELD_ARRAY, offsetof(struct machine_spec, depends_on), .table = &dependency_table,         \
		.max = DEPENDS_ON_MAX, .help = "Other machines that have to be there before it is started."},           \
	{"idle", JSON_FIELD_OPTIONAL, offsetof(struct machine_spec, idle), .table = &idle_table,                        \
		.help = "What becomes of it when nobody uses it; absent: nothing."},                                    \
	{"labels", JSON_FIELD_MAP, offsetof(struct machine_spec, labels), .help = "Free for clients."}

static const struct json_field machine_spec_fields[] = {
	MACHINE_SPEC_FIELDS,
	{"health", JSON_FIELD_OPTIONAL, offsetof(struct machine_spec, health), .table = &health_spec_table,
		.help = "What is asked, again and again, to know whether it works."},
};
const struct json_table machine_spec_table = JSON_TABLE("MachineSpec", struct machine_spec, machine_spec_fields);

static const struct json_field cause_fields[] = {
	{"code", JSON_FIELD_STRING, offsetof(struct machine_cause, code), .required = true,
		.help = "poweroff, reset, panic, signal, error (from the monitor); stopped, killed, start_timeout, start_failed, "
			"monitor_died, host_restarted, folder_lost, dependency_failed, dependency_timeout, "
			"cancelled, idle, suspend_failed, suspend_timeout, resume_failed (from hulld)."},
	{"message", JSON_FIELD_STRING, offsetof(struct machine_cause, message), .required = true},
};
static const struct json_table cause_table = JSON_TABLE("Cause", struct machine_cause, cause_fields);

#define VIEW(name_, type_, member_) .name = (name_), .type = (type_), .offset = offsetof(struct machine_view, member_)
static const struct json_field machine_fields[] = {
	MACHINE_SPEC_FIELDS,
	{VIEW("id", JSON_FIELD_STRING, id), .read_only = true, .help = "m and 12 base32 characters."},
	{VIEW("project", JSON_FIELD_STRING, project), .read_only = true},
	{VIEW("state", JSON_FIELD_ENUM, state), .names = machine_state_names, .read_only = true},
	{VIEW("rootfs", JSON_FIELD_STRING, rootfs), .read_only = true,
		.help = "Digest of its image's content; of what it is to be, while image is pending."},
	{VIEW("health", JSON_FIELD_OPTIONAL, health), .table = &health_table, .read_only = true,
		.help = "What is asked to know whether it works, and what is known."},
	{VIEW("asleep", JSON_FIELD_BOOL, asleep), .read_only = true,
		.help = "It does not run as nobody has used it, and is started as soon as somebody connects to one of its ports."},
	{VIEW("frozen", JSON_FIELD_BOOL, frozen), .read_only = true, .help = "Its programs stand still, as they were told to."},
	{VIEW("cause", JSON_FIELD_OPTIONAL, cause), .table = &cause_table, .read_only = true, .nullable = true,
		.help = "Why the last run ended."},
	{VIEW("exit_status", JSON_FIELD_ANY, exit_status), .read_only = true, .nullable = true, .schema = "{\"type\": \"integer\"}",
		.help = "Exit status of the workload in its last run; 128 + N when signal N ended it."},
	{VIEW("pid", JSON_FIELD_ANY, pid), .read_only = true, .nullable = true, .schema = "{\"type\": \"integer\"}",
		.help = "Process id of the monitor."},
	{VIEW("pending", JSON_FIELD_STRINGS, pending), .read_only = true,
		.help = "Fields that were changed while it ran, and take effect when it is started again."},
	{VIEW("waiting_for", JSON_FIELD_STRINGS, waiting_for), .read_only = true,
		.help = "The machines that its start waits for, of those that it depends on."},
	{VIEW("restarts", JSON_FIELD_INT, restarts), .read_only = true, .max = INT64_MAX,
		.help = "How often it was started again without being asked."},
	{VIEW("created_at", JSON_FIELD_STRING, created_at), .read_only = true},
	{VIEW("started_at", JSON_FIELD_STRING, started_at), .read_only = true, .nullable = true},
	{VIEW("stopped_at", JSON_FIELD_STRING, stopped_at), .read_only = true, .nullable = true},
	{VIEW("address", JSON_FIELD_STRING, address), .read_only = true, .nullable = true, .help = "Its own in its network."},
	{VIEW("operation", JSON_FIELD_STRING, operation), .read_only = true, .nullable = true,
		.help = "Id of the operation that is under way on it."},
};
const struct json_table machine_table = JSON_TABLE("Machine", struct machine_view, machine_fields);

static const struct json_field image_config_fields[] = {
	{"command", JSON_FIELD_STRINGS, offsetof(struct image_config, command), .first_min = 1, .help = "Program and arguments."},
	{"env", JSON_FIELD_MAP, offsetof(struct image_config, env), .check = exec_check_env_name,
		.pattern = EXEC_ENV_NAME_PATTERN},
	{"user", JSON_FIELD_STRING, offsetof(struct image_config, user), .min = 1, .max = 255, .nullable = true},
	{"workdir", JSON_FIELD_STRING, offsetof(struct image_config, workdir), .min = 1, .check = exec_check_folder,
		.pattern = EXEC_FOLDER_PATTERN, .nullable = true},
	{"stop_signal", JSON_FIELD_ENUM, offsetof(struct image_config, stop_signal), .names = stop_signal_names, .sparse = true,
		.help = "What asks the workload to end, where a machine does not say so."},
	{"ports", JSON_FIELD_ANY, offsetof(struct image_config, ports),
		.schema = "{\"type\": \"array\", \"items\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 65535}}",
		.help = "Array of the TCP port numbers the workload listens on; nothing is published by it."},
};
const struct json_table image_config_table = JSON_TABLE("ImageConfig", struct image_config, image_config_fields);

#define IMAGE_SPEC_FIELDS                                                                                     \
	{"name", JSON_FIELD_STRING, offsetof(struct image_spec, name), .required = true, .max = NAME_MAX_BYTES,        \
		.check = name_check, .pattern = NAME_PATTERN},                                                         \
	{"rootfs", JSON_FIELD_STRING, offsetof(struct image_spec, rootfs), .required = true, .check = digest_check,    \
		.pattern = DIGEST_PATTERN, .help = "Digest of an uploaded EROFS file system."},                                                   \
	{"config", JSON_FIELD_OBJECT, offsetof(struct image_spec, config), .table = &image_config_table},              \
	{"labels", JSON_FIELD_MAP, offsetof(struct image_spec, labels), .help = "Free for clients."}

static const struct json_field image_spec_fields[] = {IMAGE_SPEC_FIELDS};
const struct json_table image_spec_table = JSON_TABLE("ImageSpec", struct image_spec, image_spec_fields);

static const struct json_field image_fields[] = {
	IMAGE_SPEC_FIELDS,
	{"size_bytes", JSON_FIELD_INT, offsetof(struct image_view, size_bytes), .read_only = true, .max = INT64_MAX},
	{"created_at", JSON_FIELD_STRING, offsetof(struct image_view, created_at), .read_only = true},
};
const struct json_table image_table = JSON_TABLE("Image", struct image_view, image_fields);

static const char *const encoding_names[] = {"utf-8", "base64", NULL};
static const struct json_field exec_result_fields[] = {
	{"exit_status", JSON_FIELD_INT, offsetof(struct exec_result, exit_status), .required = true, .max = 255,
		.help = "128 + N when signal N ended it; 126 and 127 as shells have them."},
	{"stdout", JSON_FIELD_STRING, offsetof(struct exec_result, standard_output), .required = true, .read_only = true},
	{"stderr", JSON_FIELD_STRING, offsetof(struct exec_result, standard_error), .required = true, .read_only = true},
	{"encoding", JSON_FIELD_ENUM, offsetof(struct exec_result, encoding), .names = encoding_names,
		.help = "Of stdout and stderr; base64 when one of them is no text."},
	{"truncated", JSON_FIELD_BOOL, offsetof(struct exec_result, truncated),
		.help = "It wrote more than 1 MiB to one of them; what came after that is missing."},
};
const struct json_table exec_result_table = JSON_TABLE("ExecResult", struct exec_result, exec_result_fields);

static const struct json_field start_request_fields[] = {
	{"attached", JSON_FIELD_BOOL, offsetof(struct start_request, attached),
		.help = "Its command waits, for a minute, until it is executed as the workload."},
};
const struct json_table start_request_table = JSON_TABLE("StartRequest", struct start_request, start_request_fields);

static const struct json_field stop_request_fields[] = {
	{"timeout_s", JSON_FIELD_INT, offsetof(struct stop_request, timeout_s), .def = -1, .max = STOP_TIMEOUT_S_MAX,
		.help = "Seconds until the monitor is killed; the machine's own when absent."},
};
const struct json_table stop_request_table = JSON_TABLE("StopRequest", struct stop_request, stop_request_fields);

static const struct json_field status_record_fields[] = {
	{"cause", JSON_FIELD_ENUM, offsetof(struct status_record, cause), .required = true, .names = status_cause_names},
	{"exit_status", JSON_FIELD_ANY, offsetof(struct status_record, exit_status)},
	{"message", JSON_FIELD_STRING, offsetof(struct status_record, message), .nullable = true},
	{"field", JSON_FIELD_STRING, offsetof(struct status_record, field), .nullable = true},
};
const struct json_table status_record_table =
	JSON_TABLE("StatusRecord", struct status_record, status_record_fields);

int image_spec_check(const struct image_spec *spec, struct error *err)
{
	const json_t *ports = spec->config.ports, *item;
	int64_t port;
	size_t i;

	if (!ports)
		return 0;
	if (!json_is_array(ports))
		return error_set_field(err, EINVAL, "config.ports", "must be an array of port numbers");
	json_array_foreach(ports, i, item) {
		if (json_as_int(item, &port) && port >= 1 && port <= 65535)
			continue;
		error_set(err, EINVAL, "must be a port number, 1 to 65535");
		return error_in_field(err, "config.ports[%zu]", i);
	}
	return 0;
}

bool ports_are_same(const struct port_spec *a, const struct port_spec *b)
{
	if (a->hostname || b->hostname)
		return a->hostname && b->hostname && a->guest == b->guest; /* one socket, for however many names */
	return a->host == b->host && a->protocol == b->protocol && strcmp(a->address, b->address) == 0;
}

static bool ports_collide(const struct port_spec *a, const struct port_spec *b)
{
	if (a->hostname || b->hostname || a->host != b->host || a->protocol != b->protocol)
		return false;
	return strcmp(a->address, b->address) == 0 || strcmp(a->address, "0.0.0.0") == 0 || strcmp(b->address, "0.0.0.0") == 0;
}

bool machine_spec_collides(const struct machine_spec *spec, const struct port_spec *port)
{
	const struct port_spec *ports = spec->ports.items;

	for (size_t i = 0; i < spec->ports.len; i++)
		if (ports_collide(port, &ports[i]))
			return true;
	return false;
}

/* What one port says of itself, and of those before it. */
static int port_check(const struct port_spec *ports, size_t i, struct error *err)
{
	const struct port_spec *port = &ports[i];

	if (!port->hostname && !port->host)
		return error_set_field(err, ENODATA, "host", "is required, or a hostname");
	if (port->hostname && port->host)
		return error_set_field(err, EINVAL, "host", "does not go with a hostname");
	if (port->hostname && strcmp(port->address, "127.0.0.1") != 0)
		return error_set_field(err, EINVAL, "address", "does not go with a hostname");
	if (port->hostname && port->protocol != PROTOCOL_TCP)
		return error_set_field(err, EINVAL, "protocol", "does not go with a hostname");
	for (size_t j = 0; j < i; j++) {
		if (ports_collide(port, &ports[j]))
			return error_set_field(err, EINVAL, "host", "%lld is published twice", (long long)port->host);
		if (port->hostname && ports[j].hostname && strcmp(port->hostname, ports[j].hostname) == 0)
			return error_set_field(err, EINVAL, "hostname", "%.100s is there twice", port->hostname);
	}
	return 0;
}

/* What a folder of the host's server knows is not saved. */
static int check_idle(const struct machine_spec *spec, struct error *err)
{
	const struct mount_spec *mounts = spec->mounts.items;

	if (!spec->idle || spec->idle->action != IDLE_SUSPEND)
		return 0;
	for (size_t i = 0; i < spec->mounts.len; i++)
		if (mounts[i].host_path)
			return error_set_field(err, EINVAL, "idle.action", "cannot be suspend: mounts[%zu] is a folder of the host", i);
	return 0;
}

int machine_spec_check(const struct machine_spec *spec, uint64_t host_memory_mib, struct error *err)
{
	const struct port_spec *ports = spec->ports.items;

	if ((uint64_t)spec->memory_mib > host_memory_mib)
		return error_set_field(err, EINVAL, "memory_mib", "%lld MiB is more than this host's %llu MiB",
			(long long)spec->memory_mib, (unsigned long long)host_memory_mib);
	if (spec->health && health_check_check(&spec->health->check, err) < 0)
		return error_in_field(err, "health");
	for (size_t i = 0; i < spec->ports.len; i++)
		if (port_check(ports, i, err) < 0)
			return error_in_field(err, "ports[%zu]", i);
	return check_idle(spec, err) < 0 ? -EINVAL : mounts_check(&spec->mounts, err);
}
