/* Frames and greetings of a session with an emulated host, whole, in parts, and broken. */
#include "tests/unit/test.h"

#include "tools/session.h"

#include <errno.h>
#include <string.h>

static void test_a_frame_arrives_whole_or_not_yet(void **state)
{
	const char *payload;
	struct buf buf;
	size_t len, size;
	char type, sent[64];
	int pipes[2];
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(session_send(pipes[1], SESSION_OUTPUT, "hello", 5), 0);
	n = read(pipes[0], sent, sizeof(sent));
	assert_int_equal(n, 10);
	buf_init(&buf, 1024);
	for (ssize_t i = 0; i < n; i++) {
		assert_int_equal(session_peek(&buf, &type, &payload, &len, &size), 0);
		assert_int_equal(buf_append(&buf, sent + i, 1), 0);
	}
	assert_int_equal(session_peek(&buf, &type, &payload, &len, &size), 1);
	assert_int_equal(type, SESSION_OUTPUT);
	assert_int_equal(len, 5);
	assert_int_equal(size, 10);
	assert_memory_equal(payload, "hello", 5);
	buf_done(&buf);
	close(pipes[0]);
	close(pipes[1]);
}

static void test_a_frame_too_long_is_refused(void **state)
{
	const char *payload;
	struct buf buf;
	size_t len, size;
	char type;

	(void)state;
	buf_init(&buf, 1024);
	assert_int_equal(buf_append(&buf, "o\xff\xff\xff\xff", 5), 0);
	assert_int_equal(session_peek(&buf, &type, &payload, &len, &size), -EPROTO);
	buf_done(&buf);
}

static void test_what_an_earlier_session_left_is_skipped(void **state)
{
	static const char stale[] = "o\0\0HULLSEHULLSESS0123456789abcdef|HULLSESS";
	const char *nonce = "fedcba9876543210";
	char got[SESSION_NONCE_SIZE];
	struct buf buf;

	(void)state;
	buf_init(&buf, 1024);
	assert_int_equal(buf_append(&buf, stale, sizeof(stale) - 1), 0);
	assert_int_equal(session_skip_to_greeting(&buf, nonce, got), 0);
	assert_int_equal(buf_append(&buf, "fedcba9876543210x", 17), 0);
	assert_int_equal(session_skip_to_greeting(&buf, nonce, got), 1);
	assert_memory_equal(got, nonce, sizeof(got));
	assert_int_equal(buf.len, 1);
	assert_int_equal(buf.data[0], 'x');
	buf_done(&buf);
}

static void test_any_greeting_will_do_without_a_nonce(void **state)
{
	char got[SESSION_NONCE_SIZE];
	struct buf buf;

	(void)state;
	buf_init(&buf, 1024);
	assert_int_equal(buf_append(&buf, "xxHULLSESS0123456789abcdef", 26), 0);
	assert_int_equal(session_skip_to_greeting(&buf, NULL, got), 1);
	assert_memory_equal(got, "0123456789abcdef", sizeof(got));
	assert_int_equal(buf.len, 0);
	buf_done(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_frame_arrives_whole_or_not_yet),
		cmocka_unit_test(test_a_frame_too_long_is_refused),
		cmocka_unit_test(test_what_an_earlier_session_left_is_skipped),
		cmocka_unit_test(test_any_greeting_will_do_without_a_nonce),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
