/* Conditional requests (RFC 9110, section 13): which answers bear an entity tag, and what a client makes depend on one. */
#include "api/etag.h"
#include "api/http_request.h"

#include <errno.h>
#include <string.h>

/* Those of a single resource. What a program wrote, or a token that is shown once, is none that could be asked for again. */
bool http_route_is_tagged(const struct http_route *route)
{
	return route->gives && !route->gives_list && !route->once && !route->shown_once && route->body != HTTP_BODY_UPLOAD;
}

bool http_route_has_preconditions(const struct http_route *route)
{
	return strchr(route->path, '{') && !route->unconditional;
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

/* A GET's is for what its answer has (http_is_not_modified()). */
static bool has_if_none_match(const struct request *req)
{
	return strcmp(req->route->method, "GET") != 0 && request_header(req, MHD_HTTP_HEADER_IF_NONE_MATCH);
}

const char *request_condition(const struct request *req)
{
	if (request_header(req, MHD_HTTP_HEADER_IF_MATCH))
		return MHD_HTTP_HEADER_IF_MATCH;
	return has_if_none_match(req) ? MHD_HTTP_HEADER_IF_NONE_MATCH : NULL;
}

static int refuse_senseless(struct request *req, const char *field)
{
	request_refuse_with(req, PROBLEM_INVALID_FIELD, field, "must be * or entity tags in quotes, with commas between");
	return -ECANCELED;
}

bool http_condition_is_senseless(struct request *req, const char *field)
{
	struct condition condition = {.field = field, .etag = "\"\""};

	look_at_fields(req, &condition);
	return condition.r < 0 && refuse_senseless(req, field) < 0;
}

/* `etag` NULL: there is none. */
static int check_none_match(struct request *req, const char *etag)
{
	struct condition condition = {.field = MHD_HTTP_HEADER_IF_NONE_MATCH, .etag = etag ? etag : "", .weak = true};

	if (!has_if_none_match(req))
		return 0;
	look_at_fields(req, &condition);
	if (condition.r < 0)
		return refuse_senseless(req, condition.field);
	if (condition.r == 0 || !etag)
		return 0;
	request_refuse_with(req, PROBLEM_PRECONDITION_FAILED, condition.field, "it is there; its entity tag is %s", etag);
	return -ECANCELED;
}

int request_check_match(struct request *req, json_t *representation)
{
	char etag[ETAG_BYTES];
	struct condition condition = {.field = MHD_HTTP_HEADER_IF_MATCH, .etag = etag};
	bool has_if_match = request_header(req, MHD_HTTP_HEADER_IF_MATCH);
	struct problem problem;

	if (!request_condition(req)) {
		json_decref(representation);
		return 0;
	}
	if (!representation && !has_if_match)
		return check_none_match(req, NULL);
	if (!representation) {
		request_refuse_with(req, PROBLEM_PRECONDITION_FAILED, MHD_HTTP_HEADER_IF_MATCH, "there is none");
		return -ECANCELED;
	}
	etag_of(representation, etag);
	json_decref(representation);
	if (has_if_match)
		look_at_fields(req, &condition);
	if (condition.r < 0)
		return refuse_senseless(req, condition.field);
	if (condition.r > 0 || !has_if_match)
		return check_none_match(req, etag);
	problem_set(&problem, PROBLEM_PRECONDITION_FAILED, MHD_HTTP_HEADER_IF_MATCH, "it has changed since; its entity tag is %s now", etag);
	problem_set_hint(&problem, "GET it again, and decide anew");
	request_refuse(req, &problem);
	return -ECANCELED;
}

void request_reply_matching(struct request *req, json_t *representation)
{
	if (request_check_match(req, json_incref(representation)) == 0)
		request_reply(req, 200, representation);
	else
		json_decref(representation);
}
