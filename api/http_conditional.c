/* Conditional requests (RFC 9110, section 13): which answers bear an entity tag, and what a client makes depend on one. */
#include "api/etag.h"
#include "api/http_request.h"

#include <errno.h>
#include <string.h>

/* Those of a single resource. What a program wrote, or a token that is shown once, is none that could be asked for again. */
bool http_route_is_tagged(const struct http_route *route)
{
	return route->gives && !route->gives_list && !route->once;
}

bool http_route_has_preconditions(const struct http_route *route)
{
	return strchr(route->path, '{') && route->body != HTTP_BODY_UPLOAD && strcmp(route->method, "HEAD") != 0;
}

struct condition {
	const char *field, *etag;
	bool weak;
	int r; /* 1: a list has it; 0: none has; -EINVAL: one is none */
};

static enum MHD_Result look_at_field(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct condition *condition = ctx;
	int r;

	(void)kind;
	if (strcasecmp(name, condition->field) != 0)
		return MHD_YES;
	r = etag_list_has(value ? value : "", condition->etag, condition->weak);
	if (condition->r >= 0 && r != 0)
		condition->r = r;
	return MHD_YES;
}

/* A field that comes several times is one list (section 5.3). */
static void look_at_fields(const struct request *req, struct condition *condition)
{
	MHD_get_connection_values(req->connection, MHD_HEADER_KIND, look_at_field, condition);
}

bool http_is_not_modified(const struct request *req, const char *etag)
{
	struct condition condition = {.field = MHD_HTTP_HEADER_IF_NONE_MATCH, .etag = etag, .weak = true};

	if (strcmp(req->route->method, "GET") != 0)
		return false;
	look_at_fields(req, &condition);
	return condition.r > 0; /* what cannot be understood asks for nothing */
}

bool request_has_if_match(const struct request *req)
{
	return request_header(req, MHD_HTTP_HEADER_IF_MATCH);
}

int request_check_match(struct request *req, json_t *representation)
{
	char etag[ETAG_BYTES];
	struct condition condition = {.field = MHD_HTTP_HEADER_IF_MATCH, .etag = etag};
	struct problem problem;

	if (!request_has_if_match(req)) {
		json_decref(representation);
		return 0;
	}
	if (!representation) {
		request_refuse_with(req, PROBLEM_PRECONDITION_FAILED, MHD_HTTP_HEADER_IF_MATCH, "there is none");
		return -ECANCELED;
	}
	etag_of(representation, etag);
	json_decref(representation);
	look_at_fields(req, &condition);
	if (condition.r > 0)
		return 0;
	if (condition.r < 0) {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, MHD_HTTP_HEADER_IF_MATCH, "must be * or entity tags in quotes, with commas between");
		return -ECANCELED;
	}
	problem_set(&problem, PROBLEM_PRECONDITION_FAILED, MHD_HTTP_HEADER_IF_MATCH, "it has changed since; its entity tag is %s now", etag);
	problem_set_hint(&problem, "GET it again, and decide anew");
	request_refuse(req, &problem);
	return -ECANCELED;
}
