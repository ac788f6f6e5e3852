#include "api/access.h"

#include "api/http_request.h"
#include "api/hulld.h"
#include "api/token.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define PROJECT_HEADER	"Hull-Project"
#define NS_PER_MS	1000000ull
#define LOOK_EVERY_MS	60000 /* at expiry, at the latest: the host's clock may be set */
#define CHALLENGE	"Bearer realm=\"hull\""

static const char *const scope_names[N_SCOPES] = {
	[SCOPE_READ] = "read", [SCOPE_WRITE] = "write", [SCOPE_EXEC] = "exec", [SCOPE_ADMIN] = "admin",
	[SCOPE_HOST] = "host"};

enum http_scope access_scope_by_name(const char *name)
{
	for (enum http_scope scope = SCOPE_READ; scope <= SCOPE_ADMIN; scope++)
		if (strcmp(scope_names[scope], name) == 0)
			return scope;
	return 0;
}

const char *access_scope_name(enum http_scope scope)
{
	return scope_names[scope];
}

size_t access_scope_names(unsigned scopes, char *ret[N_SCOPES])
{
	size_t n = 0;

	for (enum http_scope scope = SCOPE_READ; scope <= SCOPE_ADMIN; scope++)
		if (scopes & SCOPE_BIT(scope))
			ret[n++] = (char *)scope_names[scope];
	return n;
}

/* Compares in a time that does not depend on where the difference is. */
static bool same_token(const char *a, const char *b)
{
	size_t len_a = strlen(a), len_b = strlen(b);
	unsigned char difference = len_a != len_b;

	for (size_t i = 0; i < len_a; i++)
		difference |= (unsigned char)(a[i] ^ b[len_b ? i % len_b : 0]);
	return difference == 0;
}

/* The bearer token of the head (RFC 6750, section 2.1), or NULL. */
static const char *bearer(const struct request *req)
{
	static const char scheme[] = "Bearer ";
	const char *given = request_header(req, MHD_HTTP_HEADER_AUTHORIZATION);

	return given && strncasecmp(given, scheme, strlen(scheme)) == 0 ? given + strlen(scheme) : NULL;
}

/* RFC 9110, section 11.6.1; RFC 6750, section 3: no error is named to who has shown no token. */
static bool refuse_unknown(struct request *req, const char *why)
{
	bool given = request_header(req, MHD_HTTP_HEADER_AUTHORIZATION);
	struct problem problem;

	problem_set(&problem, PROBLEM_UNAUTHORIZED, NULL, "%s", given ? why : "a token is needed");
	problem_set_hint(&problem, "send Authorization: Bearer TOKEN");
	request_refuse(req, &problem);
	MHD_add_response_header(req->response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, given ? CHALLENGE ", error=\"invalid_token\"" : CHALLENGE);
	return false;
}

static void look_at(struct hulld *hulld, int64_t at)
{
	int64_t now = now_ms(), latest = now + LOOK_EVERY_MS;

	if (at > latest)
		at = latest;
	if (hulld->expiry_at && hulld->expiry_at <= at && hulld->expiry_at >= now)
		return;
	hulld->expiry_at = at;
	loop_timer_arm(hulld->expiry, at > now ? (uint64_t)(at - now) * NS_PER_MS : 0);
}

static bool identify_token(struct request *req, const char *token, struct client *client, struct hulld *hulld)
{
	struct error err;
	int r = token_identify(hulld, token, client, &err);

	if (r == -EACCES)
		return refuse_unknown(req, err.message);
	if (r < 0) {
		request_refuse_error(req, &err);
		return false;
	}
	if (client->expires_at)
		look_at(hulld, client->expires_at);
	return true;
}

/* Only the project that a token is of is there for it. */
static bool identify_project(struct request *req, struct client *client, struct hulld *hulld)
{
	const char *given = request_header(req, PROJECT_HEADER);
	struct project_record record;
	struct error err = {0};
	bool found;

	if (!given)
		return true;
	if (name_check(given, &err) < 0 || (store_project_get(hulld->store, given, &record, &err) < 0 && err.errnum != ENOENT)) {
		error_in_field(&err, PROJECT_HEADER);
		request_refuse_error(req, &err);
		return false;
	}
	found = !err.errnum;
	if (found)
		project_record_done(&record);
	if (!found || (!client->is_host && strcmp(client->project, given) != 0)) {
		request_refuse_with(req, PROBLEM_NOT_FOUND, PROJECT_HEADER, "there is no project \"%s\"", given);
		return false;
	}
	snprintf(client->project, sizeof(client->project), "%s", given);
	return true;
}

static bool identify(struct request *req, const char *host_token, struct client *client, void *ctx)
{
	const char *token = bearer(req);

	/* Over the Unix socket, too, who shows a token is who the token says. */
	if (token && strncmp(token, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) == 0 && !(host_token && same_token(token, host_token)))
		return identify_token(req, token, client, ctx);
	if (host_token && !(token && same_token(token, host_token)))
		return refuse_unknown(req, "the token is wrong");
	client->is_host = true;
	client->scopes = ~0u;
	snprintf(client->project, sizeof(client->project), "%s", PROJECT_DEFAULT);
	return true;
}

/* RFC 6750, section 3.1. */
static bool permit(struct request *req, enum http_scope scope, void *ctx)
{
	const char *name = scope_names[scope];
	struct problem problem;
	char challenge[96];

	if (!identify_project(req, &req->client, ctx))
		return false;
	if (scope == SCOPE_ANY || (req->client.scopes & SCOPE_BIT(scope)))
		return true;
	if (scope != SCOPE_HOST)
		problem_set(&problem, PROBLEM_FORBIDDEN, NULL, "the token has not the scope %s", name);
	else
		problem_set(&problem, PROBLEM_FORBIDDEN, NULL, "only the host's administrator may do this");
	request_refuse(req, &problem);
	snprintf(challenge, sizeof(challenge), CHALLENGE ", error=\"insufficient_scope\", scope=\"%s\"", name);
	MHD_add_response_header(req->response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, challenge);
	return false;
}

const struct http_guard access_guard = {.identify = identify, .permit = permit};

/* When tokens expire. */

struct look {
	int64_t now, next;
};

static bool has_expired(const struct client *client, void *ctx)
{
	struct look *look = ctx;

	if (!client->expires_at)
		return false;
	if (client->expires_at <= look->now)
		return true;
	if (client->expires_at < look->next)
		look->next = client->expires_at;
	return false;
}

static void on_expiry(void *ctx)
{
	struct hulld *hulld = ctx;
	struct look look = {now_ms(), INT64_MAX};

	hulld->expiry_at = 0;
	http_end_requests(hulld->http, has_expired, &look);
	if (look.next != INT64_MAX)
		look_at(hulld, look.next);
}

int access_start(struct hulld *hulld, struct error *err)
{
	hulld->expiry = loop_add_timer(hulld->loop, on_expiry, hulld);
	return hulld->expiry ? 0 : error_set_errno(err, errno, "cannot make a timer");
}
