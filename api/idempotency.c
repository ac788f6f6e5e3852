#include "api/idempotency.h"

#include "common/log.h"

#include <errno.h>
#include <string.h>

#define HEADER	    IDEMPOTENCY_HEADER
#define NS_PER_HOUR 3600000000000ull
#define KEPT_MS	    (24 * 3600 * 1000ll)
#define KEPT_MAX    10000 /* of a project; up to TRIM_EVERY more until they are looked at */
#define TRIM_EVERY  1000
#define BODY_MAX    65536 /* bytes: more is a program's output, whose size a guest chooses */

static bool is_key(const char *key)
{
	size_t len = strspn(key, "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~");

	return len > 0 && len <= REQUEST_KEY_MAX && !key[len];
}

/* The newest stay: who repeats a request does so soon. */
static void trim(struct hulld *hulld)
{
	struct error err;

	if (store_requests_trim(hulld->store, KEPT_MAX, &err) < 0)
		log_error_object(&err, "too many answers are kept");
}

/* False, having replied. */
static bool begin_first(struct request *req, const char *key, const char *digest, struct hulld *hulld)
{
	int64_t now = now_ms();
	struct error err;

	/* The hour that old answers are looked at can be long. */
	if (++hulld->n_begun % TRIM_EVERY == 0)
		trim(hulld);
	if (store_request_begin(hulld->store, request_project(req), key, digest, now, &err) < 0) {
		request_refuse_error(req, &err);
		return false;
	}
	request_set_begun(req, now, false);
	return true;
}

static void refuse_busy(struct request *req)
{
	struct problem problem;

	problem_set(&problem, PROBLEM_REQUEST_IN_PROGRESS, HEADER, "the request with this key has not been answered yet");
	problem_set_hint(&problem, "ask again in a moment");
	request_refuse(req, &problem);
}

/* One that was begun before, and has no answer. False, having replied. */
static bool begin_again(struct request *req, const struct kept_request *kept)
{
	struct problem problem;

	if (request_is_once(req)) {
		problem_set(&problem, PROBLEM_OUTCOME_UNKNOWN, HEADER, "the answer to the request with this key was not kept, and it is not done again");
		problem_set_hint(&problem, "find out how far it came; another key does it anew");
		request_refuse(req, &problem);
		return false;
	}
	request_set_begun(req, kept->begun_at, true);
	return true;
}

static bool begin(struct request *req, const char *key, void *ctx)
{
	char digest[REQUEST_DIGEST_BYTES];
	struct kept_request kept = {0};
	struct hulld *hulld = ctx;
	struct error err;
	bool handled = false;
	int r;

	if (!is_key(key) || request_wants_upgrade(req)) {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, HEADER,
			is_key(key) ? "a connection that is upgraded has no answer to be kept"
				    : "must be 1 to %d visible characters of ASCII",
			REQUEST_KEY_MAX);
		return false;
	}
	request_digest(req, digest);
	r = store_request_get(hulld->store, request_project(req), key, &kept, &err);
	if (r == -ENOENT && !request_key_is_busy(req, key)) /* one that is served may be older than what is kept */
		return begin_first(req, key, digest, hulld);
	if (r == -ENOENT)
		refuse_busy(req);
	else if (r < 0)
		request_refuse_error(req, &err);
	else if (strcmp(kept.digest, digest) != 0)
		request_refuse_with(req, PROBLEM_KEY_REUSED, HEADER, "this key came with another request before");
	else if (kept.status)
		request_replay(req, kept.status, kept.type, kept.body);
	else if (request_key_is_busy(req, key))
		refuse_busy(req);
	else
		handled = begin_again(req, &kept);
	kept_request_done(&kept);
	return handled;
}

/* What nobody is to find in the database stays without an answer, and so is not done again. What is to be tried again does, too, as
 * does what is too long for one. What would then not be done again, though it may be tried, was refused before it was done; as what is
 * true for a moment was. Both are forgotten, so that the next try is a first one. */
static void answer(const struct request *req, int status, const char *type, const char *text, enum http_fate fate, void *ctx)
{
	const char *key = request_key(req);
	struct hulld *hulld = ctx;
	struct error err;
	int r = 0;

	if (request_is_confidential(req))
		r = status < 400 ? 0 : store_request_forget(hulld->store, request_project(req), key, &err);
	else if (fate == HTTP_MOMENTARY || (fate == HTTP_UNDECIDED && request_is_once(req)))
		r = store_request_forget(hulld->store, request_project(req), key, &err);
	else if (fate == HTTP_ANSWER && text && strlen(text) > BODY_MAX)
		log_info("an answer of %zu bytes is not kept", strlen(text));
	else if (fate == HTTP_ANSWER)
		r = store_request_answer(hulld->store, request_project(req), key, status, type ? type : "", text ? text : "", &err);
	if (r < 0)
		log_error_object(&err, "an answer is not kept");
}

const struct http_keeper idempotency_keeper = {.begin = begin, .answer = answer};

static void prune(struct hulld *hulld)
{
	struct error err;

	if (store_requests_prune(hulld->store, now_ms() - KEPT_MS, &err) < 0)
		log_error_object(&err, "old answers are kept");
	trim(hulld);
	loop_timer_arm(hulld->prune, NS_PER_HOUR);
}

static void on_prune(void *ctx)
{
	prune(ctx);
}

int idempotency_start(struct hulld *hulld, struct error *err)
{
	hulld->prune = loop_add_timer(hulld->loop, on_prune, hulld);
	if (!hulld->prune)
		return error_set_errno(err, errno, "cannot make a timer");
	prune(hulld);
	return 0;
}
