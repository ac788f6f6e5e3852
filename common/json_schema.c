/* Field tables described as JSON Schema, for the OpenAPI document. */
#include "common/json.h"

#include <stdlib.h>
#include <string.h>

static void set(json_t *object, const char *key, json_t *value)
{
	if (!value || json_object_set_new(object, key, value) < 0)
		abort();
}

static json_t *typed(const char *type)
{
	json_t *schema = json_object();

	set(schema, "type", json_string(type));
	return schema;
}

/* A pattern of all strings but those, with a length of thousands, is more than what reads schemas can take. */
static void forbid_nul(json_t *schema)
{
	set(schema, "not", json_pack("{s:s}", "pattern", "\\u0000"));
}

/* What is read has bounds where a field names none: `usual`. What is only written has not. */
static void set_range(json_t *schema, const struct json_field *field, const char *min_key, int64_t min, const char *max_key, int64_t max,
	int64_t usual)
{
	if (min)
		set(schema, min_key, json_integer(min));
	if (max || !field->read_only)
		set(schema, max_key, json_integer(max ? max : usual));
}

/* Bytes are bounded, and a schema counts characters: who goes by it with letters beyond ASCII may still be refused. */
static json_t *string_of(const struct json_field *field, int64_t min, int64_t max)
{
	json_t *schema = typed("string");

	set_range(schema, field, "minLength", min, "maxLength", max, JSON_STRING_MAX);
	if (field->pattern)
		set(schema, "pattern", json_string(field->pattern));
	else
		forbid_nul(schema);
	return schema;
}

/* JSON that stands in a table. */
static json_t *parsed(const char *text)
{
	json_t *value = json_loads(text, 0, NULL);

	if (!value)
		abort();
	return value;
}

static json_t *reference(const struct json_table *table, json_t *schemas)
{
	json_t *ref = json_object();

	json_schema(table, schemas);
	set(ref, "$ref", json_sprintf("#/components/schemas/%s", table->name));
	return ref;
}

static json_t *enumeration(const char *const *names)
{
	json_t *list = json_array();

	for (; *names; names++)
		json_array_append_new(list, json_string(*names));
	return list;
}

static void describe_default(json_t *schema, const struct json_field *field)
{
	if (field->required || field->read_only)
		return;
	switch (field->type) {
	case JSON_FIELD_BOOL:
		set(schema, "default", json_boolean(field->def != 0));
		break;
	case JSON_FIELD_INT:
		if (field->def >= field->min && field->def <= field->max)
			set(schema, "default", json_integer(field->def));
		break;
	case JSON_FIELD_ENUM:
		set(schema, "default", json_string(field->names[field->def]));
		break;
	case JSON_FIELD_STRING:
		if (field->def_string)
			set(schema, "default", json_string(field->def_string));
		break;
	default:
		break;
	}
}

static json_t *schema_of_type(const struct json_field *field, json_t *schemas)
{
	json_t *schema;

	switch (field->type) {
	case JSON_FIELD_BOOL:
		return typed("boolean");
	case JSON_FIELD_INT:
		schema = typed("integer");
		/* Both bounds always hold for a number, zero too. */
		set(schema, "minimum", json_integer(field->min));
		set(schema, "maximum", json_integer(field->max));
		return schema;
	case JSON_FIELD_STRING:
		return string_of(field, field->min, field->max);
	case JSON_FIELD_ENUM:
		schema = typed("string");
		set(schema, "enum", enumeration(field->names));
		return schema;
	case JSON_FIELD_OBJECT:
	case JSON_FIELD_OPTIONAL:
		return reference(field->table, schemas);
	case JSON_FIELD_ARRAY:
		schema = typed("array");
		set(schema, "items", reference(field->table, schemas));
		set_range(schema, field, "minItems", field->min, "maxItems", field->max, JSON_ITEMS_MAX);
		return schema;
	case JSON_FIELD_STRINGS:
		schema = typed("array");
		set(schema, "items", field->names ? json_pack("{s:s, s:o}", "type", "string", "enum", enumeration(field->names))
						  : string_of(field, 0, field->item_max));
		if (field->first_min)
			set(schema, "prefixItems", json_pack("[o]", string_of(field, field->first_min, field->item_max)));
		set_range(schema, field, "minItems", field->min, "maxItems", field->max, JSON_ITEMS_MAX);
		return schema;
	case JSON_FIELD_MAP:
		schema = typed("object");
		set(schema, "propertyNames", json_object());
		if (field->pattern)
			set(json_object_get(schema, "propertyNames"), "pattern", json_string(field->pattern));
		else
			forbid_nul(json_object_get(schema, "propertyNames"));
		set(schema, "additionalProperties", typed("string"));
		forbid_nul(json_object_get(schema, "additionalProperties"));
		set_range(schema, field, "minProperties", 0, "maxProperties", field->max, JSON_ITEMS_MAX);
		return schema;
	case JSON_FIELD_ANY:
		return json_object();
	}
	return json_object();
}

json_t *json_schema_field(const struct json_field *field, json_t *schemas)
{
	json_t *schema = schema_of_type(field, schemas), *more = field->schema ? parsed(field->schema) : NULL;

	if (more)
		json_object_update(schema, more);
	json_decref(more);
	return schema;
}

/* A nullable type allows null beside what it is. */
static json_t *or_null(json_t *schema)
{
	json_t *either = json_object(), *list = json_array();

	json_array_append_new(list, schema);
	json_array_append_new(list, typed("null"));
	set(either, "anyOf", list);
	return either;
}

static json_t *describe_field(const struct json_field *field, json_t *schemas)
{
	json_t *schema = json_schema_field(field, schemas);

	describe_default(schema, field);
	if (field->nullable)
		schema = or_null(schema);
	if (field->read_only)
		set(schema, "readOnly", json_true());
	if (field->secret)
		set(schema, "writeOnly", json_true());
	if (field->help)
		set(schema, "description", json_string(field->help));
	return schema;
}

void json_schema(const struct json_table *table, json_t *schemas)
{
	json_t *schema, *properties, *required;

	if (json_object_get(schemas, table->name))
		return;
	schema = typed("object");
	properties = json_object();
	required = json_array();
	/* In first, so that a table that reaches itself ends. */
	set(schemas, table->name, schema);
	for (size_t i = 0; i < table->n_fields; i++) {
		const struct json_field *field = &table->fields[i];

		set(properties, field->name, describe_field(field, schemas));
		if (field->required)
			json_array_append_new(required, json_string(field->name));
	}
	set(schema, "properties", properties);
	if (json_array_size(required))
		set(schema, "required", required);
	else
		json_decref(required);
	set(schema, "additionalProperties", json_false());
	if (table->rule)
		set(schema, "allOf", json_pack("[o]", parsed(table->rule)));
}
