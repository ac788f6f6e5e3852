/* The routing table and the field tables as an OpenAPI 3.1 document. */
#include "api/openapi.h"

#include "api/access.h"

#include <string.h>

json_t *openapi_schema_of(const struct json_table *table, bool list, json_t *schemas)
{
	json_t *ref = json_pack("{s:o}", "$ref", json_sprintf("#/components/schemas/%s", table->name));

	json_schema(table, schemas);
	if (!list)
		return ref;
	return json_pack("{s:s, s:{s:{s:s, s:o}, s:{s:s, s:s}}, s:[s]}", "type", "object", "properties", "items", "type", "array",
		"items", ref, "next", "type", "string", "description", "the cursor of the next page; absent on the last one", "required",
		"items");
}

json_t *openapi_content(const char *type, json_t *schema)
{
	return json_pack("{s:{s:o}}", type, "schema", schema);
}

static json_t *request_body(const struct http_route *route, json_t *schemas)
{
	bool upload = route->body == HTTP_BODY_UPLOAD;

	if (route->body == HTTP_BODY_MERGE_PATCH)
		return json_pack("{s:b, s:o}", "required", 1, "content",
			openapi_content(HTTP_MERGE_PATCH, openapi_patch_schema(route->takes, schemas)));
	return json_pack("{s:b, s:o}", "required", route->body == HTTP_BODY_JSON, "content",
		openapi_content(upload ? "application/octet-stream" : HTTP_JSON,
			upload ? json_object() : openapi_schema_of(route->takes, false, schemas)));
}

/* The scopes that its token needs. */
static json_t *security(const struct http_route *route)
{
	const char *name = access_scope_name(http_route_scope(route));
	json_t *scopes = json_array();

	if (name)
		json_array_append_new(scopes, json_string(name));
	return json_pack("[{s:o}]", "token", scopes);
}

static json_t *operation(const struct http_route *route, const struct http_param *params, json_t *schemas)
{
	json_t *described = json_pack("{s:o, s:s, s:s, s:o, s:o}", "security", security(route), "operationId", route->operation,
		"summary", route->summary, "parameters", openapi_parameters(route, params), "responses", openapi_responses(route, schemas));

	if (route->body != HTTP_BODY_NONE)
		json_object_set_new(described, "requestBody", request_body(route, schemas));
	return described;
}

static void lower(char *ret, const char *method)
{
	for (; *method; method++)
		*ret++ = (char)(*method | 0x20);
	*ret = '\0';
}

json_t *openapi_document(const struct http_route *routes, const struct http_param *params)
{
	json_t *schemas = json_object(), *paths = json_object(), *path;
	char method[16];

	json_object_set_new(schemas, "Problem", problem_schema());
	for (; routes->method; routes++) {
		path = json_object_get(paths, routes->path);
		if (!path) {
			path = json_object();
			json_object_set_new(paths, routes->path, path);
		}
		lower(method, routes->method);
		json_object_set_new(path, method, operation(routes, params, schemas));
	}
	return json_pack("{s:s, s:{s:s, s:s}, s:o, s:{s:o, s:{s:{s:s, s:s}}}}", "openapi", "3.1.0", "info", "title", "hulld",
		"version", HULL_VERSION, "paths", paths, "components", "schemas", schemas, "securitySchemes", "token", "type",
		"http", "scheme", "bearer");
}
