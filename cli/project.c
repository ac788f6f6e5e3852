/* hull project create, list, rm; hull token create, list, rm. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
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

static int list(const struct args *args, const char *path, const char *key, const char *other, const char *header, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	json_t *answer = NULL, *item;
	struct table table;
	size_t i;
	int r;

	if (!client)
		return -fail->error.errnum;
	r = client_call(client, "GET", path, NULL, &answer, fail);
	table_init(&table, header);
	json_array_foreach (json_object_get(answer, "items"), i, item) {
		char age[AGE_MAX];

		table_add(&table, "%s", json_text(item, key));
		table_add(&table, "%s", other ? json_text(item, other) : "");
		table_add(&table, "%s", age_text(json_text(item, "created_at"), time(NULL), age));
	}
	if (r == 0)
		table_print(&table, stdout);
	table_done(&table);
	json_decref(answer);
	return r;
}

int project_list_run(const struct args *args, struct failure *fail)
{
	return list(args, "/v1/projects", "name", NULL, "NAME||CREATED", fail);
}

int token_list_run(const struct args *args, struct failure *fail)
{
	return list(args, "/v1/tokens", "id", "label", "ID|FOR|CREATED", fail);
}

static int remove_each(const struct args *args, const char *collection, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	int r = client ? 0 : -fail->error.errnum;

	for (size_t i = 0; i < args->n_operands && r == 0; i++) {
		cleanup_free char *path = client_path(collection, args->operands[i], "");

		r = client_call(client, "DELETE", path, NULL, NULL, fail);
		if (r == 0)
			printf("%s\n", args->operands[i]);
	}
	return r;
}

int project_remove_run(const struct args *args, struct failure *fail)
{
	return remove_each(args, "projects", fail);
}

int token_remove_run(const struct args *args, struct failure *fail)
{
	return remove_each(args, "tokens", fail);
}
