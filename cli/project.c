/* hull project create, list, inspect, set, rm; hull token create, list, rm. */
#include "cli/client.h"
#include "cli/collection.h"
#include "cli/commands.h"
#include "common/checked.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *option, *key;
} quotas[] = {{"machines", "machines"}, {"vcpus", "vcpus"}, {"memory-mib", "memory_mib"}, {"disk-mib", "disk_mib"}, {"ports", "ports"}};

const struct option_def project_create_options[] = {
	{0, "machines", "N", "how many machines it may have (no limit)"},
	{0, "vcpus", "N", "how many processors they may have (no limit)"},
	{0, "memory-mib", "N", "how much memory (no limit)"},
	{0, "disk-mib", "N", "how much disk, images included (no limit)"},
	{0, "ports", "N", "how many ports of the host they may publish (no limit)"},
	{0},
};
const struct option_def project_set_options[] = {
	{0, "machines", "N", "how many machines it may have; none: no limit, here and below"},
	{0, "vcpus", "N", "how many processors they may have"},
	{0, "memory-mib", "N", "how much memory"},
	{0, "disk-mib", "N", "how much disk, images included"},
	{0, "ports", "N", "how many ports of the host they may publish"},
	{0},
};
const struct option_def token_create_options[] = {
	{0, "scope", "SCOPE", "read, write, exec or admin; may be repeated"},
	{0, "name", "LABEL", "what it is for"},
	{0, "expires", "S", "seconds until it is not valid any more (30 days); 0: never"},
	{0},
};

static int post(const struct args *args, const char *path, json_t *body, json_t **ret, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	int r = client && body ? client_call(client, "POST", path, body, ret, fail) : -EINVAL;

	if (client && !body)
		error_set_field(&fail->error, EINVAL, args->command->name, "takes UTF-8 only");
	json_decref(body);
	return r;
}

int project_create_run(const struct args *args, struct failure *fail)
{
	json_t *limits = json_object();
	long long limit;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(quotas) && r == 0; i++) {
		r = args_integer(args, quotas[i].option, 0, INT32_MAX, -1, &limit, fail);
		if (r == 0)
			json_object_set_new(limits, quotas[i].key, json_integer(limit));
	}
	if (r < 0) {
		json_decref(limits);
		return r;
	}
	r = post(args, "/v1/projects", json_pack("{s:s, s:o}", "name", args->operands[0], "quotas", limits), NULL, fail);
	if (r == 0)
		printf("%s\n", args->operands[0]);
	return r;
}

int token_create_run(const struct args *args, struct failure *fail)
{
	json_t *scopes = json_array(), *answer = NULL;
	const char *scope, *label = args_value(args, "name");
	long long expires;
	size_t i = 0;
	int r = args_integer(args, "expires", 0, INT32_MAX, 30 * 86400, &expires, fail);

	while (r == 0 && (scope = args_next(args, "scope", &i)))
		json_array_append_new(scopes, json_string(scope));
	if (r < 0) {
		json_decref(scopes);
		return r;
	}
	r = post(args, "/v1/tokens", json_pack("{s:o, s:s, s:I}", "scopes", scopes, "label", label ? label : "", "expires_in_s",
		(json_int_t)expires), &answer, fail);
	if (r == 0)
		printf("%s\n", json_text(answer, "token"));
	json_decref(answer);
	return r;
}

static void add_project(struct table *table, const json_t *project)
{
	const json_t *used = json_object_get(project, "usage"), *limits = json_object_get(project, "quotas");
	char age[AGE_MAX];

	table_add(table, "%s", json_text(project, "name"));
	for (size_t i = 0; i < ARRAY_SIZE(quotas); i++) {
		const json_t *limit = json_object_get(limits, quotas[i].key);
		json_int_t n = json_number(used, quotas[i].key);

		if (json_is_integer(limit) && json_integer_value(limit) >= 0)
			table_add(table, "%" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT, n, json_integer_value(limit));
		else
			table_add(table, "%" JSON_INTEGER_FORMAT, n);
	}
	table_add(table, "%s", age_text(json_text(project, "created_at"), time(NULL), age));
}

static const struct collection projects = {"projects", "name", "NAME|MACHINES|VCPUS|MEMORY MIB|DISK MIB|PORTS|CREATED", add_project};

int project_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&projects, args, fail);
}

int project_inspect_run(const struct args *args, struct failure *fail)
{
	return collection_inspect(&projects, args, fail);
}

int project_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&projects, "", args, fail);
}

/* Of those that were given; "none" takes the limit away. */
static int change_quotas(const struct args *args, json_t *limits, struct failure *fail)
{
	long long limit;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(quotas) && r == 0; i++) {
		const char *text = args_value(args, quotas[i].option);

		if (!text)
			continue;
		limit = -1;
		if (strcmp(text, "none") != 0)
			r = args_integer(args, quotas[i].option, 0, INT32_MAX, -1, &limit, fail);
		if (r == 0)
			json_object_set_new(limits, quotas[i].key, json_integer(limit));
	}
	return r;
}

int project_set_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	cleanup_free char *path = client_path("projects", args->operands[0], ""), *put = client_path("projects", args->operands[0], "/quotas");
	json_t *project = NULL, *limits, *asked = json_object();
	int r = change_quotas(args, asked, fail);

	if (r == 0 && !json_object_size(asked))
		r = failure_usage(fail, "project set", "nothing is to change; for example --machines 10");
	client = r == 0 ? client_new(args, fail) : NULL;
	if (r == 0)
		r = client ? client_call(client, "GET", path, NULL, &project, fail) : -fail->error.errnum;
	if (r == 0) {
		limits = json_object_get(project, "quotas");
		json_object_update(limits, asked);
		r = client_call(client, "PUT", put, limits, NULL, fail);
	}
	if (r == 0)
		printf("%s\n", args->operands[0]);
	json_decref(project);
	json_decref(asked);
	return r;
}

static void add_token(struct table *table, const json_t *token)
{
	const json_t *scopes = json_object_get(token, "scopes"), *scope;
	char age[AGE_MAX], text[64] = "";
	size_t i, len = 0;

	json_array_foreach (scopes, i, scope)
		if (json_is_string(scope) && len + json_string_length(scope) + 2 < sizeof text)
			len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", len ? "," : "", json_string_value(scope));
	table_add(table, "%s", json_text(token, "id"));
	table_add(table, "%s", json_text(token, "label"));
	table_add(table, "%s", text);
	table_add(table, "%s", age_text(json_text(token, "created_at"), time(NULL), age));
	table_add(table, "%.10s", json_text(token, "expires_at"));
}

static const struct collection tokens = {"tokens", "id", "ID|FOR|SCOPES|CREATED|EXPIRES", add_token};

int token_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&tokens, args, fail);
}

int token_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&tokens, "", args, fail);
}
