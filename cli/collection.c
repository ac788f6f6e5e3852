/* Lists, single items and deletions of the API's collections. */
#include "cli/collection.h"

#include "cli/client.h"
#include "cli/commands.h"

#include <errno.h>
#include <string.h>

const struct option_def list_options[] = {
	{'o', "output", "table|json", "how to print it (table)"},
	{'q', "quiet", NULL, "what it is called by only"},
	{0},
};

static void print_items(const struct collection *collection, const json_t *items, bool quiet)
{
	struct table table;
	const json_t *item;
	size_t i;

	table_init(&table, collection->header);
	json_array_foreach (items, i, item) {
		if (quiet)
			printf("%s\n", json_text(item, collection->key));
		else
			collection->add_row(&table, item);
	}
	if (!quiet)
		table_print(&table, stdout);
	table_done(&table);
}

int collection_list(const struct collection *collection, const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	cleanup_free char *path = NULL;
	const char *output = args_value(args, "output");
	json_t *items = NULL;
	int r;

	if (output && strcmp(output, "json") != 0 && strcmp(output, "table") != 0)
		return failure_usage(fail, "--output", "\"%s\" is neither table nor json", output);
	client = client_new(args, fail);
	if (!client)
		return -fail->error.errnum;
	if (asprintf(&path, "/v1/%s", collection->name) < 0)
		return error_set(&fail->error, ENOMEM, "no memory");
	r = client_list(client, path, "", &items, fail);
	if (r == 0 && output && strcmp(output, "json") == 0)
		print_json(items);
	else if (r == 0)
		print_items(collection, items, args_flag(args, "quiet"));
	json_decref(items);
	return r;
}

int collection_inspect(const struct collection *collection, const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	cleanup_free char *path = client_path(collection->name, args->operands[0], "");
	json_t *item = NULL;
	int r;

	if (!client)
		return -fail->error.errnum;
	r = client_call(client, "GET", path, NULL, &item, fail);
	if (r == 0)
		print_json(item);
	json_decref(item);
	return r;
}

int collection_remove(const struct collection *collection, const char *suffix, const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	int r = client ? 0 : -fail->error.errnum;

	for (size_t i = 0; i < args->n_operands && r == 0; i++) {
		cleanup_free char *path = client_path(collection->name, args->operands[i], suffix);

		r = client_call(client, "DELETE", path, NULL, NULL, fail);
		if (r == 0)
			printf("%s\n", args->operands[i]);
	}
	return r;
}
