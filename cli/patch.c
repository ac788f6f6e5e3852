/* From options to a merge patch (RFC 7396) of a MachineSpec: what is given is changed, NAME- takes one away. */
#include "cli/spec.h"

#include "cli/mount.h"
#include "cli/output.h"
#include "common/checked.h"
#include "common/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

char *spec_removed_name(const char *value)
{
	size_t len = strlen(value);

	if (len < 2 || value[len - 1] != '-' || strchr(value, '='))
		return NULL;
	return strndup(value, len - 1);
}

static int change_pairs(const struct args *args, const char *option, const char *key, json_t *patch,
	int (*add)(json_t *map, const char *value, struct failure *fail), struct failure *fail)
{
	json_t *map = json_object_get(patch, key);
	const char *value;
	size_t i = 0;
	int r = 0;

	if (!map)
		json_object_set_new(patch, key, map = json_object());
	while (r == 0 && (value = args_next(args, option, &i))) {
		cleanup_free char *removed = spec_removed_name(value);

		if (!removed)
			r = add(map, value, fail);
		else if (json_object_set_new(map, removed, json_null()) < 0)
			r = failure_usage(fail, option, "is not UTF-8");
	}
	if (json_object_size(map) == 0)
		json_object_del(patch, key);
	return r;
}

static int add_label(json_t *labels, const char *value, struct failure *fail)
{
	return spec_add_pair(labels, "--label", value, fail);
}

/* Ports are a list, and a list is replaced as a whole: it is made of what the machine has. */

static size_t find_port(const json_t *ports, const char *address, json_int_t host, const char *protocol)
{
	size_t i = 0;

	while (i < json_array_size(ports) && (json_number(json_array_get(ports, i), "host") != host ||
						     strcmp(json_text(json_array_get(ports, i), "address"), address) != 0 ||
						     strcmp(json_text(json_array_get(ports, i), "protocol"), protocol) != 0))
		i++;
	return i;
}

/* "[ADDRESS:]HOST[/PROTOCOL]" */
static int remove_port(json_t *ports, const char *text, struct failure *fail)
{
	const char *colon = strrchr(text, ':'), *host = colon ? colon + 1 : text, *slash = strchr(host, '/');
	cleanup_free char *address = colon ? strndup(text, (size_t)(colon - text)) : strdup("127.0.0.1");
	size_t i = address ? find_port(ports, address, atoll(host), slash ? slash + 1 : "tcp") : 0;

	if (i == json_array_size(ports))
		return failure_usage(fail, "--publish", "%s:%s is not published", address ? address : "", host);
	json_array_remove(ports, i);
	return 0;
}

static int add_port(json_t *ports, const char *text, struct failure *fail)
{
	json_t *parsed = json_array(), *port;
	int r = spec_add_port(parsed, text, fail);
	size_t i;

	if (r == 0) {
		port = json_array_get(parsed, 0);
		if (!json_object_get(port, "address"))
			json_object_set_new(port, "address", json_string("127.0.0.1"));
		if (!json_object_get(port, "protocol"))
			json_object_set_new(port, "protocol", json_string("tcp"));
		i = find_port(ports, json_text(port, "address"), json_number(port, "host"), json_text(port, "protocol"));
		if (i < json_array_size(ports))
			json_array_set(ports, i, port);
		else
			json_array_append(ports, port);
	}
	json_decref(parsed);
	return r;
}

static size_t find_hostname(const json_t *ports, const char *hostname)
{
	size_t i = 0;

	while (i < json_array_size(ports) && strcmp(json_text(json_array_get(ports, i), "hostname"), hostname) != 0)
		i++;
	return i;
}

static int remove_hostname(json_t *ports, const char *hostname, struct failure *fail)
{
	size_t i = find_hostname(ports, hostname);

	if (i == json_array_size(ports))
		return failure_usage(fail, "--hostname", "%s is not served", hostname);
	json_array_remove(ports, i);
	return 0;
}

