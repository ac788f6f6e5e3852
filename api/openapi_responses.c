/* What a route answers, as OpenAPI has it: its successes, and each status that a refusal of it may have, with the codes. */
#include "api/openapi.h"

#include "api/access.h"

#include <stdio.h>
#include <string.h>

/* Of every request: its token, its project, its query; and of every server. */
#define REFUSED_ALWAYS                                                                                        \
	(REFUSES(UNAUTHORIZED) | REFUSES(NOT_FOUND) | REFUSES(INVALID_FIELD) |                 \
		REFUSES(UNKNOWN_FIELD) | REFUSES(BUSY) | REFUSES(INTERNAL))

static bool has_required_query(const struct http_route *route)
{
	const struct http_query *query = route->queries;

	while (query && query->name && !query->required)
		query++;
	return query && query->name;
}

static uint64_t refusals_of(const struct http_route *route)
{
	uint64_t refuses = REFUSED_ALWAYS | route->refuses;
	bool reads = strcmp(route->method, "GET") == 0 || strcmp(route->method, "HEAD") == 0;
	bool json = route->takes != NULL;

	if (http_route_scope(route) != SCOPE_ANY)
		refuses |= REFUSES(FORBIDDEN);
	if (!reads)
		refuses |= REFUSES(INSUFFICIENT_STORAGE);
	if (json || has_required_query(route))
		refuses |= REFUSES(MISSING_FIELD);
	if (json)
		refuses |= REFUSES(INVALID_JSON) | REFUSES(PAYLOAD_TOO_LARGE) | REFUSES(UNSUPPORTED_MEDIA_TYPE);
	if (http_route_has_preconditions(route))
		refuses |= REFUSES(PRECONDITION_FAILED);
	if (strcmp(route->method, "POST") == 0)
		refuses |= REFUSES(REQUEST_IN_PROGRESS) | REFUSES(KEY_REUSED);
	if (route->once || route->shown_once)
		refuses |= REFUSES(OUTCOME_UNKNOWN);
	return refuses;
}

/* Of the codes in `refuses` that have `status`: "invalid_json, invalid_field". */
static json_t *refusal(uint64_t refuses, int status)
{
	char codes[512] = "";
	size_t len = 0;

	for (int code = 0; code < PROBLEM_N_CODES; code++)
		if (refuses & CODE_BIT(code) && problem_status(code) == status && len < sizeof(codes))
			len += (size_t)snprintf(codes + len, sizeof(codes) - len, "%s%s", len ? ", " : "", problem_name(code));
	return json_pack("{s:s, s:o}", "description", codes, "content",
		openapi_content("application/problem+json", json_pack("{s:s}", "$ref", "#/components/schemas/Problem")));
}

static void add_refusals(json_t *all, uint64_t refuses)
{
	char status[16];

	for (int code = 0; code < PROBLEM_N_CODES; code++) {
		snprintf(status, sizeof(status), "%d", problem_status(code));
		if (refuses & CODE_BIT(code) && !json_object_get(all, status))
			json_object_set_new(all, status, refusal(refuses, problem_status(code)));
	}
}

static json_t *header(const char *description)
{
	return json_pack("{s:s, s:{s:s}}", "description", description, "schema", "type", "string");
}

static json_t *success(const struct http_route *route, json_t *schemas)
{
	json_t *described = json_pack("{s:s}", "description", "done"), *content = json_object(), *headers = json_object();

	if (route->gives)
		json_object_set_new(content, HTTP_JSON,
			json_pack("{s:o}", "schema", openapi_schema_of(route->gives, route->gives_list, schemas)));
	if (route->type)
		json_object_set_new(content, route->type, json_object());
	if (json_object_size(content))
		json_object_set(described, "content", content);
	json_decref(content);
	if (http_route_is_tagged(route))
		json_object_set_new(headers, "ETag", header("of what the answer shows"));
	if (route->begins_operation)
		json_object_set_new(headers, HTTP_OPERATION, header("id of the operation that is under way, or was begun, if any"));
	if (json_object_size(headers))
		json_object_set(described, "headers", headers);
	json_decref(headers);
	return described;
}

static void add_success(json_t *all, int status, const struct http_route *route, json_t *schemas)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", status);
	json_object_set_new(all, text, success(route, schemas));
}

json_t *openapi_responses(const struct http_route *route, json_t *schemas)
{
	json_t *all = json_object();

	if (route->upgrade)
		json_object_set_new(all, "101", json_pack("{s:o}", "description", json_sprintf("the connection speaks %s", route->upgrade)));
	add_success(all, route->status, route, schemas);
	if (route->other_status)
		add_success(all, route->other_status, route, schemas);
	if (http_route_is_tagged(route) && strcmp(route->method, "GET") == 0)
		json_object_set_new(all, "304", json_pack("{s:s}", "description", "the client has it already"));
	add_refusals(all, refusals_of(route));
	return all;
}
