/* hull image list, rm, inspect. */
#include "cli/collection.h"
#include "cli/commands.h"

static void add_row(struct table *table, const json_t *image)
{
	char age[AGE_MAX], size[SIZE_MAX_TEXT];

	table_add(table, "%s", json_text(image, "name"));
	table_add(table, "%s", size_text((uint64_t)json_number(image, "size_bytes"), size));
	table_add(table, "%.19s", json_text(image, "rootfs"));
	table_add(table, "%s", age_text(json_text(image, "created_at"), time(NULL), age));
}

static const struct collection images = {"images", "name", "NAME|SIZE|CONTENT|CREATED", add_row,
	"`hull image rm -f` takes the name away; machines keep their content"};

int image_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&images, args, fail);
}

int image_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&images, args_flag(args, "force") ? "?force=1" : "", args, fail);
}

int image_inspect_run(const struct args *args, struct failure *fail)
{
	return collection_inspect(&images, args, fail);
}
