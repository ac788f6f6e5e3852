/* The table of problem codes, and problems as JSON. */
#include "api/problem.h"

#include "common/checked.h"
#include "common/json.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int status;
	const char *title;
	bool retryable; /* the same request may succeed later without a change by the client */
} codes[] = {
	[PROBLEM_INVALID_JSON] = {"invalid_json", 400, "Bad Request", false},
	[PROBLEM_INVALID_FIELD] = {"invalid_field", 400, "Bad Request", false},
	[PROBLEM_UNKNOWN_FIELD] = {"unknown_field", 400, "Bad Request", false},
	[PROBLEM_MISSING_FIELD] = {"missing_field", 400, "Bad Request", false},
	[PROBLEM_PAYLOAD_TOO_LARGE] = {"payload_too_large", 413, "Content Too Large", false},
	[PROBLEM_UNAUTHORIZED] = {"unauthorized", 401, "Unauthorized", false},
	[PROBLEM_FORBIDDEN] = {"forbidden", 403, "Forbidden", false},
	[PROBLEM_NOT_FOUND] = {"not_found", 404, "Not Found", false},
	[PROBLEM_METHOD_NOT_ALLOWED] = {"method_not_allowed", 405, "Method Not Allowed", false},
	[PROBLEM_NAME_TAKEN] = {"name_taken", 409, "Conflict", false},
	[PROBLEM_PORT_TAKEN] = {"port_taken", 409, "Conflict", false},
	[PROBLEM_IMAGE_IN_USE] = {"image_in_use", 409, "Conflict", false},
	[PROBLEM_PROJECT_IN_USE] = {"project_in_use", 409, "Conflict", false},
	[PROBLEM_MACHINE_IN_USE] = {"machine_in_use", 409, "Conflict", false},
	[PROBLEM_VOLUME_IN_USE] = {"volume_in_use", 409, "Conflict", false},
	[PROBLEM_NETWORK_IN_USE] = {"network_in_use", 409, "Conflict", false},
	[PROBLEM_QUOTA_EXCEEDED] = {"quota_exceeded", 409, "Conflict", false},
	[PROBLEM_DIGEST_MISMATCH] = {"digest_mismatch", 422, "Unprocessable Content", false},
	[PROBLEM_PRECONDITION_FAILED] = {"precondition_failed", 412, "Precondition Failed", false},
	[PROBLEM_WRONG_STATE] = {"wrong_state", 409, "Conflict", false},
	[PROBLEM_MACHINE_FAILED] = {"machine_failed", 409, "Conflict", false},
	[PROBLEM_UNSUPPORTED] = {"unsupported", 409, "Conflict", false},
	[PROBLEM_HOST_DRAINING] = {"host_draining", 409, "Conflict", true},
	[PROBLEM_INSUFFICIENT_MEMORY] = {"insufficient_memory", 409, "Conflict", true},
	[PROBLEM_BUSY] = {"busy", 503, "Service Unavailable", true},
	[PROBLEM_REQUEST_IN_PROGRESS] = {"request_in_progress", 409, "Conflict", true},
	[PROBLEM_OUTCOME_UNKNOWN] = {"outcome_unknown", 409, "Conflict", false},
	[PROBLEM_KEY_REUSED] = {"idempotency_key_reused", 422, "Unprocessable Content", false},
	[PROBLEM_TIMEOUT] = {"timeout", 408, "Request Timeout", true},
	[PROBLEM_CURSOR_EXPIRED] = {"cursor_expired", 410, "Gone", false},
	[PROBLEM_UNSUPPORTED_MEDIA_TYPE] = {"unsupported_media_type", 415, "Unsupported Media Type", false},
	[PROBLEM_INSUFFICIENT_STORAGE] = {"insufficient_storage", 507, "Insufficient Storage", true},
	[PROBLEM_INTERNAL] = {"internal", 500, "Internal Server Error", true},
};
static_assert(ARRAY_SIZE(codes) == PROBLEM_N_CODES, "every code has its row");

int problem_set(struct problem *ret, enum problem_code code, const char *field, const char *fmt, ...)
{
	char detail[ERROR_MESSAGE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	ret->code = code;
	ret->hint[0] = '\0';
	error_set_field(&ret->error, ECANCELED, field ? field : "", "%s", detail);
	return -ECANCELED;
}

int problem_set_hint(struct problem *ret, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(ret->hint, sizeof(ret->hint), fmt, args);
	va_end(args);
	return -ECANCELED;
}

/* "unknown field; did you mean …?": what follows the semicolon is the hint. */
static void split_hint(struct problem *problem)
{
	char *hint = strstr(problem->error.message, "; ");

	if (!hint)
		return;
	snprintf(problem->hint, sizeof(problem->hint), "%s", hint + 2);
	*hint = '\0';
}

int problem_from_error(struct problem *ret, const struct error *err)
{
	*ret = (struct problem){.error = *err};
	switch (err->errnum) {
	case ENOKEY:
		ret->code = PROBLEM_UNKNOWN_FIELD;
		split_hint(ret);
		break;
	case ENODATA:
		ret->code = PROBLEM_MISSING_FIELD;
		break;
	case EINVAL:
		ret->code = PROBLEM_INVALID_FIELD;
		break;
	case ENOSPC:
	case EDQUOT:
		ret->code = PROBLEM_INSUFFICIENT_STORAGE;
		break;
	default:
		ret->code = PROBLEM_INTERNAL;
		break;
	}
	return -ECANCELED;
}

bool problem_is_momentary(enum problem_code code)
{
	return code == PROBLEM_PRECONDITION_FAILED || code == PROBLEM_WRONG_STATE || code == PROBLEM_VOLUME_IN_USE ||
	       code == PROBLEM_HOST_DRAINING || code == PROBLEM_INSUFFICIENT_MEMORY || code == PROBLEM_BUSY;
}

bool problem_is_retryable(enum problem_code code)
{
	return codes[code].retryable;
}

int problem_status(enum problem_code code)
{
	return codes[code].status;
}

const char *problem_name(enum problem_code code)
{
	return codes[code].name;
}

json_t *problem_dump(const struct problem *problem)
{
	json_t *dumped = json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title", codes[problem->code].title,
		"status", codes[problem->code].status, "code", codes[problem->code].name);

	if (problem->error.field[0])
		json_object_set_new(dumped, "field", json_lossy_string(problem->error.field));
	json_object_set_new(dumped, "detail", json_lossy_string(problem->error.message));
	if (problem->hint[0])
		json_object_set_new(dumped, "hint", json_lossy_string(problem->hint));
	json_object_set_new(dumped, "retryable", json_boolean(codes[problem->code].retryable));
	return dumped;
}

json_t *problem_schema(void)
{
	json_t *names = json_array();

	for (size_t i = 0; i < PROBLEM_N_CODES; i++)
		json_array_append_new(names, json_string(codes[i].name));
	return json_pack("{s:s, s:{s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s, s:o}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}},"
			 " s:[s, s, s, s, s, s]}",
		"type", "object", "properties", "type", "type", "string", "title", "type", "string", "status", "type",
		"integer", "code", "type", "string", "enum", names, "field", "type", "string", "detail", "type", "string",
		"hint", "type", "string", "retryable", "type", "boolean", "required", "type", "title", "status", "code",
		"detail", "retryable");
}
