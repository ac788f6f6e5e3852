/* What a route takes beside a body, as OpenAPI has it: path, query and fields of the head. */
#include "api/openapi.h"

#include "api/idempotency.h"
#include "api/spec.h"

#include <string.h>

/* RFC 9110, section 8.8.3: one or more entity tags, or "*", as a client writes them. */
#define ETAG	      "(W/)?\"[!#-~]*\""
#define ETAGS_PATTERN "^(\\*|" ETAG "(, ?" ETAG ")*)$"

/* Takes `schema`. */
static json_t *parameter(const char *name, size_t len, const char *in, bool required, json_t *schema, const char *help)
{
	json_t *described =
		json_pack("{s:s%, s:s, s:b, s:o}", "name", name, len, "in", in, "required", required, "schema", schema);

	if (help)
		json_object_set_new(described, "description", json_string(help));
	return described;
}

static json_t *text_schema(int64_t min, int64_t max, const char *pattern)
{
	json_t *schema = json_pack("{s:s}", "type", "string");

	if (min)
		json_object_set_new(schema, "minLength", json_integer(min));
	if (max)
		json_object_set_new(schema, "maxLength", json_integer(max));
	json_object_set_new(schema, "pattern", json_string(pattern ? pattern : "^[^\\u0000]*$"));
	return schema;
}

static json_t *names_schema(const char *const *names)
{
	json_t *list = json_array();

	for (; *names; names++)
		json_array_append_new(list, json_string(*names));
	return json_pack("{s:s, s:o}", "type", "string", "enum", list);
}

static json_t *query_schema(const struct http_query *query)
{
	switch (query->type) {
	case HTTP_QUERY_TEXT:
		break;
	case HTTP_QUERY_INT:
		return json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum", (json_int_t)query->min, "maximum", (json_int_t)query->max);
	case HTTP_QUERY_NAME:
		return names_schema(query->names);
	case HTTP_QUERY_NAMES:
		return json_pack("{s:s, s:o, s:i}", "type", "array", "items", names_schema(query->names), "minItems", 1);
	}
	return text_schema(query->min, query->max, query->pattern);
}

static json_t *query_parameter(const struct http_query *query)
{
	json_t *schema = query_schema(query), *described;

	if (query->repeats)
		schema = json_pack("{s:s, s:o, s:i}", "type", "array", "items", schema, "maxItems", (int)query->repeats);
	described = parameter(query->name, strlen(query->name), "query", query->required, schema, query->help);
	if (query->type == HTTP_QUERY_NAMES) {
		json_object_set_new(described, "style", json_string("form"));
		json_object_set_new(described, "explode", json_false());
	}
	return described;
}

static void add_queries(json_t *list, const struct http_query *query)
{
	for (; query && query->name; query++)
		json_array_append_new(list, query_parameter(query));
}

static json_t *path_parameter(const char *path, const struct http_param *params)
{
	const char *name = strchr(path, '{') + 1;
	size_t len = strcspn(name, "}");

	while (params->name && (strlen(params->name) != len || memcmp(params->name, name, len) != 0))
		params++;
	return parameter(name, len, "path", true, text_schema(1, 0, params->pattern), params->help);
}

static json_t *header(const char *name, int64_t max, const char *pattern, const char *help)
{
	return parameter(name, strlen(name), "header", false, text_schema(0, max, pattern), help);
}

json_t *openapi_parameters(const struct http_route *route, const struct http_param *params)
{
	json_t *list = json_array();

	if (strchr(route->path, '{'))
		json_array_append_new(list, path_parameter(route->path, params));
	add_queries(list, route->queries);
	add_queries(list, route->gives_list ? http_page_queries : NULL);
	if (strcmp(route->method, "POST") == 0)
		json_array_append_new(list, header(IDEMPOTENCY_HEADER, REQUEST_KEY_MAX, "^[!-~]+$",
			"The same request with the same key gets the first answer, for 24 hours."));
	if (http_route_has_preconditions(route))
		json_array_append_new(list, header("If-Match", 0, ETAGS_PATTERN,
			"Entity tags of what the resource has to be, or *; else 412 (RFC 9110, section 13.1.1)."));
	if (http_route_is_tagged(route) && strcmp(route->method, "GET") == 0)
		json_array_append_new(list, parameter("If-None-Match", strlen("If-None-Match"), "header", false, json_pack("{s:s}", "type", "string"),
			"Entity tags of what the client has; 304 when it is that (section 13.1.2). What is none asks for nothing."));
	json_array_append_new(list, header("Hull-Project", NAME_MAX_BYTES, NAME_PATTERN,
		"The project to act in. The host's administrator acts in `default` without it; a token acts in its own."));
	return list;
}
