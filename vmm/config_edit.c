/* The configuration, put together piece by piece by a client of the API.
 *
 * Theory of operation. A piece is read by its own table into memory of its own, takes the old one's place, and the rules
 * look at the whole: it stays, or the old one comes back. So nothing is half changed, and no rule stands twice. */
#include "vmm/config_items.h"

#include <assert.h>
#include <string.h>

void config_init(struct config *ret)
{
	cleanup(json_decrefp) json_t *machine =
		json_pack("{s:i, s:i}", "vcpu_count", 1, "mem_size_mib", CONFIG_MEMORY_DEFAULT);
	const struct json_field *field = json_find_field(&config_table, "machine-config");
	int r;

	*ret = (struct config){0};
	r = json_read(field->table, machine, &ret->machine, NULL);
	assert(r == 0);
	(void)r;
}

static const struct json_field *piece_field(const char *key)
{
	const struct json_field *field = json_find_field(&config_table, key);

	assert(field && field->table); /* the API's own routes name it */
	return field;
}

static void swap_bytes(void *a, void *b, size_t n)
{
	char *x = a, *y = b, t;

	for (size_t i = 0; i < n; i++) {
		t = x[i];
		x[i] = y[i];
		y[i] = t;
	}
}

/* Puts `piece` into `place`, if the whole is right with it; `piece` holds what is to be freed afterwards. */
static int exchange(struct config *config, void *place, void *piece, size_t size, struct error *err)
{
	int r;

	swap_bytes(place, piece, size);
	r = config_check(config, err);
	if (r < 0)
		swap_bytes(place, piece, size);
	return r;
}

static int put_item(
	struct config *config, const struct json_field *field, const char *id, void *item, struct error *err)
{
	struct json_array *array = config_place(config, field);
	size_t index = config_item_index(field, array, id), size = field->table->size;
	void *grown;
	int r;

	if (strcmp(config_item_id(field, item), id) != 0)
		return error_set_field(err, EINVAL, field->table->fields[0].name, "is \"%.64s\", and the path says \"%.64s\"",
			config_item_id(field, item), id);
	if (index < array->len)
		return exchange(config, config_item_at(field, array, index), item, size, err);
	if (field->max && array->len == (size_t)field->max)
		return error_set_field(err, ENOSPC, field->name, "has %zu already, which is all there can be", array->len);
	grown = realloc(array->items, (array->len + 1) * size);
	if (!grown)
		return error_set(err, ENOMEM, "out of memory");
	array->items = grown;
	memset(config_item_at(field, array, array->len), 0, size);
	array->len++;
	r = exchange(config, config_item_at(field, array, index), item, size, err);
	if (r < 0)
		array->len--;
	return r;
}

static int put_optional(struct config *config, const struct json_field *field, void *piece, struct error *err)
{
	void *copy = malloc(field->table->size);
	int r;

	if (!copy)
		return error_set(err, ENOMEM, "out of memory");
	memcpy(copy, piece, field->table->size);
	memset(piece, 0, field->table->size);
	r = exchange(config, config_place(config, field), &copy, sizeof(copy), err);
	if (copy) {
		json_done(field->table, copy);
		free(copy);
	}
	return r;
}

int config_put(struct config *config, const char *key, const char *id, const json_t *value, struct error *err)
{
	const struct json_field *field = piece_field(key);
	cleanup_free void *piece = malloc(field->table->size);
	int r;

	if (!piece)
		return error_set(err, ENOMEM, "out of memory");
	r = json_read(field->table, value, piece, err);
	if (r < 0)
		return r;
	switch (field->type) {
	case JSON_FIELD_ARRAY:
		r = put_item(config, field, id, piece, err);
		break;
	case JSON_FIELD_OPTIONAL:
		r = put_optional(config, field, piece, err);
		break;
	default:
		r = exchange(config, config_place(config, field), piece, field->table->size, err);
	}
	json_done(field->table, piece);
	return r;
}

int config_patch(struct config *config, const char *key, const json_t *fields, struct error *err)
{
	cleanup(json_decrefp) json_t *whole = config_get(config, key);

	if (!json_is_object(fields))
		return error_set(err, EINVAL, "must be an object");
	if (!json_is_object(whole))
		return error_set_field(err, EINVAL, key, "is not configured");
	if (json_object_update(whole, (json_t *)fields) < 0)
		return error_set(err, ENOMEM, "out of memory");
	return config_put(config, key, NULL, whole, err);
}

int config_patch_item(
	struct config *config, const char *key, const char *id, const json_t *fields, struct error *err)
{
	cleanup(json_decrefp) json_t *whole = config_get_item(config, key, id);

	if (!whole)
		return error_set(err, ENOENT, "%s has no \"%s\"", key, id);
	if (json_object_update_recursive(whole, (json_t *)fields) < 0)
		return error_set(err, ENOMEM, "out of memory");
	return config_put(config, key, id, whole, err);
}

int config_remove(struct config *config, const char *key, const char *id, struct error *err)
{
	const struct json_field *field = piece_field(key);
	struct json_array *array = config_place(config, field);
	size_t index = config_item_index(field, array, id), size = field->table->size;
	cleanup_free void *item = malloc(size);
	char *place, *behind;
	int r;

	if (index == array->len)
		return error_set(err, ENOENT, "%s has no \"%s\"", key, id);
	if (!item)
		return error_set(err, ENOMEM, "out of memory");
	place = config_item_at(field, array, index);
	behind = place + size;
	memcpy(item, place, size);
	memmove(place, behind, (array->len - index - 1) * size);
	array->len--;
	r = config_check(config, err);
	if (r < 0) {
		memmove(behind, place, (array->len - index) * size);
		memcpy(place, item, size);
		array->len++;
		return r;
	}
	json_done(field->table, item);
	return 0;
}

json_t *config_get(const struct config *config, const char *key)
{
	return json_dump_field(piece_field(key), config);
}

json_t *config_get_item(const struct config *config, const char *key, const char *id)
{
	const struct json_field *field = piece_field(key);
	const struct json_array *array = config_place(config, field);
	size_t index = config_item_index(field, array, id);

	return index < array->len ? json_dump(field->table, config_item_at(field, array, index)) : NULL;
}

json_t *config_get_all(const struct config *config)
{
	json_t *all = json_dump(&config_table, config);

	/* A client's schema has it, so it is there before it was put. */
	if (!config->boot.kernel_image_path)
		json_object_set_new(json_object_get(all, "boot-source"), "kernel_image_path", json_string(""));
	return all;
}
