/* Composing a MachineSpec. */
#include "cli/spec.h"

#include "cli/mount.h"
#include "common/buf.h"
#include "common/checked.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ENV_FILE_MAX (1u << 20)

/* The API takes JSON, and JSON is UTF-8. */
static int set_text(json_t *object, const char *key, const char *field, const char *value, struct failure *fail)
{
	if (json_object_set_new(object, key, json_string(value)) < 0)
		return failure_usage(fail, field, "is not UTF-8");
	return 0;
}

int spec_add_texts(const struct args *args, const char *option, json_t *array, struct failure *fail)
{
	const char *value;
	char shown[32];
	size_t i = 0;

	snprintf(shown, sizeof(shown), "--%s", option);
	while ((value = args_next(args, option, &i)))
		if (json_array_append_new(array, json_string(value)) < 0)
			return failure_usage(fail, shown, "is not UTF-8");
	return 0;
}

int spec_add_text(const struct args *args, const char *option, json_t *object, struct failure *fail)
{
	const char *value = args_value(args, option);
	char shown[32];

	snprintf(shown, sizeof(shown), "--%s", option);
	return value ? set_text(object, option, shown, value, fail) : 0;
}

int spec_add_pair(json_t *map, const char *field, const char *pair, struct failure *fail)
{
	const char *equals = strchr(pair, '=');
	cleanup_free char *key = NULL;

	if (!equals || equals == pair)
		return failure_usage(fail, field, "\"%s\" is not KEY=VALUE", pair);
	key = strndup(pair, (size_t)(equals - pair));
	if (!key)
		return error_set(&fail->error, ENOMEM, "out of memory");
	return set_text(map, key, field, equals + 1, fail);
}

static int read_env_file(json_t *env, const char *path, struct failure *fail)
{
	struct buf text;
	char *line, *rest, where[ERROR_FIELD_MAX];
	int r, number = 0;

	buf_init(&text, ENV_FILE_MAX);
	r = buf_read_file(&text, path);
	if (r < 0)
		failure_usage(fail, "--env-file", "cannot read %s: %s", path, strerror(-r));
	else if (text.len && memchr(text.data, '\0', text.len))
		r = failure_usage(fail, "--env-file", "%s is no text", path);
	for (rest = text.data; r == 0 && (line = strsep(&rest, "\n"));) {
		number++;
		if (line[strspn(line, " \t\r")] == '\0' || line[0] == '#')
			continue;
		line[strcspn(line, "\r")] = '\0';
		snprintf(where, sizeof(where), "--env-file: line %d", number);
		r = spec_add_pair(env, where, line, fail);
	}
	buf_done(&text);
	return r;
}

int spec_add_env(json_t *env, const char *value, struct failure *fail)
{
	const char *own = strchr(value, '=') ? NULL : getenv(value);

	if (own)
		return set_text(env, value, "--env", own, fail);
	if (!strchr(value, '='))
		return failure_usage(fail, "--env", "%s is not set here; write %s=VALUE", value, value);
	return spec_add_pair(env, "--env", value, fail);
}

int spec_add_env_files(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *env = json_object();
	const char *value;
	size_t i = 0;
	int r = 0;

	json_object_set_new(spec, "env", env);
	while (r == 0 && (value = args_next(args, "env-file", &i)))
		r = read_env_file(env, value, fail);
	return r;
}

static int add_env(const struct args *args, json_t *spec, struct failure *fail)
{
	const char *value;
	size_t i = 0;
	int r = spec_add_env_files(args, spec, fail);

	while (r == 0 && (value = args_next(args, "env", &i)))
		r = spec_add_env(json_object_get(spec, "env"), value, fail);
	return r;
}

static int add_secrets(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *names;
	const char *name;
	size_t i = 0;

	if (!args_value(args, "secret"))
		return 0;
	names = json_array();
	json_object_set_new(spec, "secrets", names);
	while ((name = args_next(args, "secret", &i)))
		if (json_array_append_new(names, json_string(name)) < 0)
			return failure_usage(fail, "--secret", "is not UTF-8");
	return 0;
}

