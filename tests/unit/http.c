/* HTTP requests: what is taken, what is waited for, and what is refused. */
#include "common/http.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

static struct http_head head;
static struct error err;

static int parse(const char *text)
{
	err = (struct error){0};
	return http_parse_head(text, strlen(text), &head, &err);
}

static bool text_is(struct http_text text, const char *string)
{
	return text.len == strlen(string) && memcmp(text.data, string, text.len) == 0;
}

static void test_a_request_with_a_body(void **state)
{
	const char *text = "PUT /drives/rootfs HTTP/1.1\r\nHost: localhost\r\ncontent-LENGTH:  12 \r\nX-Empty:\r\n\r\n{\"a\":1}";

	(void)state;
	assert_int_equal(parse(text), 1);
	assert_int_equal(head.method, HTTP_PUT);
	assert_true(text_is(head.target, "/drives/rootfs"));
	assert_int_equal(head.body_bytes, 12);
	assert_true(head.has_length);
	assert_true(head.keep_alive);
	assert_string_equal(text + head.head_bytes, "{\"a\":1}");
	assert_true(text_is(*http_find_field(&head, "HOST"), "localhost"));
	assert_int_equal(http_find_field(&head, "x-empty")->len, 0);
	assert_null(http_find_field(&head, "Hos"));
}

static void test_how_the_connection_goes_on(void **state)
{
	(void)state;
	assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n"), 1);
	assert_false(head.keep_alive);
	assert_int_equal(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), 1);
	assert_true(head.keep_alive);
	assert_int_equal(parse("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), 1);
	assert_false(head.keep_alive);
	assert_int_equal(parse("PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"), 1);
	assert_true(head.expects_continue);
}

static void test_methods(void **state)
{
	(void)state;
	assert_int_equal(parse("DELETE /drives/a HTTP/1.1\r\n\r\n"), 1);
	assert_int_equal(head.method, HTTP_DELETE);
	assert_int_equal(parse("PATCH / HTTP/1.1\r\n\r\n"), 1);
	assert_int_equal(head.method, HTTP_PATCH);
	assert_int_equal(parse("get / HTTP/1.1\r\n\r\n"), 1); /* methods tell case apart */
	assert_int_equal(head.method, HTTP_OTHER);
	assert_true(text_is(head.method_name, "get"));
}

static void test_a_target_with_its_host(void **state)
{
	(void)state;
	assert_int_equal(parse("GET http://169.254.169.254:80/a/b HTTP/1.1\r\n\r\n"), 1);
	assert_true(text_is(head.target, "/a/b"));
	assert_int_equal(parse("GET HTTP:/// HTTP/1.1\r\n\r\n"), 1);
	assert_true(text_is(head.target, "/"));
}

/* However it is cut, a head is only seen when it is whole. */
static void test_a_head_in_pieces(void **state)
{
	const char *text = "GET /version HTTP/1.1\r\nAccept: */*\r\n\r\n";

	(void)state;
	for (size_t len = 0; len < strlen(text); len++)
		assert_int_equal(http_parse_head(text, len, &head, &err), 0);
	assert_int_equal(http_parse_head(text, strlen(text), &head, &err), 1);
}

static void test_what_is_no_http(void **state)
{
	static const char *const texts[] = {
		"\r\n\r\n",
		"GET\r\n\r\n",
		"GET /\r\n\r\n",
		"GET / HTTP/2.0\r\n\r\n",
		"GET / HTTP/1.1 \r\n\r\n",
		"GET  / HTTP/1.1\r\n\r\n",
		" GET / HTTP/1.1\r\n\r\n",
		"GET http://x HTTP/1.1\r\n\r\n",
		"GET https://x/ HTTP/1.1\r\n\r\n",
		"GET http://\x01/ HTTP/1.1\r\n\r\n",
		"GET /\x01 HTTP/1.1\r\n\r\n",
		"GET /\xc3\xa4 HTTP/1.1\r\n\r\n",
		"G(T / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost\r\n\r\n",
		"GET / HTTP/1.1\r\n: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: \x7f\r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (parse(texts[i]) != -EPROTO)
			fail_msg("not refused: %s", texts[i]);
		assert_true(err.message[0]);
	}
}

static void test_lengths_that_are_none(void **state)
{
	static const char *const values[] = {"", "-1", "+1", "1 2", "1,1", "0x10", "99999999999999999999", "1\r\nContent-Length: 1"};
	char text[128];

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		snprintf(text, sizeof(text), "PUT / HTTP/1.1\r\nContent-Length: %s\r\n\r\n", values[i]);
		if (parse(text) != -EPROTO)
			fail_msg("not refused: %s", values[i]);
		assert_string_equal(err.field, "Content-Length");
	}
	assert_int_equal(parse("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), -EOPNOTSUPP);
	assert_int_equal(parse("PUT / HTTP/1.1\r\nContent-Length: 4294967296\r\n\r\n"), 1); /* its reader has a limit of its own */
	assert_int_equal(head.body_bytes, 4294967296);
}

static void test_heads_that_are_too_long(void **state)
{
	char text[2 * HTTP_HEAD_MAX] = "GET / HTTP/1.1\r\n";
	size_t len = strlen(text);

	(void)state;
	memset(text + len, 'x', sizeof(text) - len);
	assert_int_equal(http_parse_head(text, HTTP_HEAD_MAX - 1, &head, &err), 0);
	assert_int_equal(http_parse_head(text, HTTP_HEAD_MAX, &head, &err), -EMSGSIZE);
	for (unsigned i = 0; i <= HTTP_FIELDS_MAX; i++, len += 6)
		memcpy(text + len, "a: b\r\n", 6);
	memcpy(text + len, "\r\n", 3);
	assert_int_equal(parse(text), -EMSGSIZE);
	memcpy(text + len - 6, "\r\n", 3);
	assert_int_equal(parse(text), 1);
	assert_int_equal(head.n_fields, HTTP_FIELDS_MAX);
}

static void test_answers(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 4096);
	assert_int_equal(http_put_answer(&out, 200, true, "Server: x\r\n", "application/json", "{}", 2), 0);
	assert_string_equal(out.data, "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nServer: x\r\n"
				      "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
	buf_consume(&out, out.len);
	assert_int_equal(http_put_answer(&out, 204, false, "", NULL, NULL, 0), 0);
	assert_string_equal(out.data, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
	buf_consume(&out, out.len);
	assert_int_equal(http_put_answer(&out, 405, true, "Allow: GET\r\n", NULL, NULL, 0), 0);
	assert_string_equal(out.data, "HTTP/1.1 405 Method Not Allowed\r\nConnection: keep-alive\r\nAllow: GET\r\n"
				      "Content-Length: 0\r\n\r\n");
	buf_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_request_with_a_body),
		cmocka_unit_test(test_how_the_connection_goes_on),
		cmocka_unit_test(test_methods),
		cmocka_unit_test(test_a_target_with_its_host),
		cmocka_unit_test(test_a_head_in_pieces),
		cmocka_unit_test(test_what_is_no_http),
		cmocka_unit_test(test_lengths_that_are_none),
		cmocka_unit_test(test_heads_that_are_too_long),
		cmocka_unit_test(test_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