static int add_hostname(json_t *ports, const char *text, struct failure *fail)
{
	json_t *parsed = json_array();
	int r = spec_add_hostname(parsed, text, fail);
	size_t i = r == 0 ? find_hostname(ports, json_text(json_array_get(parsed, 0), "hostname")) : 0;

	if (r == 0 && i < json_array_size(ports))
		json_array_remove(ports, i);
	if (r == 0)
		json_array_append(ports, json_array_get(parsed, 0));
	json_decref(parsed);
	return r;
}

static int change_ports(const struct args *args, const json_t *machine, json_t *patch, struct failure *fail)
{
	json_t *ports = json_deep_copy(json_object_get(machine, "ports"));
	const char *value;
	size_t i = 0;
	int r = 0;

	if (!json_is_array(ports)) {
		json_decref(ports);
		ports = json_array();
	}
	while (r == 0 && (value = args_next(args, "publish", &i))) {
		cleanup_free char *removed = spec_removed_name(value);

		r = removed ? remove_port(ports, removed, fail) : add_port(ports, value, fail);
	}
	for (i = 0; r == 0 && (value = args_next(args, "hostname", &i));) {
		cleanup_free char *removed = spec_removed_name(value);

		r = removed ? remove_hostname(ports, removed, fail) : add_hostname(ports, value, fail);
	}
	if (args_value(args, "publish") || args_value(args, "hostname"))
		json_object_set(patch, "ports", ports);
	json_decref(ports);
	return r;
}

/* An option says all of what it is about: what it does not say is not to stay from before. */
static void replace_wholly(const struct args *args, json_t *patch)
{
	static const char *const checks[] = {"http", "tcp", "exec"}, *const texts[] = {"user", "workdir"};
	json_t *restart = json_object_get(patch, "restart"), *health = json_object_get(patch, "health");
	bool is_other_check = false;

	if (restart && !json_object_get(restart, "max_retries"))
		json_object_set_new(restart, "max_retries", json_null());
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++)
		is_other_check |= json_object_get(health, checks[i]) != NULL;
	for (size_t i = 0; is_other_check && i < ARRAY_SIZE(checks); i++)
		if (!json_object_get(health, checks[i]))
			json_object_set_new(health, checks[i], json_null());
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (json_object_get(patch, texts[i]) && json_text(patch, texts[i])[0] == '\0')
			json_object_set_new(patch, texts[i], json_null());
	if (args_flag(args, "no-health"))
		json_object_set_new(patch, "health", json_null());
	if (args_flag(args, "no-idle"))
		json_object_set_new(patch, "idle", json_null());
}

int patch_from_args(const struct args *args, const json_t *machine, json_t **ret, struct failure *fail)
{
	const char *image = args_value(args, "image");
	json_t *patch = json_object();
	int r = spec_add_plain(args, patch, fail);

	if (r == 0)
		r = spec_add_health(args, json_object_get(machine, "health") != NULL, patch, fail);
	if (r == 0 && image && json_object_set_new(patch, "image", json_string(image)) < 0)
		r = failure_usage(fail, "--image", "is not UTF-8");
	if (r == 0)
		r = spec_add_env_files(args, patch, fail);
	if (r == 0)
		r = change_pairs(args, "env", "env", patch, spec_add_env, fail);
	if (r == 0)
		r = change_pairs(args, "label", "labels", patch, add_label, fail);
	if (r == 0)
		r = change_ports(args, machine, patch, fail);
	if (r == 0)
		r = spec_add_dependencies(args, json_object_get(machine, "depends_on"), patch, fail);
	if (r == 0)
		r = spec_add_mounts(args, json_object_get(machine, "mounts"), patch, fail);
	if (r == 0)
		replace_wholly(args, patch);
	if (r == 0 && json_object_size(patch) == 0 && !args_flag(args, "restart-now")) {
		failure_usage(fail, args->operands[0], "nothing is to be changed");
		r = failure_hint(fail, "`hull update --help` lists what can be");
	}
	if (r < 0)
		json_decref(patch);
	else
		*ret = patch;
	return r;
}