static int port_number(const char *text, size_t len, json_int_t *ret)
{
	json_int_t value = 0;

	if (len == 0 || len > 5)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		value = value * 10 + (text[i] - '0');
	}
	*ret = value;
	return value >= 1 && value <= 65535 ? 0 : -EINVAL;
}

/* "[ADDRESS:]HOST:GUEST[/PROTOCOL]" */
int spec_add_port(json_t *ports, const char *text, struct failure *fail)
{
	const char *last = strrchr(text, ':'), *host = text, *slash = last ? strchr(last, '/') : NULL;
	json_int_t host_port, guest_port;
	json_t *port;

	for (const char *c = text; last && c < last; c++)
		if (*c == ':')
			host = c + 1;
	if (!last || port_number(last + 1, slash ? (size_t)(slash - last - 1) : strlen(last + 1), &guest_port) < 0 ||
		port_number(host, (size_t)(last - host), &host_port) < 0) {
		failure_usage(fail, "--publish", "\"%s\" is not [ADDRESS:]HOST:GUEST[/PROTOCOL] with ports from 1 to 65535", text);
		return failure_hint(fail, "for example -p 8080:80, or -p 53:53/udp");
	}
	port = json_pack("{s:I, s:I}", "host", host_port, "guest", guest_port);
	json_array_append_new(ports, port);
	if (slash && set_text(port, "protocol", "--publish", slash + 1, fail) < 0)
		return -fail->error.errnum;
	if (host > text) {
		cleanup_free char *address = strndup(text, (size_t)(host - 1 - text));

		return set_text(port, "address", "--publish", address ? address : "", fail);
	}
	return 0;
}

int spec_add_hostname(json_t *ports, const char *text, struct failure *fail)
{
	const char *colon = strchr(text, ':');
	cleanup_free char *name = colon ? strndup(text, (size_t)(colon - text)) : NULL;
	json_int_t guest;
	json_t *port;

	if (!name || !*name || port_number(colon + 1, strlen(colon + 1), &guest) < 0) {
		failure_usage(fail, "--hostname", "\"%s\" is not NAME:GUEST with a port from 1 to 65535", text);
		return failure_hint(fail, "for example --hostname web.localhost:80");
	}
	port = json_pack("{s:I}", "guest", guest);
	json_array_append_new(ports, port);
	return set_text(port, "hostname", "--hostname", name, fail);
}

static int add_ports(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *ports = json_array();
	const char *value;
	size_t i = 0;
	int r = 0;

	json_object_set_new(spec, "ports", ports);
	while (r == 0 && (value = args_next(args, "publish", &i)))
		r = spec_add_port(ports, value, fail);
	for (i = 0; r == 0 && (value = args_next(args, "hostname", &i));)
		r = spec_add_hostname(ports, value, fail);
	return r;
}

int spec_read_mib(const char *text, const char *field, long long *ret, struct failure *fail)
{
	long long value;
	char *end;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (end != text && (*end == 'g' || *end == 'G') && !end[1] && value < (1 << 30))
		value *= 1024, end++;
	else if (end != text && (*end == 'm' || *end == 'M') && !end[1])
		end++;
	if (errno || end == text || *end || value < 1)
		return failure_usage(fail, field, "\"%s\" is no size in MiB; write 512, 512m or 2g", text);
	*ret = value;
	return 0;
}

static int add_mib(const struct args *args, const char *option, json_t *spec, const char *key, struct failure *fail)
{
	const char *text = args_value(args, option);
	long long value;
	char shown[32];
	int r;

	snprintf(shown, sizeof(shown), "--%s", option);
	r = text ? spec_read_mib(text, shown, &value, fail) : 0;
	if (r == 0 && text)
		json_object_set_new(spec, key, json_integer(value));
	return r;
}

