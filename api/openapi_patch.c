/* A field table as the JSON Schema of a merge patch for what it describes (RFC 7396). */
#include "api/openapi.h"

/* Of an object a patch may have any part: that it is whole shows once it is merged. Everything else is replaced. */
static json_t *part_of(const struct json_field *field, json_t *schemas)
{
	json_t *schema;

	if (field->type == JSON_FIELD_OBJECT || field->type == JSON_FIELD_OPTIONAL)
		return openapi_patch_schema(field->table, schemas);
	schema = json_schema_field(field, schemas);
	if (field->type == JSON_FIELD_MAP)
		json_object_set_new(json_object_get(schema, "additionalProperties"), "type", json_pack("[s, s]", "string", "null"));
	return schema;
}

json_t *openapi_patch_schema(const struct json_table *table, json_t *schemas)
{
	json_t *properties = json_object(), *part;

	for (size_t i = 0; i < table->n_fields; i++) {
		const struct json_field *field = &table->fields[i];

		if (field->read_only)
			continue;
		part = part_of(field, schemas);
		if (!field->required) /* null removes it */
			part = json_pack("{s:[o, {s:s}]}", "anyOf", part, "type", "null");
		if (field->help)
			json_object_set_new(part, "description", json_string(field->help));
		json_object_set_new(properties, field->name, part);
	}
	return json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties", 0);
}
