/* Reading, freeing and writing structs by field table. json_schema.c describes them. */
#include "common/json.h"

#include "common/buf.h"
#include "common/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EDITS_MAX	 2
#define EXACT_DOUBLE_MAX 9007199254740992.0 /* 2^53 */

static void *at(const struct json_field *field, void *object)
{
	return (char *)object + field->offset;
}

static const void *at_const(const struct json_field *field, const void *object)
{
	return (const char *)object + field->offset;
}

/* Memory for what has already been parsed into memory: there is nothing better to do without it. */
static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* Parsing text. */

static int too_deep(const json_t *value, unsigned depth)
{
	const char *key;
	json_t *item;
	size_t i;

	if (depth > JSON_DEPTH_MAX)
		return 1;
	json_object_foreach((json_t *)value, key, item)
		if (too_deep(item, depth + 1))
			return 1;
	json_array_foreach(value, i, item)
		if (too_deep(item, depth + 1))
			return 1;
	return 0;
}

json_t *json_lossy_string(const char *bytes)
{
	cleanup_free char *ascii = NULL;
	json_t *string = json_string(bytes);

	if (string)
		return string;
	ascii = strdup(bytes);
	if (!ascii)
		abort();
	for (char *c = ascii; *c; c++)
		if (*c & 0x80)
			*c = '?';
	return json_string(ascii);
}

json_t *json_parse(const char *text, size_t len, struct error *err)
{
	json_error_t why;
	json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);

	if (!value) {
		error_set(err, EINVAL, "not valid JSON: line %d, column %d: %s", why.line, why.column, why.text);
		return NULL;
	}
	if (too_deep(value, 1)) {
		json_decref(value);
		error_set(err, EINVAL, "not acceptable JSON: nested deeper than %d levels", JSON_DEPTH_MAX);
		return NULL;
	}
	return value;
}

json_t *json_parse_file(const char *path, size_t max, struct error *err)
{
	json_t *value = NULL;
	struct buf text;
	int r;

	buf_init(&text, max);
	r = buf_read_file(&text, path);
	if (r == 0)
		value = json_parse(text.data ? text.data : "", text.len, err);
	else
		error_set_errno(err, -r, "cannot read %s", path);
	buf_done(&text);
	return value;
}

/* The nearest name: Damerau-Levenshtein distance (adjacent swaps count once), on the stack. */

static unsigned edit_distance(const char *a, const char *b)
{
	unsigned rows[3][65];
	size_t la = strlen(a), lb = strlen(b);

	if (la > 64 || lb > 64)
		return UINT32_MAX;
	for (size_t j = 0; j <= lb; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i - 1) % 3], *two_above = rows[(i + 1) % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);

			if (above[j] + 1 < best)
				best = above[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && two_above[j - 2] + 1 < best)
				best = two_above[j - 2] + 1;
			row[j] = best;
		}
	}
	return rows[la % 3][lb];
}

const char *nearest_name(const char *word, const char *const *names)
{
	const char *nearest = NULL, *without_unit = NULL;
	unsigned best = EDITS_MAX + 1;
	size_t len = strlen(word);

	for (; *names; names++) {
		unsigned distance = edit_distance(word, *names);

		/* As "memory" is of "memory_mib". */
		if (len && strncmp(*names, word, len) == 0 && (*names)[len] == '_')
			without_unit = *names;
		/* A name all of which would be edited away is no suggestion. */
		if (distance < best && distance < strlen(*names)) {
			best = distance;
			nearest = *names;
		}
	}
	return nearest ? nearest : without_unit;
}

/* Reading. */

