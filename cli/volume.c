/* hull volume create, list, inspect, resize, rm. */
#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/request.h"
#include "cli/spec.h"

#include <errno.h>
#include <string.h>

const struct option_def volume_create_options[] = {
	{'s', "size", "MIB", "size in MiB, or as 512m, 2g (1024)"},
	{0, "label", "KEY=VALUE", "label; may be repeated"},
	OUTPUT_OPTION,
	{0},
};

int volume_create_run(const struct args *args, struct failure *fail)
{
	const char *size = args_value(args, "size"), *value;
	json_t *spec = json_object(), *labels = json_object();
	long long size_mib;
	size_t i = 0;
	int r = size ? spec_read_mib(size, "--size", &size_mib, fail) : 0;

	if (r == 0 && json_object_set_new(spec, "name", json_string(args->operands[0])) < 0)
		r = failure_usage(fail, "VOLUME", "is not UTF-8");
	if (r == 0 && size)
		json_object_set_new(spec, "size_mib", json_integer(size_mib));
	json_object_set_new(spec, "labels", labels);
	while (r == 0 && (value = args_next(args, "label", &i)))
		r = spec_add_pair(labels, "--label", value, fail);
	if (r == 0)
		return request_print(args, "POST", "/v1/volumes", spec, OUTPUT_TABLE, "name", fail);
	json_decref(spec);
	return r;
}

static void add_row(struct table *table, const json_t *volume)
{
	const json_t *machines = json_object_get(volume, "attached_to");
	size_t n = json_array_size(machines);
	char text[SIZE_MAX_TEXT], age[AGE_MAX];

	table_add(table, "%s", json_text(volume, "name"));
	table_add(table, "%s", json_text(volume, "state"));
	table_add(table, "%s", size_text((uint64_t)json_number(volume, "size_mib") << 20, text));
	table_add(table, "%s", size_text((uint64_t)json_number(volume, "used_bytes"), text));
	if (n > 1)
		table_add(table, "%zu machines", n);
	else
		table_add(table, "%s", n ? json_string_value(json_array_get(machines, 0)) : "");
	table_add(table, "%s", age_text(json_text(volume, "created_at"), time(NULL), age));
}

static const struct collection volumes = {"volumes", "name", "NAME|STATE|SIZE|USED|ATTACHED TO|CREATED", add_row};

int volume_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&volumes, args, fail);
}

int volume_inspect_run(const struct args *args, struct failure *fail)
{
	return collection_inspect(&volumes, args, fail);
}

int volume_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&volumes, "", args, fail);
}

static void tell_attached(const json_t *volume)
{
	const json_t *machine;
	size_t i;

	json_array_foreach (json_object_get(volume, "attached_to"), i, machine)
		fprintf(stderr, "hull: %s has it larger from its next start on\n      `hull restart %s` starts it again\n",
			json_string_value(machine), json_string_value(machine));
}

int volume_resize_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	cleanup_free char *path = client_path("volumes", args->operands[0], "");
	json_t *patch, *volume = NULL;
	long long size_mib;
	int r = client ? spec_read_mib(args->operands[1], "SIZE", &size_mib, fail) : -fail->error.errnum;

	if (r < 0)
		return r;
	patch = json_pack("{s:I}", "size_mib", (json_int_t)size_mib);
	r = client_patch(client, path, NULL, patch, &volume, fail);
	if (r == 0) {
		print_made(volume, "name", format);
		tell_attached(volume);
	}
	json_decref(volume);
	json_decref(patch);
	return r;
}
