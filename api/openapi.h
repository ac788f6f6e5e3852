/* The OpenAPI 3.1 document: made of the routing table and the tables of bodies, so that nothing is described twice. */
#ifndef HULL_API_OPENAPI_H
#define HULL_API_OPENAPI_H

#include "api/http.h"

/* Of a routing table, a new object. `params`: ended by a NULL name; of all paths. */
json_t *openapi_document(const struct http_route *routes, const struct http_param *params);

/* Its parts, new references; what they refer to is added to `schemas`. */

/* A table, or a list of what it describes; and that as the content of a type. */
json_t *openapi_schema_of(const struct json_table *table, bool list, json_t *schemas);
json_t *openapi_content(const char *type, json_t *schema);
/* openapi_patch.c: what HTTP_BODY_MERGE_PATCH takes, any of the table's fields, or null. */
json_t *openapi_patch_schema(const struct json_table *table, json_t *schemas);
/* openapi_parameters.c, openapi_responses.c: a route's. */
json_t *openapi_parameters(const struct http_route *route, const struct http_param *params);
json_t *openapi_responses(const struct http_route *route, json_t *schemas);

#endif
