/* Refusals as clients see them: RFC 9457 problems with a closed set of codes. */
#ifndef HULL_API_PROBLEM_H
#define HULL_API_PROBLEM_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

enum problem_code {
	PROBLEM_INVALID_JSON,
	PROBLEM_INVALID_FIELD,
	PROBLEM_UNKNOWN_FIELD,
	PROBLEM_MISSING_FIELD,
	PROBLEM_PAYLOAD_TOO_LARGE,
	PROBLEM_UNAUTHORIZED,
	PROBLEM_FORBIDDEN,
	PROBLEM_NOT_FOUND,
	PROBLEM_METHOD_NOT_ALLOWED,
	PROBLEM_NAME_TAKEN,
	PROBLEM_PORT_TAKEN,
	PROBLEM_IMAGE_IN_USE,
	PROBLEM_PROJECT_IN_USE,
	PROBLEM_MACHINE_IN_USE,
	PROBLEM_VOLUME_IN_USE,
	PROBLEM_NETWORK_IN_USE,
	PROBLEM_QUOTA_EXCEEDED,
	PROBLEM_DIGEST_MISMATCH,
	PROBLEM_PRECONDITION_FAILED,
	PROBLEM_WRONG_STATE,
	PROBLEM_MACHINE_FAILED,
	PROBLEM_UNSUPPORTED,
	PROBLEM_HOST_DRAINING,
	PROBLEM_INSUFFICIENT_MEMORY,
	PROBLEM_BUSY,
	PROBLEM_REQUEST_IN_PROGRESS,
	PROBLEM_OUTCOME_UNKNOWN,
	PROBLEM_KEY_REUSED,
	PROBLEM_TIMEOUT,
	PROBLEM_CURSOR_EXPIRED,
	PROBLEM_UNSUPPORTED_MEDIA_TYPE,
	PROBLEM_INSUFFICIENT_STORAGE,
	PROBLEM_INTERNAL,
	PROBLEM_N_CODES,
};

#define PROBLEM_HINT_MAX 160

/* As struct error: no memory of its own. */
struct problem {
	enum problem_code code;
	struct error error; /* field and detail */
	char hint[PROBLEM_HINT_MAX];
};

/* Each fills `ret` and returns -ECANCELED ("this request is refused"), to be returned at once. */
int problem_set(struct problem *ret, enum problem_code code, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
int problem_set_hint(struct problem *ret, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From an error of a lower layer: ENOKEY, ENODATA and EINVAL are the client's (json_read), ENOSPC and EDQUOT the
 * disk's, the rest are internal. */
int problem_from_error(struct problem *ret, const struct error *err);

int problem_status(enum problem_code code); /* of HTTP */
/* May the same request succeed later, without a change by the client? */
bool problem_is_retryable(enum problem_code code);
/* Was it refused before anything was done, for what is so at this moment only? */
bool problem_is_momentary(enum problem_code code);
const char *problem_name(enum problem_code code);
/* A new object, as docs/interfaces.md shows it. */
json_t *problem_dump(const struct problem *problem);
/* The JSON Schema of that object. */
json_t *problem_schema(void);

#endif
