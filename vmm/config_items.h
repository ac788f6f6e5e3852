/* The configuration's arrays as their tables describe them, whatever is in them: an item's id is its table's first field.
 * `field` is one of config_table's, of type JSON_FIELD_ARRAY, and `array` the array that it describes. */
#ifndef HULL_VMM_CONFIG_ITEMS_H
#define HULL_VMM_CONFIG_ITEMS_H

#include "vmm/config.h"

/* What a field of any type describes. Borrowed. */
void *config_place(const struct config *config, const struct json_field *field);

const char *config_item_id(const struct json_field *field, const void *item);
void *config_item_at(const struct json_field *field, const struct json_array *array, size_t index);
/* The index of the item with that id, or array->len. */
size_t config_item_index(const struct json_field *field, const struct json_array *array, const char *id);

/* An id stands once in its array. 0, or -EEXIST with `err` naming the second one. */
int config_check_ids(const struct config *config, struct error *err);

#endif
