/* What a handler asks of a request, and of its head and body. See http.h. */
#include "api/http_request.h"

#include "common/hex.h"

#include <errno.h>
#include <microhttpd.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

const struct client *request_client(const struct request *req)
{
	return &req->client;
}

const char *request_project(const struct request *req)
{
	return req->client.project;
}

const char *request_param(const struct request *req)
{
	return req->param;
}

const char *request_query(const struct request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_GET_ARGUMENT_KIND, name);
}

struct each_value {
	const char *name;
	void (*fn)(void *ctx, const char *value);
	void *ctx;
};

static enum MHD_Result look_at_argument(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value)
{
	const struct each_value *each = ctx;

	(void)kind;
	if (strcmp(name, each->name) == 0)
		each->fn(each->ctx, value ? value : "");
	return MHD_YES;
}

void request_query_each(const struct request *req, const char *name, void (*fn)(void *ctx, const char *value), void *ctx)
{
	struct each_value each = {name, fn, ctx};

	MHD_get_connection_values(req->connection, MHD_GET_ARGUMENT_KIND, look_at_argument, &each);
}

int64_t request_query_int(const struct request *req, const char *name, int64_t def)
{
	const char *text = request_query(req, name);

	return text ? strtoll(text, NULL, 10) : def; /* http_query.c has refused what is none of its numbers */
}

const char *request_header(const struct request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

bool request_wants_upgrade(const struct request *req)
{
	const char *connection = request_header(req, MHD_HTTP_HEADER_CONNECTION);
	const char *protocol = request_header(req, MHD_HTTP_HEADER_UPGRADE);

	return req->route->upgrade && connection && strcasestr(connection, "upgrade") && protocol &&
	       strcasecmp(protocol, req->route->upgrade) == 0;
}

static enum MHD_Result digest_argument(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct sha256_ctx *hash = ctx;

	(void)kind;
	sha256_update(hash, strlen(name) + 1, (const uint8_t *)name);
	if (value)
		sha256_update(hash, strlen(value) + 1, (const uint8_t *)value);
	return MHD_YES;
}

void request_digest(const struct request *req, char ret[65])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx hash;

	sha256_init(&hash);
	digest_argument(&hash, 0, req->route->method, req->url);
	MHD_get_connection_values(req->connection, MHD_GET_ARGUMENT_KIND, digest_argument, &hash);
	digest_argument(&hash, 0, "", NULL); /* the end of the arguments: no name is empty */
	if (req->route->shown_once)
		digest_argument(&hash, 0, req->client.token, NULL);
	sha256_update(&hash, req->body.len, (const uint8_t *)req->body.data);
	sha256_digest(&hash, sizeof(digest), digest);
	hex_encode(digest, sizeof(digest), ret);
}

bool request_is_once(const struct request *req)
{
	return req->route->once;
}

bool request_is_shown_once(const struct request *req)
{
	return req->route->shown_once;
}

bool request_begins_operation(const struct request *req)
{
	return req->route->begins_operation;
}

bool request_key_is_busy(const struct request *req, const char *key)
{
	for (const struct request *other = req->http->requests; other; other = other->next)
		if (other->key && !other->client_gone && !other->status && strcmp(other->key, key) == 0 &&
			strcmp(other->client.project, req->client.project) == 0)
			return true;
	return false;
}

const char *request_key(const struct request *req)
{
	return req->key ? req->key : "";
}

int64_t request_number(const struct request *req)
{
	return req->number;
}

bool request_repeats(const struct request *req)
{
	return req->repeats;
}

void request_set_begun(struct request *req, int64_t number, bool repeats)
{
	req->number = number;
	req->repeats = repeats;
}

int64_t request_content_length(const struct request *req)
{
	const char *text = request_header(req, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text ? strtoll(text, NULL, 10) : -1; /* libmicrohttpd has refused what is no number */
}

json_t *request_read_json(struct request *req)
{
	bool absent = req->body.len == 0 && req->route->body == HTTP_BODY_JSON_OPTIONAL;
	struct error err;
	json_t *value = absent ? json_object() : json_parse(req->body.data ? req->body.data : "", req->body.len, &err);

	if (!value)
		request_refuse_with(req, PROBLEM_INVALID_JSON, NULL, "%s", err.message);
	return value;
}

int request_read(struct request *req, const struct json_table *table, void *ret)
{
	json_t *value = request_read_json(req);
	struct error err;
	int r;

	if (!value)
		return -ECANCELED;
	r = json_read(table, value, ret, &err);
	json_decref(value);
	if (r < 0) {
		request_refuse_error(req, &err);
		return -ECANCELED;
	}
	return 0;
}

void request_on_gone(struct request *req, void (*gone)(void *ctx), void *ctx)
{
	req->gone = gone;
	req->gone_ctx = ctx;
}
