#include "api/idempotency.h"

#include "api/random.h"
#include "api/secrets.h"
#include "common/cleanup.h"
#include "common/hex.h"
#include "common/log.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#define HEADER	    IDEMPOTENCY_HEADER
#define KEPT_MS	    (24 * 3600 * 1000ll)
#define KEPT_MAX    10000 /* of a project; a few more until they are looked at, */
#define TRIM_EVERY  16	  /* about once in so many */
#define FORGET_MAX  32	  /* at a time: SQLite overwrites each of their pages, and others wait */
#define BODY_MAX    65536 /* bytes: more is a program's output, whose size a guest chooses */
#define HIDDEN_BYTES (1 + 2 * SHA256_DIGEST_SIZE + 1)
#define BOUND_BYTES  (HIDDEN_BYTES + REQUEST_DIGEST_BYTES)

static bool is_key(const char *key)
{
	size_t len = strspn(key, "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~");

	return len > 0 && len <= REQUEST_KEY_MAX && !key[len];
}

/* By what a request is kept whose answer is sealed for who has its key. It begins with a space, as no key does. */
static void hide(const char *project, const char *key, char ret[HIDDEN_BYTES])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx hash;

	sha256_init(&hash);
	sha256_update(&hash, strlen(project) + 1, (const uint8_t *)project);
	sha256_update(&hash, strlen(key), (const uint8_t *)key);
	sha256_digest(&hash, sizeof(digest), digest);
	ret[0] = ' ';
	hex_encode(digest, sizeof(digest), ret + 1);
}

/* By what this one is: the key, or `hidden`. */
static const char *kept_by(const struct request *req, const char *key, char hidden[HIDDEN_BYTES])
{
	hide(request_project(req), key, hidden);
	return request_is_shown_once(req) ? hidden : key;
}

/* What a sealed answer is bound to: that request, in that project. */
static void bind_to(const char *project, const char *key, const char *digest, char ret[BOUND_BYTES])
{
	char hidden[HIDDEN_BYTES];

	hide(project, key, hidden);
	snprintf(ret, BOUND_BYTES, "%s%s", hidden, digest);
}

/* The newest stay: who repeats a request does so soon. */
static void trim(struct hulld *hulld, const char *project)
{
	struct error err;

	if (store_requests_trim(hulld->store, project, KEPT_MAX, FORGET_MAX, &err) < 0)
		log_error_object(&err, "too many answers are kept");
}

/* False, having replied. */
static bool begin_first(struct request *req, const char *key, const char *digest, struct hulld *hulld)
{
	char hidden[HIDDEN_BYTES];
	int64_t number = random_number();
	struct error err;

	/* A day can be long. By chance: no client knows when, and so none keeps more. */
	if (number % TRIM_EVERY == 0)
		trim(hulld, request_project(req));
	if (store_request_begin(hulld->store, request_project(req), kept_by(req, key, hidden), digest, number, now_ms(), &err) < 0) {
		request_refuse_error(req, &err);
		return false;
	}
	request_set_begun(req, number, false);
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
	request_set_begun(req, kept->number, true);
	return true;
}

static void replay_sealed(struct request *req, const char *key, const struct kept_request *kept, const struct hulld *hulld)
{
	char bound[BOUND_BYTES], *text;
	struct problem problem;
	struct error err;

	bind_to(request_project(req), key, kept->digest, bound);
	text = secrets_unseal_for(hulld->secrets, key, bound, kept->body, &err);
	if (text) {
		request_replay(req, kept->status, kept->type, text);
		explicit_bzero(text, strlen(text));
		free(text);
		return;
	}
	log_error_object(&err, "an answer that was kept");
	problem_set(&problem, PROBLEM_OUTCOME_UNKNOWN, HEADER, "the answer to the request with this key was sealed by another key of the host's");
	problem_set_hint(&problem, "find what it made, and take it away; another key does it anew");
	request_refuse(req, &problem);
}

/* The field that the first answer had: of the operation that it began, or of that which it said was under way. */
static void name_operation(struct request *req, const struct kept_request *kept, const struct hulld *hulld)
{
	json_t *body = json_loads(kept->body, 0, NULL);
	const char *under_way = json_string_value(json_object_get(body, "operation"));
	char begun[OPERATION_ID_BYTES + 1];
	struct error err;
	int r = store_operation_of_request(hulld->store, kept->number, begun, &err);

	if (r < 0)
		log_error_object(&err, "the operation of an answer that was kept");
	if (r > 0 || under_way)
		request_add_header(req, HTTP_OPERATION, r > 0 ? begun : under_way);
	json_decref(body);
}

