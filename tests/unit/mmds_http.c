/* The metadata document, the tokens, and what requests for both are answered. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "devices/mmds_http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define S	1000000000ull
#define LIMIT	1000
#define GET(p)	"GET " p " HTTP/1.1\r\n\r\n"
#define DOCUMENT                                                                                                     \
	"{\"name\":{\"second\":\"Doe\",\"first\":\"John\"},\"age\":43,\"share\":12.12,\"list\":[\"a\",{\"b\":\"c\"}]," \
	"\"empty\":{},\"none\":null,\"a/b\":{\"m~n\":\"odd\"},\"html\":\"<>\\n\\u00e9\",\"yes\":true}"

struct world {
	struct mmds *mmds;
	uint64_t now_ns;
	struct buf out;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	json_t *data = json_loads(DOCUMENT, 0, NULL);

	w->now_ns = 77 * S;
	w->mmds = mmds_new("vm-1", LIMIT, NULL);
	w->mmds->tokens.begun_ns = w->now_ns;
	buf_init(&w->out, 4096);
	assert_int_equal(mmds_store_put(&w->mmds->store, data, NULL), 0);
	json_decref(data);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	buf_done(&w->out);
	mmds_free(w->mmds);
	free(w);
	return 0;
}

/* ---- the document ---- */

static void check_json(const struct mmds_store *store, const char *want)
{
	json_t *got = mmds_store_get(store), *expected = json_loads(want, JSON_DECODE_ANY, NULL);

	assert_true(json_equal(got, expected));
	json_decref(got);
	json_decref(expected);
}