static int add_restart(const struct args *args, json_t *spec, struct failure *fail)
{
	const char *text = args_value(args, "restart"), *colon = text ? strchr(text, ':') : NULL;
	json_t *restart;
	char *end;
	long retries;

	if (!text)
		return 0;
	restart = json_object();
	json_object_set_new(spec, "restart", restart);
	if (!colon)
		return set_text(restart, "policy", "--restart", text, fail);
	errno = 0;
	retries = strtol(colon + 1, &end, 10);
	if (strncmp(text, "on-failure:", 11) != 0 || errno || end == colon + 1 || *end || retries < 0)
		return failure_usage(fail, "--restart", "\"%s\" is none of never, on-failure[:RETRIES], always", text);
	json_object_set_new(restart, "max_retries", json_integer(retries));
	return set_text(restart, "policy", "--restart", "on-failure", fail);
}

static int add_stop(const struct args *args, json_t *spec, struct failure *fail)
{
	const char *signal = args_value(args, "stop-signal");
	json_t *stop = json_object();
	long long timeout_s;
	int r = args_integer(args, "stop-timeout", 0, INT32_MAX, -1, &timeout_s, fail);

	if (r == 0 && timeout_s >= 0)
		json_object_set_new(stop, "timeout_s", json_integer(timeout_s));
	if (r == 0 && signal)
		r = set_text(stop, "signal", "--stop-signal", signal, fail);
	if (r == 0 && json_object_size(stop))
		json_object_set(spec, "stop", stop);
	json_decref(stop);
	return r;
}

/* "90", "90s", "15m", "12h", "7d" in seconds, up to `end`. */
static int read_seconds(const char *text, const char *end, json_int_t *ret)
{
	static const struct {
		char letter;
		long long seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	char *rest;
	long long value = text[0] >= '0' && text[0] <= '9' ? strtoll(text, &rest, 10) : 0, unit = rest == end;

	for (size_t i = 0; value > 0 && i < ARRAY_SIZE(units); i++)
		if (rest + 1 == end && *rest == units[i].letter)
			unit = units[i].seconds;
	*ret = value * unit;
	return value > 0 && value <= INT32_MAX && unit ? 0 : -EINVAL;
}

/* AFTER[:ACTION] */
static int add_idle(const struct args *args, json_t *spec, struct failure *fail)
{
	const char *text = args_value(args, "idle"), *colon = text ? strchr(text, ':') : NULL;
	json_int_t after_s;
	json_t *idle;

	if (!text)
		return 0;
	if (read_seconds(text, colon ? colon : text + strlen(text), &after_s) < 0) {
		failure_usage(fail, "--idle", "\"%s\" is not AFTER[:stop] or AFTER:suspend with a time as 90, 90s, 15m, 12h or 7d", text);
		return failure_hint(fail, "for example --idle 5m, or --idle 5m:suspend");
	}
	idle = json_pack("{s:I}", "after_s", after_s);
	json_object_set_new(spec, "idle", idle);
	return colon ? set_text(idle, "action", "--idle", colon + 1, fail) : 0;
}

static int add_logs(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *logs = json_object();
	long long days;
	int r = args_integer(args, "log-days", 0, INT32_MAX, -1, &days, fail);

	if (r == 0 && days >= 0)
		json_object_set_new(logs, "max_age_days", json_integer(days));
	if (r == 0)
		r = add_mib(args, "log-size", logs, "max_mib", fail);
	if (r == 0 && json_object_size(logs))
		json_object_set(spec, "logs", logs);
	json_decref(logs);
	return r;
}

static int add_dependencies(const struct args *args, json_t *spec, struct failure *fail)
{
	return spec_add_dependencies(args, NULL, spec, fail);
}

static int add_mounts(const struct args *args, json_t *spec, struct failure *fail)
{
	return spec_add_mounts(args, NULL, spec, fail);
}

static int add_labels(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *labels = json_object();
	const char *value;
	size_t i = 0;
	int r = 0;

	json_object_set_new(spec, "labels", labels);
	while (r == 0 && (value = args_next(args, "label", &i)))
		r = spec_add_pair(labels, "--label", value, fail);
	return r;
}

static int add_command(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *command = json_array();

	for (size_t i = 0; i < args->n_rest; i++)
		if (json_array_append_new(command, json_string(args->rest[i])) < 0) {
			json_decref(command);
			return failure_usage(fail, "COMMAND", "is not UTF-8");
		}
	if (args->n_rest)
		json_object_set(spec, "command", command);
	json_decref(command);
	return 0;
}

/* What is said by one option each, and goes into the spec under the option's name. */
static int add_texts(const struct args *args, const char *const *options, size_t n, json_t *spec, struct failure *fail)
{
	char shown[32];
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		const char *value = args_value(args, options[i]);

		snprintf(shown, sizeof(shown), "--%s", options[i]);
		if (value)
			r = set_text(spec, options[i], shown, value, fail);
	}
	return r;
}

