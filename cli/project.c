/* hull project create, list, inspect, set, rm; hull token create, list, rm. */
#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/request.h"
#include "cli/spec.h"
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
	{0, "hostname", "DOMAIN", "their host names are below this domain (NAME.localhost); may be repeated"},
	OUTPUT_OPTION,
	{0},
};
const struct option_def project_set_options[] = {
	{0, "machines", "N", "how many machines it may have; none: no limit, here and below"},
	{0, "vcpus", "N", "how many processors they may have"},
	{0, "memory-mib", "N", "how much memory"},
	{0, "disk-mib", "N", "how much disk, images included"},
	{0, "ports", "N", "how many ports of the host they may publish"},
	{0, "hostname", "DOMAIN", "their host names are below this domain, or another; may be repeated; none: as at first"},
	OUTPUT_OPTION,
	{0},
};
const struct option_def token_create_options[] = {
	{0, "scope", "SCOPE", "read, write, exec or admin; may be repeated"},
	{0, "name", "LABEL", "what it is for"},
	{0, "expires", "S", "seconds until it is not valid any more (30 days); 0: never"},
	OUTPUT_OPTION,
	{0},
};

static int read_domains(const struct args *args, bool may_be_none, json_t *ret, struct failure *fail)
{
	const char *domain;
	json_t *domains;
	size_t i = 0;

	if (!args_value(args, "hostname"))
		return 0;
	domains = json_array();
	json_object_set_new(ret, "hostnames", domains);
	while ((domain = args_next(args, "hostname", &i)))
		if (!(may_be_none && strcmp(domain, "none") == 0) && json_array_append_new(domains, json_string(domain)) < 0)
			return failure_usage(fail, "--hostname", "is not UTF-8");
	return 0;
}

/* The limits that options give into `ret`; where `may_be_none`, "none" takes one away. 0 or a usage failure. */
static int read_quotas(const struct args *args, bool may_be_none, json_t *ret, struct failure *fail)
{
	long long limit;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(quotas) && r == 0; i++) {
		const char *text = args_value(args, quotas[i].option);

		if (!text)
			continue;
		limit = -1;
		if (!may_be_none || strcmp(text, "none") != 0)
			r = args_integer(args, quotas[i].option, 0, INT32_MAX, -1, &limit, fail);
		if (r == 0)
			json_object_set_new(ret, quotas[i].key, json_integer(limit));
	}
	return r == 0 ? read_domains(args, may_be_none, ret, fail) : r;
}

/* `body` is taken; NULL: what was to be in it could not be. */
static int post(const struct args *args, const char *path, json_t *body, const char *key, struct failure *fail)
{
	return body ? request_print(args, "POST", path, body, OUTPUT_TABLE, key, fail)
		    : error_set_field(&fail->error, EINVAL, args->command->name, "takes UTF-8 only");
}

int project_create_run(const struct args *args, struct failure *fail)
{
	json_t *limits = json_object();
	int r = read_quotas(args, false, limits, fail);

	if (r == 0)
		r = post(args, "/v1/projects", json_pack("{s:s, s:O}", "name", args->operands[0], "quotas", limits), "name", fail);
	json_decref(limits);
	return r;
}

int token_create_run(const struct args *args, struct failure *fail)
{
	json_t *scopes = json_array();
	const char *label = args_value(args, "name");
	long long expires;
	int r = args_value(args, "scope") ? 0 : failure_usage(fail, "--scope", "is missing: what does it let do?");

	if (r < 0) {
		json_decref(scopes);
		return failure_hint(fail, "for example --scope read --scope write");
	}
	r = args_integer(args, "expires", 0, INT32_MAX, 30 * 86400, &expires, fail);
	if (r == 0)
		r = spec_add_texts(args, "scope", scopes, fail);
	if (r == 0)
		r = post(args, "/v1/tokens", json_pack("{s:O, s:s, s:I}", "scopes", scopes, "label", label ? label : "", "expires_in_s",
			(json_int_t)expires), "token", fail);
	json_decref(scopes);
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

/* One try: reads the quotas, and changes those asked for if they are still so. */
static int try_to_change(struct client *client, const char *project, const json_t *asked, json_t **ret, struct failure *fail)
{
	cleanup_free char *path = client_path("projects", project, ""), *put = client_path("projects", project, "/quotas"), *etag = NULL;
	json_t *before = NULL;
	int r = client_get_tagged(client, path, &before, &etag, fail);

	if (r == 0) {
		json_object_update(json_object_get(before, "quotas"), (json_t *)asked);
		r = client_put(client, put, etag, json_object_get(before, "quotas"), ret, fail);
	}
	json_decref(before);
	return r;
}

/* Who changes them at the same time changes others: both come to be. */
static int change_quotas(struct client *client, const char *project, const json_t *asked, json_t **ret, struct failure *fail)
{
	unsigned tries = 0;
	int r;

	do
		r = try_to_change(client, project, asked, ret, fail);
	while (r < 0 && client_tries_again(&tries, fail));
	return r;
}

int project_set_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	json_t *project = NULL, *asked = json_object();
	enum output_format format;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = read_quotas(args, true, asked, fail);
	if (r == 0 && !json_object_size(asked))
		r = failure_usage(fail, "project set", "nothing is to change; for example --machines 10");
	client = r == 0 ? client_new(args, fail) : NULL;
	if (r == 0)
		r = client ? change_quotas(client, args->operands[0], asked, &project, fail) : -fail->error.errnum;
	if (r == 0)
		print_made(project, "name", format);
	json_decref(project);
	json_decref(asked);
	return r;
}

static void add_token(struct table *table, const json_t *token)
{
	const json_t *scopes = json_object_get(token, "scopes"), *scope;
	char age[AGE_MAX], text[64] = "";
	const char *expires = json_text(token, "expires_at");
	size_t i, len = 0;

	json_array_foreach (scopes, i, scope)
		if (json_is_string(scope) && len + json_string_length(scope) + 2 < sizeof text)
			len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", len ? "," : "", json_string_value(scope));
	table_add(table, "%s", json_text(token, "id"));
	table_add(table, "%s", json_text(token, "label"));
	table_add(table, "%s", text);
	table_add(table, "%s", age_text(json_text(token, "created_at"), time(NULL), age));
	table_add(table, "%.16s%s", expires, expires[0] ? "Z" : "never"); /* to the minute: it may be today */
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
