/* The routing table and the field tables as an OpenAPI 3.1 document. */
#include "api/access.h"
#include "api/http.h"

#include <string.h>

static json_t *schema_of(const struct json_table *table, bool list, json_t *schemas)
{
	json_t *ref = json_pack("{s:o}", "$ref", json_sprintf("#/components/schemas/%s", table->name));

	json_schema(table, schemas);
	if (!list)
		return ref;
	return json_pack("{s:s, s:{s:{s:s, s:o}, s:{s:s, s:s}}, s:[s]}", "type", "object", "properties", "items", "type", "array",
		"items", ref, "next", "type", "string", "description", "the cursor of the next page; absent on the last one", "required",
		"items");
}

static json_t *content(const char *type, json_t *schema)
{
	return json_pack("{s:{s:o}}", type, "schema", schema);
}

static json_t *parameter(const char *name, size_t len, const char *in, const char *help)
{
	json_t *described = json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", name, len, "in", in, "required",
		strcmp(in, "path") == 0, "schema", "type", "string");

	if (help)
		json_object_set_new(described, "description", json_string(help));
	return described;
}

static json_t *header(const char *name, const char *help)
{
	return parameter(name, strlen(name), "header", help);
}

static json_t *parameters(const struct http_route *route)
{
	const char *brace = strchr(route->path, '{');
	json_t *list = json_array();

	if (brace)
		json_array_append_new(list, parameter(brace + 1, strcspn(brace + 1, "}"), "path", NULL));
	for (const struct http_query *query = route->queries; query && query->name; query++)
		json_array_append_new(list, parameter(query->name, strlen(query->name), "query", query->help));
	for (const struct http_query *query = route->gives_list ? http_page_queries : NULL; query && query->name; query++)
		json_array_append_new(list, parameter(query->name, strlen(query->name), "query", query->help));
	if (strcmp(route->method, "POST") == 0)
		json_array_append_new(list, header("Idempotency-Key", "The same request with the same key gets the first answer, for 24 hours."));
	if (http_route_has_preconditions(route))
		json_array_append_new(list, header("If-Match", "Entity tags of what the resource has to be, or *; else 412 (RFC 9110, section 13.1.1)."));
	if (http_route_is_tagged(route) && strcmp(route->method, "GET") == 0)
		json_array_append_new(list, header("If-None-Match", "Entity tags of what the client has; 304 when it is that (section 13.1.2)."));
	return list;
}

static json_t *request_body(const struct http_route *route, json_t *schemas)
{
	bool upload = route->body == HTTP_BODY_UPLOAD;

	if (route->body == HTTP_BODY_MERGE_PATCH)
		return json_pack("{s:b, s:o}", "required", 1, "content", content(HTTP_MERGE_PATCH, openapi_patch_schema(route->takes)));
	return json_pack("{s:b, s:o}", "required", route->body != HTTP_BODY_JSON_OPTIONAL, "content",
		content(upload ? "application/octet-stream" : "application/json",
			upload ? json_object() : schema_of(route->takes, false, schemas)));
}

static json_t *refusal(const char *description)
{
	return json_pack("{s:s, s:o}", "description", description, "content",
		content("application/problem+json", json_pack("{s:s}", "$ref", "#/components/schemas/Problem")));
}

static json_t *responses(const struct http_route *route, json_t *schemas)
{
	char status[16];
	json_t *success = json_pack("{s:s}", "description", "done"), *all = json_object();

	if (route->gives)
		json_object_set_new(success, "content",
			content("application/json", schema_of(route->gives, route->gives_list, schemas)));
	if (route->upgrade)
		json_object_set_new(all, "101",
			json_pack("{s:o}", "description", json_sprintf("the connection speaks %s", route->upgrade)));
	if (http_route_is_tagged(route))
		json_object_set_new(success, "headers",
			json_pack("{s:{s:s, s:{s:s}}}", "ETag", "description", "of what the answer shows", "schema", "type", "string"));
	if (http_route_is_tagged(route) && strcmp(route->method, "GET") == 0)
		json_object_set_new(all, "304", json_pack("{s:s}", "description", "the client has it already"));
	if (http_route_has_preconditions(route))
		json_object_set_new(all, "412", refusal("it is not what If-Match says"));
	snprintf(status, sizeof(status), "%d", route->status);
	json_object_set_new(all, status, success);
	json_object_set_new(all, "default", refusal("a refusal"));
	return all;
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

static json_t *operation(const struct http_route *route, json_t *schemas)
{
	json_t *described = json_pack("{s:o, s:s, s:s, s:o, s:o}", "security", security(route), "operationId", route->operation, "summary", route->summary,
		"parameters", parameters(route), "responses", responses(route, schemas));

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

json_t *openapi_document(const struct http_route *routes)
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
		json_object_set_new(path, method, operation(routes, schemas));
	}
	return json_pack("{s:s, s:{s:s, s:s}, s:o, s:{s:o, s:{s:{s:s, s:s}}}}", "openapi", "3.1.0", "info", "title", "hulld",
		"version", HULL_VERSION, "paths", paths, "components", "schemas", schemas, "securitySchemes", "token", "type",
		"http", "scheme", "bearer");
}