static int add_image(const struct args *args, json_t *spec, struct failure *fail)
{
	return set_text(spec, "image", "IMAGE", args->operands[0], fail);
}

static int add_place(const struct args *args, json_t *spec, struct failure *fail)
{
	static const char *const options[] = {"name", "network"};

	return add_texts(args, options, ARRAY_SIZE(options), spec, fail);
}

static int add_user(const struct args *args, json_t *spec, struct failure *fail)
{
	static const char *const options[] = {"user", "workdir"};

	return add_texts(args, options, ARRAY_SIZE(options), spec, fail);
}

static int add_size(const struct args *args, json_t *spec, struct failure *fail)
{
	long long cpus;
	int r = args_integer(args, "cpus", 1, INT32_MAX, 0, &cpus, fail);

	if (r == 0 && cpus)
		json_object_set_new(spec, "cpus", json_integer(cpus));
	if (r == 0)
		r = add_mib(args, "memory", spec, "memory_mib", fail);
	return r == 0 ? add_mib(args, "disk", spec, "disk_mib", fail) : r;
}

typedef int (*add_fn)(const struct args *args, json_t *spec, struct failure *fail);

static int add_all(const struct args *args, const add_fn *parts, json_t *spec, struct failure *fail)
{
	int r = 0;

	for (; *parts && r == 0; parts++)
		r = (*parts)(args, spec, fail);
	return r;
}

/* The spec that `parts`, ended by NULL, add to. */
static int build(const struct args *args, const add_fn *parts, json_t **ret, struct failure *fail)
{
	json_t *spec = json_object();
	int r = add_all(args, parts, spec, fail);

	if (r < 0)
		json_decref(spec);
	else
		*ret = spec;
	return r;
}

static int add_health(const struct args *args, json_t *spec, struct failure *fail)
{
	return spec_add_health(args, false, spec, fail);
}

int spec_add_plain(const struct args *args, json_t *spec, struct failure *fail)
{
	static const add_fn parts[] = {add_place, add_user, add_size, add_restart, add_stop, add_idle, add_logs, add_command, NULL};

	return add_all(args, parts, spec, fail);
}

int spec_from_args(const struct args *args, json_t **ret, struct failure *fail)
{
	static const add_fn parts[] = {
		add_image, add_place, add_user, add_size, add_env, add_secrets, add_ports, add_restart, add_stop, add_idle, add_logs, add_dependencies,
		add_mounts, add_health, add_labels, add_command, NULL};

	return build(args, parts, ret, fail);
}

int exec_spec_from_args(const struct args *args, json_t **ret, struct failure *fail)
{
	static const add_fn parts[] = {add_user, add_env, add_command, NULL};

	return build(args, parts, ret, fail);
}
