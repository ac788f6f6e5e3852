/* hull image list, rm, inspect. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"

#include <errno.h>
#include <string.h>

const struct option_def images_options[] = {
	{'o', "output", "table|json", "how to print it (table)"},
	{'q', "quiet", NULL, "names only"},
	{0},
};

static void print_images(const json_t *items, bool quiet)
{
	struct table table;
	const json_t *image;
	size_t i;

	table_init(&table, "NAME|SIZE|CONTENT|CREATED");
	json_array_foreach (items, i, image) {
		char age[AGE_MAX], size[SIZE_MAX_TEXT];

		if (quiet)
			printf("%s\n", json_text(image, "name"));
		table_add(&table, "%s", json_text(image, "name"));
		table_add(&table, "%s", size_text((uint64_t)json_number(image, "size_bytes"), size));
		table_add(&table, "%.19s", json_text(image, "rootfs"));
		table_add(&table, "%s", age_text(json_text(image, "created_at"), time(NULL), age));
	}
	if (!quiet)
		table_print(&table, stdout);
	table_done(&table);
}

int image_list_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	const char *output = args_value(args, "output");
	json_t *items = NULL;
	int r;

	if (output && strcmp(output, "json") != 0 && strcmp(output, "table") != 0)
		return failure_usage(fail, "--output", "\"%s\" is neither table nor json", output);
	client = client_new(args, fail);
	if (!client)
		return -fail->error.errnum;
	r = client_list(client, "/v1/images", "", &items, fail);
	if (r == 0 && output && strcmp(output, "json") == 0)
		print_json(items);
	else if (r == 0)
		print_images(items, args_flag(args, "quiet"));
	json_decref(items);
	return r;
}

int image_remove_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	int r = client ? 0 : -fail->error.errnum;

	for (size_t i = 0; i < args->n_operands && r == 0; i++) {
		cleanup_free char *path =
			client_path("images", args->operands[i], args_flag(args, "force") ? "?force=1" : "");

		r = client_call(client, "DELETE", path, NULL, NULL, fail);
		if (r == 0)
			printf("%s\n", args->operands[i]);
	}
	if (r < 0 && strcmp(fail->code, "image_in_use") == 0)
		failure_hint(fail, "`hull image rm -f` takes the name away; machines keep their content");
	return r;
}

int image_inspect_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	cleanup_free char *path = client_path("images", args->operands[0], "");
	json_t *image = NULL;
	int r;

	if (!client)
		return -fail->error.errnum;
	r = client_call(client, "GET", path, NULL, &image, fail);
	if (r == 0)
		print_json(image);
	json_decref(image);
	return r;
}