static void replay(struct request *req, const char *key, const struct kept_request *kept, const struct hulld *hulld)
{
	if (request_is_shown_once(req)) {
		replay_sealed(req, key, kept, hulld);
		return;
	}
	request_replay(req, kept->status, kept->type, kept->body);
	if (request_begins_operation(req))
		name_operation(req, kept, hulld);
}

/* 0, -ENOENT, or another -errno with `err` set. One that is a day old is none, also before it is pruned. */
static int find(struct request *req, const char *key, struct hulld *hulld, struct kept_request *ret, struct error *err)
{
	char hidden[HIDDEN_BYTES];
	int r;

	hide(request_project(req), key, hidden);
	r = store_request_get(hulld->store, request_project(req), key, hidden, ret, err);
	if (r < 0 || ret->begun_at >= now_ms() - KEPT_MS)
		return r;
	kept_request_done(ret);
	r = store_request_forget(hulld->store, request_project(req), key, hidden, err);
	return r < 0 ? r : -ENOENT;
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
	r = find(req, key, hulld, &kept, &err);
	if (r == -ENOENT && !request_key_is_busy(req, key)) /* one that is served may be older than what is kept */
		return begin_first(req, key, digest, hulld);
	if (r == -ENOENT)
		refuse_busy(req);
	else if (r < 0)
		request_refuse_error(req, &err);
	else if (strcmp(kept.digest, digest) != 0)
		request_refuse_with(req, PROBLEM_KEY_REUSED, HEADER, "this key came with another request before");
	else if (kept.status)
		replay(req, key, &kept, hulld);
	else if (request_key_is_busy(req, key))
		refuse_busy(req);
	else
		handled = begin_again(req, &kept);
	kept_request_done(&kept);
	return handled;
}

static int keep(const struct request *req, int status, const char *type, const char *text, void *ctx, struct error *err)
{
	char hidden[HIDDEN_BYTES], digest[REQUEST_DIGEST_BYTES], bound[BOUND_BYTES];
	const char *key = request_key(req), *name = kept_by(req, key, hidden);
	struct hulld *hulld = ctx;
	cleanup_free char *sealed = NULL;

	if (strlen(text) > BODY_MAX)
		return error_set_field(err, EINVAL, HEADER, "is not for what has an answer of more than %d bytes", BODY_MAX);
	if (request_is_shown_once(req)) {
		request_digest(req, digest);
		bind_to(request_project(req), key, digest, bound);
		sealed = secrets_seal_for(hulld->secrets, key, bound, text);
	}
	return store_request_answer(hulld->store, request_project(req), name, status, type, sealed ? sealed : text, err);
}

/* What is to be tried again stays without an answer, and so does what is too long for one: then it is not done again, if that might do it
 * twice. What would not be done again, though it may be tried, was refused before it was done; as what is true for a moment was. Both are
 * forgotten, so that the next try is a first one. */
static void answer(const struct request *req, int status, const char *type, const char *text, enum http_fate fate, void *ctx)
{
	char hidden[HIDDEN_BYTES];
	struct hulld *hulld = ctx;
	struct error err;
	int r = 0;

	hide(request_project(req), request_key(req), hidden);
	if (fate == HTTP_MOMENTARY || (fate == HTTP_UNDECIDED && request_is_once(req)))
		r = store_request_forget(hulld->store, request_project(req), request_key(req), hidden, &err);
	else if (fate == HTTP_ANSWER && text && strlen(text) > BODY_MAX)
		log_info("an answer of %zu bytes is not kept", strlen(text));
	else if (fate == HTTP_ANSWER)
		r = keep(req, status, type ? type : "", text ? text : "", hulld, &err);
	if (r < 0)
		log_error_object(&err, "an answer is not kept");
}

const struct http_keeper idempotency_keeper = {.begin = begin, .answer = answer, .keep = keep};

int idempotency_forget(struct hulld *hulld, int64_t now, struct error *err)
{
	return now ? store_requests_prune(hulld->store, now - KEPT_MS, now, FORGET_MAX, err) : 0;
}
