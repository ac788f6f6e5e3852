/* Finding the route, asking it, writing the answer. Messages that a client may match on are Firecracker's. */
#include "vmm/api.h"

#include "common/checked.h"
#include "vmm/api_metrics.h"
#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ID_MAX	      64
#define SERVER_FIELD  "Server: Firecracker API\r\n"
#define NOT_YET	      "The requested operation is not supported before starting the microVM."
#define NOT_ANY_MORE  "The requested operation is not supported after starting the microVM."

enum match { MATCH_NONE, MATCH_NO_ID, MATCH_BAD_ID, MATCH_WHOLE };

/* The path's next segment, without its slash. False at the end. */
static bool next_segment(struct http_text *path, struct http_text *ret)
{
	const char *slash;

	if (!path->len)
		return false;
	path->data++;
	path->len--;
	slash = memchr(path->data, '/', path->len);
	*ret = (struct http_text){path->data, slash ? (size_t)(slash - path->data) : path->len};
	path->data += ret->len;
	path->len -= ret->len;
	return true;
}

static bool is_id(struct http_text text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!isalnum((unsigned char)text.data[i]) && text.data[i] != '_')
			return false;
	return text.len > 0 && text.len <= ID_MAX;
}

/* Segment by segment; a slash at the end makes no difference. */
static enum match match_path(const struct api_route *route, struct http_text path, char ret_id[ID_MAX + 1])
{
	struct http_text pattern = {route->path, strlen(route->path)}, want, got;
	enum match match = MATCH_WHOLE;

	if (path.len > 1 && path.data[path.len - 1] == '/')
		path.len--;
	*ret_id = '\0';
	while (next_segment(&pattern, &want)) {
		bool is_parameter = want.len && *want.data == '{';

		if (!next_segment(&path, &got))
			return is_parameter ? MATCH_NO_ID : MATCH_NONE;
		if (!is_parameter) {
			if (want.len != got.len || memcmp(want.data, got.data, want.len) != 0)
				return MATCH_NONE;
		} else if (!is_id(got)) {
			match = got.len ? MATCH_BAD_ID : MATCH_NO_ID;
		} else {
			memcpy(ret_id, got.data, got.len);
			ret_id[got.len] = '\0';
		}
	}
	return path.len ? MATCH_NONE : match;
}

/* A refusal that is worth a line of its own: `err` is set. */
static int no_route(const struct http_head *head, struct error *err)
{
	if (head->method == HTTP_GET && head->body_bytes)
		return error_set(err, EINVAL, "GET request cannot have a body.");
	return error_set(err, EINVAL, "Invalid request method and/or path: %.*s %.*s.", (int)head->method_name.len,
		head->method_name.data, (int)(head->target.len < 128 ? head->target.len : 128), head->target.data);
}

static const struct api_route *find_route(
	const struct api *api, const struct http_head *head, char ret_id[ID_MAX + 1], struct error *err)
{
	for (const struct api_route *route = api->routes; route->path; route++) {
		if (route->method != head->method)
			continue;
		switch (match_path(route, head->target, ret_id)) {
		case MATCH_WHOLE:
			return route;
		case MATCH_NO_ID:
			error_set(err, EINVAL, "The ID cannot be empty.");
			return NULL;
		case MATCH_BAD_ID:
			error_set(err, EINVAL,
				"API Resource IDs can only contain alphanumeric characters and underscores, %d at most.",
				ID_MAX);
			return NULL;
		case MATCH_NONE:
			break;
		}
	}
	no_route(head, err);
	return NULL;
}

/* The body as JSON: 0 with NULL when there is none and none is wanted. */
static int read_body(const struct api_route *route, const struct http_head *head, const char *body, json_t **ret,
	struct error *err)
{
	*ret = NULL;
	if (!head->body_bytes) {
		if (route->body != API_BODY_JSON)
			return 0;
		return error_set(err, EINVAL, "Empty %.*s request.", (int)head->method_name.len, head->method_name.data);
	}
	if (route->body == API_BODY_NONE)
		return error_set(err, EINVAL, "%.*s request cannot have a body.", (int)head->method_name.len,
			head->method_name.data);
	*ret = json_parse(body, head->body_bytes, err);
	return *ret ? 0 : -EINVAL;
}

int api_check_state(unsigned served_in, enum api_state state, struct error *err)
{
	if (served_in & state)
		return 0;
	return error_set(err, EINVAL, state == API_NOT_STARTED ? NOT_YET : NOT_ANY_MORE);
}

int api_refuse(int status, bool keep_alive, const struct error *err, struct buf *out)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];
	cleanup(json_decrefp) json_t *fault = json_object();
	cleanup_free char *text = NULL;

	json_object_set_new(fault, "fault_message", json_lossy_string(error_line(err, line, sizeof(line))));
	text = json_dumps(fault, JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	return http_put_answer(out, status, keep_alive, SERVER_FIELD, "application/json", text, strlen(text));
}

static int put_answer(const struct api_call *call, bool keep_alive, struct buf *out)
{
	cleanup_free char *text = NULL;

	if (!call->answer)
		return http_put_answer(out, 204, keep_alive, SERVER_FIELD, NULL, NULL, 0);
	text = json_dumps(call->answer, JSON_COMPACT | JSON_ENCODE_ANY);
	if (!text)
		return -ENOMEM;
	return http_put_answer(out, 200, keep_alive, SERVER_FIELD, "application/json", text, strlen(text));
}

/* Bodies are left out of the log: they may hold what is nobody's business. */
static void log_call(const struct http_head *head, int status, const struct error *err)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];

	log_at(err->errnum ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "API: %.*s %.*s: %d%s%s", (int)head->method_name.len,
		head->method_name.data, (int)(head->target.len < 128 ? head->target.len : 128), head->target.data, status,
		err->errnum ? ": " : "", err->errnum ? error_line(err, line, sizeof(line)) : "");
}

int api_serve(const struct api *api, const struct http_head *head, const char *body, struct buf *out)
{
	cleanup(json_decrefp) json_t *json = NULL;
	char id[ID_MAX + 1];
	struct error err = {0};
	struct api_call call = {.id = id, .refusal = 400};
	const struct api_route *route = find_route(api, head, id, &err);
	int r = route ? read_body(route, head, body, &json, &err) : -EINVAL;

	call.body = json;
	if (r == 0)
		r = api_check_state(route->states, api->state(api->ctx), &err);
	if (r == 0)
		r = route->handle(api->ctx, &call, &err);
	if (route)
		api_metrics_count(api->metrics, route, r < 0);
	if (r < 0) {
		log_call(head, call.refusal, &err);
		r = api_refuse(call.refusal, head->keep_alive, &err, out);
	} else {
		log_call(head, call.answer ? 200 : 204, &err);
		r = put_answer(&call, head->keep_alive, out);
	}
	json_decref(call.answer);
	return r;
}
