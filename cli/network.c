/* hull network create, list, inspect, rm. */
#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/request.h"
#include "cli/spec.h"

#include <string.h>

const struct option_def network_create_options[] = {
	{0, "subnet", "NETWORK/PREFIX", "its addresses, as 10.88.0.0/24 (one that is free)"},
	{0, "internal", NULL, "its machines reach each other, and nobody else"},
	{0, "label", "KEY=VALUE", "label; may be repeated"},
	OUTPUT_OPTION,
	{0},
};

static int fill(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *labels = json_object();
	const char *subnet = args_value(args, "subnet"), *value;
	size_t i = 0;
	int r = 0;

	json_object_set_new(spec, "labels", labels);
	json_object_set_new(spec, "egress", json_boolean(!args_flag(args, "internal")));
	while (r == 0 && (value = args_next(args, "label", &i)))
		r = spec_add_pair(labels, "--label", value, fail);
	if (r == 0 && json_object_set_new(spec, "name", json_string(args->operands[0])) < 0)
		r = failure_usage(fail, "NAME", "is not UTF-8");
	if (r == 0 && subnet && json_object_set_new(spec, "subnet", json_string(subnet)) < 0)
		r = failure_usage(fail, "--subnet", "is not UTF-8");
	return r;
}

int network_create_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	json_t *spec = json_object(), *network = NULL;
	int r = client ? fill(args, spec, fail) : -fail->error.errnum;

	if (r == 0)
		r = client_call(client, "POST", "/v1/networks", spec, &network, fail);
	if (r == 0)
		print_made(network, "name", format);
	json_decref(network);
	json_decref(spec);
	return r;
}

static void add_row(struct table *table, const json_t *network)
{
	char age[AGE_MAX];

	table_add(table, "%s", json_text(network, "name"));
	table_add(table, "%s", json_text(network, "state"));
	table_add(table, "%s", json_text(network, "subnet"));
	table_add(table, "%s", json_is_true(json_object_get(network, "egress")) ? "yes" : "no");
	table_add(table, "%zu", json_array_size(json_object_get(network, "machines")));
	table_add(table, "%s", age_text(json_text(network, "created_at"), time(NULL), age));
}

static const struct collection networks = {"networks", "name", "NAME|STATE|SUBNET|EGRESS|MACHINES|CREATED", add_row};

int network_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&networks, args, fail);
}

int network_inspect_run(const struct args *args, struct failure *fail)
{
	return collection_inspect(&networks, args, fail);
}

int network_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&networks, "", args, fail);
}