/* RFC 7396, appendix A. */
static void patches_merge(void **state)
{
	static const char *const cases[][3] = {
		{"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
		{"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
		{"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
		{"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
		{"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
		{"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
		{"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
		{"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
		{"[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"},
		{"{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]"},
		{"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
		{"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
		{"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
	};
	struct mmds_store store;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *data = json_loads(cases[i][0], 0, NULL), *patch = json_loads(cases[i][1], 0, NULL);

		mmds_store_init(&store, LIMIT);
		assert_int_equal(mmds_store_patch(&store, patch, NULL), -ENOENT);
		check_json(&store, "{}");
		assert_int_equal(mmds_store_put(&store, data, NULL), 0);
		assert_int_equal(mmds_store_patch(&store, patch, NULL), 0);
		check_json(&store, cases[i][2]);
		json_decref(data);
		json_decref(patch);
		mmds_store_done(&store);
	}
}

static void the_store_has_a_limit(void **state)
{
	json_t *fits, *over, *patch = json_loads("{\"b\":1}", 0, NULL);
	struct mmds_store store;
	struct error err = {0};
	char text[64];

	(void)state;
	memset(text, 'x', sizeof(text));
	fits = json_pack("{s:s#}", "a", text, 32 - 8); /* {"a":"…"} */
	over = json_pack("{s:s#}", "a", text, 32 - 7);
	mmds_store_init(&store, 32);
	assert_int_equal(mmds_store_put(&store, fits, NULL), 0);
	assert_int_equal(mmds_store_put(&store, over, &err), -EMSGSIZE);
	assert_non_null(strstr(err.message, "33 bytes; the data store holds 32"));
	assert_int_equal(mmds_store_patch(&store, patch, &err), -EMSGSIZE);
	assert_true(json_equal(store.data, fits));
	json_decref(fits);
	json_decref(over);
	json_decref(patch);
	mmds_store_done(&store);
}

/* ---- requests ---- */

/* The answer, as text. */
static const char *ask(struct world *w, const char *request)
{
	size_t used, len = strlen(request);
	char *exact = malloc(len);

	memcpy(exact, request, len);
	w->out.len = 0;
	assert_true(mmds_http_serve(w->mmds, exact, len, w->now_ns, &w->out, &used) != MMDS_INCOMPLETE);
	assert_int_equal(used, len);
	free(exact);
	return w->out.data;
}

static void check(struct world *w, const char *request, int status, const char *type, const char *body)
{
	const char *answer = ask(w, request);
	char want[64];

	snprintf(want, sizeof(want), "HTTP/1.1 %d ", status);
	if (strncmp(answer, want, strlen(want)) != 0)
		fail_msg("%s: %s", request, answer);
	snprintf(want, sizeof(want), "\r\nContent-Type: %s\r\n", type);
	if (*body && !strstr(answer, want))
		fail_msg("%s: %s", request, answer);
	snprintf(want, sizeof(want), "\r\nContent-Length: %zu\r\n", strlen(body));
	assert_non_null(strstr(answer, want));
	assert_string_equal(strstr(answer, "\r\n\r\n") + 4, body);
}

static void values_come_as_text(void **state)
{
	struct world *w = *state;

	check(w, GET("/"), 200, "text/plain", "a/b/\nage\nempty/\nhtml\nlist\nname/\nnone\nshare\nyes");
	check(w, GET("/name"), 200, "text/plain", "first\nsecond");
	check(w, GET("/name/"), 200, "text/plain", "first\nsecond");
	check(w, GET("///name////first//"), 200, "text/plain", "John");
	check(w, GET("/html"), 200, "text/plain", "<>\n\xc3\xa9");
	check(w, GET("/empty"), 200, "text/plain", "");
	check(w, GET("/list/0"), 200, "text/plain", "a");
	check(w, GET("/list/1/b"), 200, "text/plain", "c");
	check(w, GET("/a~1b/m~0n"), 200, "text/plain", "odd");
	check(w, "GET /name/first HTTP/1.1\r\nAccept: */*\r\n\r\n", 200, "text/plain", "John");
	check(w, "GET /name/first HTTP/1.1\r\nAccept: text/html, application/json\r\n\r\n", 200, "text/plain", "John");
	check(w, "GET http://169.254.169.254/name/first HTTP/1.1\r\n\r\n", 200, "text/plain", "John");
	for (const char *const *path = (const char *const[]){"age", "list", "none", "share", "yes", NULL}; *path; path++) {
		char request[64];

		snprintf(request, sizeof(request), "GET /%s HTTP/1.1\r\n\r\n", *path);
		check(w, request, 501, "text/plain", "Cannot retrieve value. The value has an unsupported type.");
	}
}

static void values_come_as_json(void **state)
{
#define JSON_GET(p) "GET " p " HTTP/1.1\r\nAccept: application/json\r\n\r\n"
	struct world *w = *state;

	check(w, JSON_GET("/name"), 200, "application/json", "{\"first\":\"John\",\"second\":\"Doe\"}");
	check(w, JSON_GET("/name/first"), 200, "application/json", "\"John\"");
	check(w, JSON_GET("/age"), 200, "application/json", "43");
	check(w, JSON_GET("/share"), 200, "application/json", "12.12");
	check(w, JSON_GET("/list"), 200, "application/json", "[\"a\",{\"b\":\"c\"}]");
	check(w, JSON_GET("/none"), 200, "application/json", "null");
	check(w, JSON_GET("/nothing"), 404, "text/plain", "Resource not found: /nothing.");
	/* As EC2's does, whatever is asked for. */
	w->mmds->imds_compat = true;
	check(w, JSON_GET("/name"), 200, "text/plain", "first\nsecond");
	check(w, JSON_GET("/age"), 501, "text/plain", "Cannot retrieve value. The value has an unsupported type.");
}

static void fractions_keep_all_their_digits(void **state)
{
	struct world *w = *state;
	json_t *data = json_pack("{s:f}", "f", 0.1 + 0.2);

	assert_int_equal(mmds_store_put(&w->mmds->store, data, NULL), 0);
	check(w, JSON_GET("/f"), 200, "application/json", "0.30000000000000004");
	json_decref(data);
}

static void what_is_not_there_is_not_found(void **state)
{
	static const char *const paths[] = {"/x", "/name/x", "/name/first/x", "/list/2", "/list/01", "/list/-1", "/list/x",
		"/list/99999999999999999999", "/name~2first", "/list/0x"};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		char request[64], body[64];

		snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n\r\n", paths[i]);
		snprintf(body, sizeof(body), "Resource not found: %s.", paths[i]);
		check(w, request, 404, "text/plain", body);
	}
	mmds_store_done(&w->mmds->store);
	check(w, GET("/"), 404, "text/plain", "Resource not found: /.");
}

static void other_requests_are_refused(void **state)
{
	static const char *const methods[] = {"POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "get"};
	struct world *w = *state;
	char request[64];

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		snprintf(request, sizeof(request), "%s /name HTTP/1.1\r\n\r\n", methods[i]);
		check(w, request, 405, "text/plain", "Not allowed HTTP method.");
		assert_non_null(strstr(w->out.data, "\r\nAllow: GET, PUT\r\n"));
	}
	check(w, "GET name HTTP/1.1\r\n\r\n", 400, "text/plain", "the request's target does not begin with '/'");
	assert_non_null(strstr(w->out.data, "\r\nConnection: close\r\n"));
	check(w, "GET / HTTP/2\r\n\r\n", 400, "text/plain", "the request's version is neither HTTP/1.1 nor HTTP/1.0");
	assert_non_null(strstr(ask(w, "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), " 501 "));
	assert_non_null(strstr(ask(w, "PUT / HTTP/1.1\r\nContent-Length: 1025\r\n\r\n"), " 413 "));
}

static void a_request_may_come_in_pieces(void **state)
{
	static const char text[] = "PUT /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /name/first HTTP/1.0\r\n\r\n";
	struct world *w = *state;
	size_t used = 0, first = strstr(text, "GET") - text;

	for (size_t i = 0; i < first; i++)
		assert_int_equal(mmds_http_serve(w->mmds, text, i, w->now_ns, &w->out, &used), MMDS_INCOMPLETE);
	assert_int_equal(mmds_http_serve(w->mmds, text, sizeof(text) - 1, w->now_ns, &w->out, &used), MMDS_ANSWERED);
	assert_int_equal(used, first);
	w->out.len = 0;
	assert_int_equal(mmds_http_serve(w->mmds, text + first, sizeof(text) - 1 - first, w->now_ns, &w->out, &used),
		MMDS_ANSWERED_LAST);
	assert_non_null(strstr(w->out.data, "John"));
}

static void an_answer_that_does_not_fit_is_unavailable(void **state)
{
	struct world *w = *state;
	size_t used;

	w->out.max = 100;
	assert_int_equal(mmds_http_serve(w->mmds, GET("/"), strlen(GET("/")), 0, &w->out, &used), MMDS_ANSWERED_LAST);
	assert_non_null(strstr(w->out.data, "HTTP/1.1 503 "));
	w->out.len = 0;
	w->out.max = 10;
	assert_int_equal(mmds_http_serve(w->mmds, GET("/"), strlen(GET("/")), 0, &w->out, &used), MMDS_ANSWERED_LAST);
	assert_int_equal(w->out.len, 0);
	assert_int_equal(w->mmds->metrics.tx_errors, 2);
}

/* ---- tokens ---- */

#define PUT_TOKEN "PUT /latest/api/token HTTP/1.1\r\n"

static void get_token(struct world *w, const char *ttl_s, char ret[MMDS_TOKEN_CHARS + 1])
{
	char request[128];
	const char *answer;

	snprintf(request, sizeof(request), PUT_TOKEN "X-metadata-token-ttl-seconds: %s\r\n\r\n", ttl_s);
	answer = ask(w, request);
	assert_non_null(strstr(answer, "HTTP/1.1 200 "));
	assert_non_null(strstr(answer, "\r\nContent-Type: text/plain\r\n"));
	snprintf(request, sizeof(request), "\r\nX-metadata-token-ttl-seconds: %s\r\n", ttl_s);
	assert_non_null(strstr(answer, request));
	answer = strstr(answer, "\r\n\r\n") + 4;
	assert_int_equal(strlen(answer), MMDS_TOKEN_CHARS);
	strcpy(ret, answer);
}

static void check_with(struct world *w, const char *field, const char *token, int status, const char *body)
{
	char request[256];

	snprintf(request, sizeof(request), "GET /name/first HTTP/1.1\r\n%s: %s\r\n\r\n", field, token);
	check(w, request, status, "text/plain", body);
}

static void version_2_asks_for_a_token(void **state)
{
	struct world *w = *state;
	char token[MMDS_TOKEN_CHARS + 1], other[MMDS_TOKEN_CHARS + 1];
	struct mmds_metrics *counts = &w->mmds->metrics;

	w->mmds->version = MMDS_V2;
	assert_non_null(strstr(ask(w, GET("/name/first")), "HTTP/1.1 401 "));
	assert_non_null(strstr(w->out.data, "No MMDS token provided."));
	assert_int_equal(counts->rx_no_token, 1);
	get_token(w, "60", token);
	get_token(w, "60", other);
	assert_string_not_equal(token, other);
	check_with(w, "X-metadata-token", token, 200, "John");
	check_with(w, "x-AWS-ec2-metadata-token", token, 200, "John");
	assert_int_equal(counts->rx_invalid_token, 0);
	/* Any change makes it invalid. */
	for (size_t i = 0; i < MMDS_TOKEN_CHARS; i++) {
		memcpy(other, token, sizeof(token));
		other[i] = other[i] == 'A' ? 'B' : 'A';
		check_with(w, "X-metadata-token", other, 401, "MMDS token not valid.");
	}
	assert_int_equal(counts->rx_invalid_token, MMDS_TOKEN_CHARS);
	other[MMDS_TOKEN_CHARS - 1] = '\0';
	check_with(w, "X-metadata-token", other, 401, "MMDS token not valid.");
	check_with(w, "X-metadata-token", "", 401, "MMDS token not valid.");
	w->now_ns += 60 * S - 1000000;
	check_with(w, "X-metadata-token", token, 200, "John");
	w->now_ns += 1000000;
	check_with(w, "X-metadata-token", token, 401, "MMDS token not valid.");
}

static void version_1_makes_tokens_and_asks_for_none(void **state)
{
	struct world *w = *state;
	char token[MMDS_TOKEN_CHARS + 1];

	get_token(w, "21600", token);
	check_with(w, "X-metadata-token", token, 200, "John");
	assert_int_equal(w->mmds->metrics.rx_invalid_token + w->mmds->metrics.rx_no_token, 0);
	check_with(w, "X-metadata-token", "nonsense", 200, "John");
	check(w, GET("/name/first"), 200, "text/plain", "John");
	assert_int_equal(w->mmds->metrics.rx_invalid_token, 1);
	assert_int_equal(w->mmds->metrics.rx_no_token, 1);
}

static void wrong_requests_for_tokens_are_refused(void **state)
{
	static const struct {
		const char *request;
		int status;
	} cases[] = {
		{PUT_TOKEN "\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds: 0\r\n\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds: 21601\r\n\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds: 4294967297\r\n\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds: 99999999999999999999999\r\n\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds: -1\r\n\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds:\r\n\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds: 60s\r\n\r\n", 400},
		{PUT_TOKEN "X-metadata-token-ttl-seconds: 60\r\nx-forwarded-FOR: 10.0.0.1\r\n\r\n", 400},
		{"PUT /latest/api HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n", 404},
		{"PUT /latest/api/token2 HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n", 404},
		{"PUT /latest/api/token/ HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n", 404},
		{"PUT //latest///api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n", 200},
		{PUT_TOKEN "X-aws-ec2-metadata-token-ttl-seconds: 1\r\n\r\n", 200},
	};
	struct world *w = *state;
	char want[32];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(want, sizeof(want), "HTTP/1.1 %d ", cases[i].status);
		if (!strstr(ask(w, cases[i].request), want))
			fail_msg("%s: %s", cases[i].request, w->out.data);
	}
}

static void another_instance_takes_no_token_of_ours(void **state)
{
	struct world *w = *state;
	struct mmds *other = mmds_new("vm-2", LIMIT, NULL);
	char token[MMDS_TOKEN_CHARS + 1];
	struct http_text text = {token, MMDS_TOKEN_CHARS};

	get_token(w, "60", token);
	assert_true(mmds_token_is_valid(&w->mmds->tokens, text, w->now_ns));
	other->tokens.begun_ns = w->mmds->tokens.begun_ns;
	assert_false(mmds_token_is_valid(&other->tokens, text, w->now_ns));
	/* Nor would it with our key, under another name. */
	memcpy(other->tokens.key, w->mmds->tokens.key, sizeof(other->tokens.key));
	assert_false(mmds_token_is_valid(&other->tokens, text, w->now_ns));
	mmds_free(other);
}

/* ---- save and load ---- */

static void the_same_machine_goes_on_elsewhere(void **state)
{
	struct world *w = *state;
	struct mmds *other = mmds_new("vm-1", LIMIT, NULL), *small = mmds_new("vm-1", 10, NULL);
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};
	char token[MMDS_TOKEN_CHARS + 1];
	struct http_text text = {token, MMDS_TOKEN_CHARS};
	uint64_t later_ns = 5 * S; /* of another host's clock */

	get_token(w, "60", token);
	w->now_ns += 20 * S;
	state_writer_init(&writer);
	mmds_save(w->mmds, &writer, w->now_ns);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(mmds_load(other, &reader, later_ns, &err), 0);
	assert_true(json_equal(other->store.data, w->mmds->store.data));
	assert_true(mmds_token_is_valid(&other->tokens, text, later_ns + 39 * S));
	assert_false(mmds_token_is_valid(&other->tokens, text, later_ns + 41 * S));
	/* Where it does not fit, nothing has changed. */
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(mmds_load(small, &reader, later_ns, &err), -EINVAL);
	assert_null(small->store.data);
	assert_false(mmds_token_is_valid(&small->tokens, text, later_ns));
	for (size_t len = 0; len < writer.buf.len; len++) {
		state_reader_init(&reader, writer.buf.data, len);
		assert_true(mmds_load(small, &reader, later_ns, &err) < 0);
	}
	state_writer_done(&writer);
	/* Nothing is something, too. */
	mmds_store_done(&w->mmds->store);
	state_writer_init(&writer);
	mmds_save(w->mmds, &writer, w->now_ns);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(mmds_load(other, &reader, later_ns, &err), 0);
	assert_null(other->store.data);
	state_writer_done(&writer);
	mmds_free(other);
	mmds_free(small);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patches_merge),
		cmocka_unit_test(the_store_has_a_limit),
		CASE(values_come_as_text),
		CASE(values_come_as_json),
		CASE(fractions_keep_all_their_digits),
		CASE(what_is_not_there_is_not_found),
		CASE(other_requests_are_refused),
		CASE(a_request_may_come_in_pieces),
		CASE(an_answer_that_does_not_fit_is_unavailable),
		CASE(version_2_asks_for_a_token),
		CASE(version_1_makes_tokens_and_asks_for_none),
		CASE(wrong_requests_for_tokens_are_refused),
		CASE(another_instance_takes_no_token_of_ours),
		CASE(the_same_machine_goes_on_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
