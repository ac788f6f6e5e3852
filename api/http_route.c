/* Which route a request is for, and whether it may be served: all that its head decides. */
#include "api/http_request.h"

#include <string.h>
#include <strings.h>

/* Does `url` fit `path`? Copies the segment in the place of {…} to `param`. */
static bool path_fits(const char *path, const char *url, char *param, size_t size)
{
	const char *brace = strchr(path, '{');
	size_t before = brace ? (size_t)(brace - path) : 0, len;

	param[0] = '\0';
	if (!brace)
		return strcmp(path, url) == 0;
	if (strncmp(path, url, before) != 0)
		return false;
	len = strcspn(url + before, "/");
	if (len == 0 || len >= size || strcmp(strchr(brace, '}') + 1, url + before + len) != 0)
		return false;
	memcpy(param, url + before, len);
	param[len] = '\0';
	return true;
}

static void refuse_method(struct request *req, const char *url, const char *method)
{
	char param[sizeof(req->param)], allow[64] = "";
	const struct http_route *route;

	for (route = req->http->routes; route->method; route++)
		if (path_fits(route->path, url, param, sizeof(param)))
			snprintf(allow + strlen(allow), sizeof(allow) - strlen(allow), "%s%s", allow[0] ? ", " : "",
				route->method);
	if (!allow[0]) {
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no %.120s here", url);
		return;
	}
	request_refuse_with(req, PROBLEM_METHOD_NOT_ALLOWED, NULL, "%.20s is not one of %s", method, allow);
	MHD_add_response_header(req->response, MHD_HTTP_HEADER_ALLOW, allow);
}

void http_find_route(struct request *req, const char *url, const char *method)
{
	const struct http_route *route;
	int pass;

	/* HEAD is GET without the body, unless a route of its own says otherwise. */
	for (pass = 0; pass < 2; pass++) {
		for (route = req->http->routes; route->method; route++)
			if (strcmp(route->method, method) == 0 &&
				path_fits(route->path, url, req->param, sizeof(req->param))) {
				req->route = route;
				return;
			}
		if (strcmp(method, "HEAD") != 0)
			break;
		method = "GET";
	}
	refuse_method(req, url, method);
}

enum http_scope http_route_scope(const struct http_route *route)
{
	if (route->scope != SCOPE_BY_METHOD)
		return route->scope;
	return strcmp(route->method, "GET") == 0 || strcmp(route->method, "HEAD") == 0 ? SCOPE_READ : SCOPE_WRITE;
}

/* With parameters, as a charset, or without. */
static bool is_type(const char *type, const char *wanted)
{
	size_t len = strlen(wanted);

	return strncasecmp(type, wanted, len) == 0 && (!type[len] || strchr(" \t;", type[len]));
}

static void check_body(struct request *req)
{
	const char *type = request_header(req, MHD_HTTP_HEADER_CONTENT_TYPE);
	bool patch = req->route->body == HTTP_BODY_MERGE_PATCH;
	struct problem problem;

	if (req->route->body != HTTP_BODY_JSON && req->route->body != HTTP_BODY_JSON_OPTIONAL && !patch)
		return;
	if (request_content_length(req) > (int64_t)HTTP_JSON_MAX) {
		request_refuse_with(
			req, PROBLEM_PAYLOAD_TOO_LARGE, NULL, "a JSON body may have at most %u bytes", HTTP_JSON_MAX);
	} else if (type ? !is_type(type, patch ? HTTP_MERGE_PATCH : HTTP_JSON) : patch) {
		problem_set(&problem, PROBLEM_UNSUPPORTED_MEDIA_TYPE, NULL, "the body is %.80s", type ? type : "of no type");
		problem_set_hint(&problem, "send Content-Type: %s", patch ? HTTP_MERGE_PATCH : HTTP_JSON);
		request_refuse(req, &problem);
		if (patch) /* RFC 5789, section 2.2 */
			MHD_add_response_header(req->response, "Accept-Patch", HTTP_MERGE_PATCH);
	}
}

/* A condition that nobody looks at must not pass for one that holds. */
static void check_condition(struct request *req)
{
	const char *field = request_condition(req);

	if (field && !http_route_has_preconditions(req->route))
		request_refuse_with(req, PROBLEM_INVALID_FIELD, field, "what is asked for has no entity tag");
	else if (field)
		http_condition_is_senseless(req, field);
}

void http_check_request(struct request *req)
{
	http_check_query(req);
	if (!req->response)
		check_condition(req);
	if (!req->response)
		check_body(req);
}