static const char *type_name(const json_t *value)
{
	static const char *const names[] = {
		[JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string", [JSON_INTEGER] = "an integer",
		[JSON_REAL] = "a fraction", [JSON_TRUE] = "true", [JSON_FALSE] = "false", [JSON_NULL] = "null",
	};

	return names[json_typeof(value)];
}

static int wrong_type(const json_t *value, const char *expected, struct error *err)
{
	return error_set(err, EINVAL, "must be %s, not %s", expected, type_name(value));
}

bool json_as_int(const json_t *value, int64_t *ret)
{
	double real = json_real_value(value); /* 0 of anything else */

	if (json_is_integer(value))
		*ret = json_integer_value(value);
	else if (json_is_real(value) && real >= -EXACT_DOUBLE_MAX && real <= EXACT_DOUBLE_MAX && (double)(int64_t)real == real)
		*ret = (int64_t)real;
	else
		return false;
	return true;
}

static int read_int(const struct json_field *field, const json_t *value, int64_t *ret, struct error *err)
{
	int64_t number;

	if (!json_as_int(value, &number))
		return wrong_type(value, "an integer", err);
	if (number < field->min || number > field->max)
		return error_set(err, EINVAL, "must be %lld to %lld, not %lld", (long long)field->min,
			(long long)field->max, (long long)number);
	*ret = number;
	return 0;
}

static int too_short(int64_t min, size_t len, struct error *err)
{
	return error_set(err, EINVAL, len ? "must have at least %lld bytes" : "must not be empty", (long long)min);
}

static int check_string(const struct json_field *field, const json_t *value, struct error *err)
{
	int64_t given = field->type == JSON_FIELD_STRING ? field->max : field->item_max;
	int64_t max = given ? given : JSON_STRING_MAX;
	int64_t min = field->type == JSON_FIELD_STRING ? field->min : 0;
	int64_t len;

	if (!json_is_string(value))
		return wrong_type(value, "a string", err);
	len = (int64_t)json_string_length(value);
	if (strlen(json_string_value(value)) != (size_t)len)
		return error_set(err, EINVAL, "must not contain a NUL");
	if (len < min)
		return too_short(min, (size_t)len, err);
	if (len > max)
		return error_set(err, EINVAL, "must have at most %lld bytes, not %lld", (long long)max, (long long)len);
	return field->check ? field->check(json_string_value(value), err) : 0;
}

static int read_string(const struct json_field *field, const json_t *value, char **ret, struct error *err)
{
	int r = check_string(field, value, err);

	if (r == 0)
		*ret = must(strdup(json_string_value(value)));
	return r;
}

static int read_enum(const struct json_field *field, const json_t *value, int *ret, struct error *err)
{
	char list[192] = "";
	size_t len = 0;

	if (!json_is_string(value))
		return wrong_type(value, "a string", err);
	for (int i = 0; field->names[i]; i++) {
		if (strcmp(field->names[i], json_string_value(value)) == 0) {
			*ret = i;
			return 0;
		}
		if (len < sizeof(list))
			len += (size_t)snprintf(
				list + len, sizeof(list) - len, "%s%s", i ? ", " : "", field->names[i]);
	}
	return error_set(err, EINVAL, "must be one of %s, not \"%.40s\"", list, json_string_value(value));
}

static int check_count(const struct json_field *field, size_t n, struct error *err)
{
	size_t max = field->max ? (size_t)field->max : JSON_ITEMS_MAX;

	if (n < (size_t)field->min)
		return error_set(err, EINVAL, n ? "must have at least %lld items" : "must not be empty",
			(long long)field->min);
	if (n > max)
		return error_set(err, EINVAL, "must have at most %zu items, not %zu", max, n);
	return 0;
}

static int read_array(const struct json_field *field, const json_t *value, struct json_array *ret, struct error *err)
{
	size_t n = json_array_size(value);
	int r;

	if (!json_is_array(value))
		return wrong_type(value, "an array", err);
	r = check_count(field, n, err);
	if (r < 0 || n == 0)
		return r;
	ret->items = must(calloc(n, field->table->size));
	for (; ret->len < n; ret->len++) {
		r = json_read(field->table, json_array_get(value, ret->len),
			(char *)ret->items + ret->len * field->table->size, err);
		if (r < 0)
			return error_in_field(err, "[%zu]", ret->len);
	}
	return 0;
}

static int read_strings(
	const struct json_field *field, const json_t *value, struct json_strings *ret, struct error *err)
{
	size_t n = json_array_size(value);
	int r;

	if (!json_is_array(value))
		return wrong_type(value, "an array of strings", err);
	r = check_count(field, n, err);
	if (r < 0 || n == 0)
		return r;
	ret->items = must(calloc(n + 1, sizeof(*ret->items)));
	for (; ret->len < n; ret->len++) {
		const json_t *item = json_array_get(value, ret->len);

		if (ret->len == 0 && json_is_string(item) && (int64_t)json_string_length(item) < field->first_min)
			r = too_short(field->first_min, json_string_length(item), err);
		else
			r = read_string(field, item, &ret->items[ret->len], err);
		if (r < 0)
			return error_in_field(err, "[%zu]", ret->len);
	}
	return 0;
}

static int read_map(const struct json_field *field, const json_t *value, json_t **ret, struct error *err)
{
	const char *key;
	json_t *item;
	size_t max = field->max ? (size_t)field->max : JSON_ITEMS_MAX;
	int r;

	if (!json_is_object(value))
		return wrong_type(value, "an object of strings", err);
	if (json_object_size(value) > max)
		return error_set(err, EINVAL, "must have at most %zu keys", max);
	json_object_foreach((json_t *)value, key, item) {
		r = field->check ? field->check(key, err) : 0;
		if (r == 0 && !json_is_string(item))
			r = wrong_type(item, "a string", err);
		if (r == 0 && strlen(json_string_value(item)) != json_string_length(item))
			r = error_set(err, EINVAL, "must not contain a NUL");
		if (r < 0)
			return error_in_field(err, "%s", key);
	}
	*ret = must(json_deep_copy(value));
	return 0;
}

static int read_value(const struct json_field *field, const json_t *value, void *object, struct error *err)
{
	void *place = at(field, object);

	switch (field->type) {
	case JSON_FIELD_BOOL:
		if (!json_is_boolean(value))
			return wrong_type(value, "true or false", err);
		*(bool *)place = json_is_true(value);
		return 0;
	case JSON_FIELD_INT:
		return read_int(field, value, place, err);
	case JSON_FIELD_STRING:
		return read_string(field, value, place, err);
	case JSON_FIELD_ENUM:
		return read_enum(field, value, place, err);
	case JSON_FIELD_OBJECT:
		return json_read(field->table, value, place, err);
	case JSON_FIELD_OPTIONAL:
		*(void **)place = must(calloc(1, field->table->size));
		return json_read(field->table, value, *(void **)place, err);
	case JSON_FIELD_ARRAY:
		return read_array(field, value, place, err);
	case JSON_FIELD_STRINGS:
		return read_strings(field, value, place, err);
	case JSON_FIELD_MAP:
		return read_map(field, value, place, err);
	case JSON_FIELD_ANY:
		*(json_t **)place = must(json_deep_copy(value));
		return 0;
	}
	return error_set(err, EINVAL, "has an unknown type");
}

/* What an absent field reads as. An absent OBJECT reads as {}: required fields in it are then missing. */
static int read_default(const struct json_field *field, void *object, struct error *err)
{
	void *place = at(field, object);
	json_t *empty;
	int r = 0;

	switch (field->type) {
	case JSON_FIELD_BOOL:
		*(bool *)place = field->def != 0;
		break;
	case JSON_FIELD_INT:
		*(int64_t *)place = field->def;
		break;
	case JSON_FIELD_ENUM:
		*(int *)place = (int)field->def;
		break;
	case JSON_FIELD_STRING:
		if (field->def_string)
			*(char **)place = must(strdup(field->def_string));
		break;
	case JSON_FIELD_MAP:
		*(json_t **)place = must(json_object());
		break;
	case JSON_FIELD_OBJECT:
		empty = must(json_object());
		r = json_read(field->table, empty, place, err);
		json_decref(empty);
		break;
	default:
		break; /* zeroed already */
	}
	return r;
}

const struct json_field *json_find_field(const struct json_table *table, const char *name)
{
	for (size_t i = 0; i < table->n_fields; i++)
		if (strcmp(table->fields[i].name, name) == 0)
			return &table->fields[i];
	return NULL;
}

static int unknown_key(const struct json_table *table, const char *key, struct error *err)
{
	cleanup_free const char **names = must(calloc(table->n_fields + 1, sizeof(*names)));
	const char *nearest;
	size_t n = 0;

	for (size_t i = 0; i < table->n_fields; i++)
		if (!table->fields[i].read_only)
			names[n++] = table->fields[i].name;
	nearest = nearest_name(key, names);
	if (nearest)
		return error_set_field(err, ENOKEY, key, "unknown field; did you mean \"%s\"?", nearest);
	return error_set_field(err, ENOKEY, key, "unknown field");
}

static int read_fields(const struct json_table *table, const json_t *object, void *ret, struct error *err)
{
	const char *key;
	json_t *value;
	int r;

	json_object_foreach((json_t *)object, key, value) {
		const struct json_field *field = json_find_field(table, key);

		if (!field)
			return unknown_key(table, key, err);
		if (field->read_only)
			return error_set_field(err, EINVAL, key, "is read-only");
	}
	for (size_t i = 0; i < table->n_fields; i++) {
		const struct json_field *field = &table->fields[i];

		value = json_object_get(object, field->name);
		if (field->nullable && json_is_null(value))
			value = NULL;
		if (!value && field->required)
			return error_set_field(err, ENODATA, field->name, "is required");
		if (field->present_offset)
			*(bool *)((char *)ret + field->present_offset) = value != NULL;
		r = value ? read_value(field, value, ret, err) : read_default(field, ret, err);
		if (r < 0)
			return error_in_field(err, "%s", field->name);
	}
	return 0;
}

int json_read(const struct json_table *table, const json_t *object, void *ret, struct error *err)
{
	int r;

	memset(ret, 0, table->size);
	if (!json_is_object(object))
		return wrong_type(object, "an object", err);
	r = read_fields(table, object, ret, err);
	if (r < 0)
		json_done(table, ret);
	return r;
}

/* Freeing. */

static void free_array(const struct json_field *field, struct json_array *array)
{
	for (size_t i = 0; i < array->len; i++)
		json_done(field->table, (char *)array->items + i * field->table->size);
	free(array->items);
}

static void free_strings(struct json_strings *strings)
{
	for (size_t i = 0; i < strings->len; i++)
		free(strings->items[i]);
	free(strings->items);
}

static void free_value(const struct json_field *field, void *place)
{
	switch (field->type) {
	case JSON_FIELD_BOOL:
	case JSON_FIELD_INT:
	case JSON_FIELD_ENUM:
		break;
	case JSON_FIELD_STRING:
		free(*(char **)place);
		break;
	case JSON_FIELD_OBJECT:
		json_done(field->table, place);
		break;
	case JSON_FIELD_OPTIONAL:
		if (*(void **)place)
			json_done(field->table, *(void **)place);
		free(*(void **)place);
		break;
	case JSON_FIELD_ARRAY:
		free_array(field, place);
		break;
	case JSON_FIELD_STRINGS:
		free_strings(place);
		break;
	case JSON_FIELD_MAP:
	case JSON_FIELD_ANY:
		json_decref(*(json_t **)place);
		break;
	}
}

void json_done(const struct json_table *table, void *object)
{
	for (size_t i = 0; i < table->n_fields; i++)
		free_value(&table->fields[i], at(&table->fields[i], object));
	memset(object, 0, table->size);
}

/* Writing. */

static json_t *dump_array(const struct json_field *field, const struct json_array *array)
{
	json_t *list = must(json_array());

	for (size_t i = 0; i < array->len; i++)
		json_array_append_new(list, json_dump(field->table, (const char *)array->items + i * field->table->size));
	return list;
}

static json_t *dump_strings(const struct json_strings *strings)
{
	json_t *list = must(json_array());

	for (size_t i = 0; i < strings->len; i++)
		json_array_append_new(list, must(json_string(strings->items[i])));
	return list;
}

/* NULL when the field is absent. */
static json_t *dump_value(const struct json_field *field, const void *place)
{
	switch (field->type) {
	case JSON_FIELD_BOOL:
		return json_boolean(*(const bool *)place);
	case JSON_FIELD_INT:
		return must(json_integer(*(const int64_t *)place));
	case JSON_FIELD_ENUM:
		return must(json_string(field->names[*(const int *)place]));
	case JSON_FIELD_STRING:
		return *(char *const *)place ? must(json_string(*(char *const *)place)) : NULL;
	case JSON_FIELD_OBJECT:
		return json_dump(field->table, place);
	case JSON_FIELD_OPTIONAL:
		return *(void *const *)place ? json_dump(field->table, *(void *const *)place) : NULL;
	case JSON_FIELD_ARRAY:
		return dump_array(field, place);
	case JSON_FIELD_STRINGS:
		return dump_strings(place);
	case JSON_FIELD_MAP:
		return *(json_t *const *)place ? must(json_deep_copy(*(json_t *const *)place)) : must(json_object());
	case JSON_FIELD_ANY:
		return *(json_t *const *)place ? must(json_deep_copy(*(json_t *const *)place)) : NULL;
	}
	return NULL;
}

/* Whether the field holds what an absent one reads as. */
static bool is_default(const struct json_field *field, const void *place)
{
	const char *string;

	switch (field->type) {
	case JSON_FIELD_BOOL:
		return *(const bool *)place == (field->def != 0);
	case JSON_FIELD_INT:
		return *(const int64_t *)place == field->def;
	case JSON_FIELD_ENUM:
		return *(const int *)place == (int)field->def;
	case JSON_FIELD_STRING:
		string = *(char *const *)place;
		return string && field->def_string ? strcmp(string, field->def_string) == 0 :
						     !string && !field->def_string;
	case JSON_FIELD_OBJECT:
		return false;
	case JSON_FIELD_OPTIONAL:
	case JSON_FIELD_ANY:
		return !*(void *const *)place;
	case JSON_FIELD_ARRAY:
		return ((const struct json_array *)place)->len == 0;
	case JSON_FIELD_STRINGS:
		return ((const struct json_strings *)place)->len == 0;
	case JSON_FIELD_MAP:
		return json_object_size(*(json_t *const *)place) == 0;
	}
	return false;
}

json_t *json_dump_field(const struct json_field *field, const void *object)
{
	json_t *value = dump_value(field, at_const(field, object));

	return value || !field->nullable ? value : json_null();
}

json_t *json_dump(const struct json_table *table, const void *object)
{
	json_t *dumped = must(json_object());

	for (size_t i = 0; i < table->n_fields; i++) {
		const struct json_field *field = &table->fields[i];
		json_t *value;

		if (field->secret || (field->sparse && is_default(field, at_const(field, object))))
			continue;
		value = json_dump_field(field, object);
		if (value)
			json_object_set_new_nocheck(dumped, field->name, value); /* names are ASCII */
	}
	return dumped;
}

char *json_dump_text(const struct json_table *table, const void *object)
{
	json_t *dumped = json_dump(table, object);
	char *text = json_dumps(dumped, JSON_COMPACT);

	json_decref(dumped);
	if (!text)
		abort();
	return text;
}
