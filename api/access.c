#include "api/access.h"

#include "api/http_request.h"
#include "api/hulld.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define PROJECT_HEADER "Hull-Project"

/* Compares in a time that does not depend on where the difference is. */
static bool same_token(const char *a, const char *b)
{
	size_t len_a = strlen(a), len_b = strlen(b);
	unsigned char difference = len_a != len_b;

	for (size_t i = 0; i < len_a; i++)
		difference |= (unsigned char)(a[i] ^ b[len_b ? i % len_b : 0]);
	return difference == 0;
}

static bool identify_host(struct request *req, const char *token, struct client *client)
{
	static const char scheme[] = "Bearer ";
	const char *given = request_header(req, MHD_HTTP_HEADER_AUTHORIZATION);
	struct problem problem;

	client->is_host = !token || (given && strncasecmp(given, scheme, strlen(scheme)) == 0 &&
					   same_token(given + strlen(scheme), token));
	if (client->is_host)
		return true;
	problem_set(&problem, PROBLEM_UNAUTHORIZED, NULL, given ? "the token is wrong" : "a token is needed");
	problem_set_hint(&problem, "send Authorization: Bearer TOKEN");
	request_refuse(req, &problem);
	return false;
}

static bool identify_project(struct request *req, struct client *client, struct hulld *hulld)
{
	const char *given = request_header(req, PROJECT_HEADER);
	struct project_record record;
	struct error err = {0};

	snprintf(client->project, sizeof(client->project), "%s", PROJECT_DEFAULT);
	if (!given)
		return true;
	if (name_check(given, &err) == 0 && store_project_get(hulld->store, given, &record, &err) == 0) {
		snprintf(client->project, sizeof(client->project), "%s", record.name);
		project_record_done(&record);
		return true;
	}
	if (err.errnum == ENOENT)
		request_refuse_with(req, PROBLEM_NOT_FOUND, PROJECT_HEADER, "%s", err.message);
	else {
		error_in_field(&err, PROJECT_HEADER);
		request_refuse_error(req, &err);
	}
	return false;
}

static bool identify(struct request *req, const char *host_token, struct client *client, void *ctx)
{
	return identify_host(req, host_token, client) && identify_project(req, client, ctx);
}

const struct http_guard access_guard = {.identify = identify};
