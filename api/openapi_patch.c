/* A field table as the JSON Schema of a merge patch for what it describes (RFC 7396). */
#include "api/http.h"

/* Of an object a patch may have any part: that it is whole shows once it is merged. */
static json_t *part_of(json_t *schema)
{
	if (json_object_get(schema, "$ref"))
		return json_pack("{s:s}", "type", "object");
	schema = json_deep_copy(schema);
	json_object_del(schema, "default");
	if (json_object_get(schema, "additionalProperties"))
		json_object_set_new(schema, "additionalProperties", json_pack("{s:[s, s]}", "type", "string", "null"));
	return schema;
}

json_t *openapi_patch_schema(const struct json_table *table)
{
	json_t *schemas = json_object(), *properties = json_object(), *property;
	const char *name;

	json_schema(table, schemas);
	json_object_foreach(json_object_get(json_object_get(schemas, table->name), "properties"), name, property)
		json_object_set_new(properties, name, json_pack("{s:[o, {s:s}]}", "anyOf", part_of(property), "type", "null"));
	json_decref(schemas);
	return json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties", 0);
}
