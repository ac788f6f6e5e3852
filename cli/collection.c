/* Lists, single items and deletions of the API's collections. */
#include "cli/collection.h"

#include "cli/commands.h"
#include "cli/operands.h"
#include "cli/request.h"

#include <errno.h>
#include <string.h>

const struct option_def list_options[] = {
	OUTPUT_OPTION,
	QUIET_OPTION("what it is called by only"),
	{0},
};
const struct option_def inspect_options[] = {
	{'o', "output", "table|json|yaml", "how to print it (json)"},
	{0},
};
const struct option_def made_options[] = {
	OUTPUT_OPTION,
	{0},
};

void collection_print(const struct collection *collection, const json_t *items, bool quiet)
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

int collection_list_where(
	const struct collection *collection, const char *query, const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	cleanup_free char *path = NULL;
	json_t *items = NULL;
	int r;

	if (!client)
		return -fail->error.errnum;
	if (asprintf(&path, "/v1/%s", collection->name) < 0)
		return error_set(&fail->error, ENOMEM, "no memory");
	r = client_list(client, path, query, &items, fail);
	if (r == 0 && format != OUTPUT_TABLE)
		print_value(items, format);
	else if (r == 0)
		collection_print(collection, items, args_flag(args, "quiet"));
	json_decref(items);
	return r;
}

int collection_list(const struct collection *collection, const struct args *args, struct failure *fail)
{
	return collection_list_where(collection, "", args, fail);
}

int collection_inspect(const struct collection *collection, const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_JSON, &format, fail);
	cleanup_free char *path = client_path(collection->name, args->operands[0], "");
	json_t *item = NULL, *items;
	int r = client ? client_call(client, "GET", path, NULL, &item, fail) : -fail->error.errnum;
	if (r == 0 && format == OUTPUT_TABLE) {
		items = json_pack("[O]", item);
		collection_print(collection, items, false);
		json_decref(items);
	} else if (r == 0) {
		print_value(item, format);
	}
	json_decref(item);
	return r;
}

struct removal {
	const struct collection *collection;
	const char *suffix;
	struct client *client;
};

static int remove_one(void *ctx, const char *item, struct failure *fail)
{
	const struct removal *removal = ctx;
	cleanup_free char *path = client_path(removal->collection->name, item, removal->suffix);
	int r = client_call(removal->client, "DELETE", path, NULL, NULL, fail);

	if (r == 0)
		printf("%s\n", item);
	else if (removal->collection->in_use_hint && strstr(fail->code, "_in_use"))
		failure_hint(fail, "%s", removal->collection->in_use_hint);
	return r;
}

int collection_remove(const struct collection *collection, const char *suffix, const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	struct removal removal = {collection, suffix, client};

	return client ? operands_each(args, remove_one, &removal, fail) : -fail->error.errnum;
}
