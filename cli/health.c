/* From --health-… to the API's HealthSpec. */
#include "cli/spec.h"

#include "common/checked.h"

#include <stdlib.h>
#include <string.h>

/* The number a text begins with, and what follows it. 0 or a usage failure. */
static int add_port(const char *option, const char *text, const char *end, json_t *check, struct failure *fail)
{
	char *rest;
	long port = text[0] >= '0' && text[0] <= '9' ? strtol(text, &rest, 10) : 0;

	if (port < 1 || port > 65535 || rest != end)
		return failure_usage(fail, option, "\"%s\" is no port, from 1 to 65535%s", text,
			strcmp(option, "--health-http") == 0 ? ", with or without a /PATH" : "");
	json_object_set_new(check, "port", json_integer(port));
	return 0;
}

/* PORT[/PATH] */
static int add_http(const char *value, json_t *check, struct failure *fail)
{
	const char *path = value + strcspn(value, "/");
	int r = add_port("--health-http", value, path, check, fail);

	if (r == 0 && *path && json_object_set_new(check, "path", json_string(path)) < 0)
		return failure_usage(fail, "--health-http", "is not UTF-8");
	return r;
}

static int add_tcp(const char *value, json_t *check, struct failure *fail)
{
	return add_port("--health-tcp", value, value + strlen(value), check, fail);
}

static int add_exec(const char *value, json_t *check, struct failure *fail)
{
	json_t *command = json_pack("[s, s, s]", "/bin/sh", "-c", value);

	if (!command)
		return failure_usage(fail, "--health-cmd", "is not UTF-8");
	json_object_set_new(check, "command", command);
	return 0;
}

static int add_numbers(const struct args *args, bool has_check, json_t *health, struct failure *fail)
{
	static const struct {
		const char *option, *key;
		long long min, max;
	} numbers[] = {{"health-interval", "interval_s", 1, 86400}, {"health-timeout", "timeout_s", 1, 300},
		{"health-retries", "retries", 1, 1000}, {"health-grace", "grace_s", 0, 86400}};
	long long value;
	char shown[32];
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(numbers) && r == 0; i++) {
		r = args_integer(args, numbers[i].option, numbers[i].min, numbers[i].max, -1, &value, fail);
		if (r == 0 && value >= 0 && !has_check) {
			snprintf(shown, sizeof(shown), "--%s", numbers[i].option);
			return failure_usage(fail, shown, "goes with --health-http, --health-tcp or --health-cmd");
		}
		if (r == 0 && value >= 0)
			json_object_set_new(health, numbers[i].key, json_integer(value));
	}
	return r;
}

int spec_add_health(const struct args *args, bool has_check, json_t *spec, struct failure *fail)
{
	static const struct {
		const char *option, *key;
		int (*add)(const char *value, json_t *check, struct failure *fail);
	} checks[] = {{"health-http", "http", add_http}, {"health-tcp", "tcp", add_tcp}, {"health-cmd", "exec", add_exec}};
	json_t *health = json_object();
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(checks) && r == 0; i++) {
		const char *value = args_value(args, checks[i].option);
		json_t *check = value ? json_object() : NULL;

		if (!value)
			continue;
		json_object_set_new(health, checks[i].key, check);
		r = checks[i].add(value, check, fail);
	}
	if (r == 0)
		r = add_numbers(args, has_check || json_object_size(health), health, fail);
	if (r == 0 && json_object_size(health))
		json_object_set(spec, "health", health);
	json_decref(health);
	return r;
}
