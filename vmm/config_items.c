/* Items and their ids: see config_items.h. */
#include "vmm/config_items.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void *config_place(const struct config *config, const struct json_field *field)
{
	return (char *)config + field->offset;
}

const char *config_item_id(const struct json_field *field, const void *item)
{
	assert(field->table->fields[0].type == JSON_FIELD_STRING);
	return *(char *const *)((const char *)item + field->table->fields[0].offset);
}

void *config_item_at(const struct json_field *field, const struct json_array *array, size_t index)
{
	return (char *)array->items + index * field->table->size;
}

size_t config_item_index(const struct json_field *field, const struct json_array *array, const char *id)
{
	size_t i = 0;

	while (i < array->len && strcmp(config_item_id(field, config_item_at(field, array, i)), id) != 0)
		i++;
	return i;
}

static const void *find(const struct config *config, const char *key, const char *id)
{
	const struct json_field *field = json_find_field(&config_table, key);
	const struct json_array *array = config_place(config, field);
	size_t index = config_item_index(field, array, id);

	return index < array->len ? config_item_at(field, array, index) : NULL;
}

const struct config_drive *config_find_drive(const struct config *config, const char *id)
{
	return find(config, "drives", id);
}

const struct config_net *config_find_net(const struct config *config, const char *id)
{
	return find(config, "network-interfaces", id);
}

const struct config_pmem *config_find_pmem(const struct config *config, const char *id)
{
	return find(config, "pmem", id);
}

static int check_ids_of(const struct json_field *field, const struct json_array *array, struct error *err)
{
	for (size_t i = 0; i < array->len; i++) {
		const char *id = config_item_id(field, config_item_at(field, array, i));
		size_t first = config_item_index(field, array, id);

		if (first == i)
			continue;
		error_set_field(err, EEXIST, field->table->fields[0].name, "\"%s\" is taken by %s[%zu]", id, field->name, first);
		return error_in_field(err, "%s[%zu]", field->name, i);
	}
	return 0;
}

int config_check_ids(const struct config *config, struct error *err)
{
	int r = 0;

	for (size_t i = 0; i < config_table.n_fields && r == 0; i++) {
		const struct json_field *field = &config_table.fields[i];

		if (field->type == JSON_FIELD_ARRAY)
			r = check_ids_of(field, config_place(config, field), err);
	}
	return r;
}
