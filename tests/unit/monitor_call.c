/* What a monitor answers, whoever it is by now. */
#include "tests/unit/test.h"

#include "api/monitor_call.h"
#include "common/io.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct world {
	struct loop *loop;
	char folder[32], path[64];
	int listener, client;
	struct loop_source *source, *client_source;
	const char *answer;
	size_t answer_len;
	char request[2048];
	bool called, refused, failed;
	struct error err;
};

static void on_request(void *ctx, uint32_t events)
{
	struct world *w = ctx;
	ssize_t n = read(w->client, w->request, sizeof(w->request) - 1);

	(void)events;
	assert_true(n > 0);
	assert_int_equal(write_full(w->client, w->answer, w->answer_len), 0);
	loop_remove(w->client_source);
	w->client = close_fd(w->client);
}

static void on_client(void *ctx, uint32_t events)
{
	struct world *w = ctx;

	(void)events;
	w->client = accept(w->listener, NULL, NULL);
	assert_true(w->client >= 0);
	w->client_source = loop_add_fd(w->loop, w->client, EPOLLIN, on_request, w);
}

static void on_end(void *ctx, bool refused, const struct error *err)
{
	struct world *w = ctx;

	w->called = true;
	w->refused = refused;
	w->failed = err;
	if (err)
		w->err = *err;
	loop_stop(w->loop);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct error err;

	snprintf(w->folder, sizeof(w->folder), "/tmp/monitor_call.XXXXXX");
	if (!mkdtemp(w->folder))
		return -1;
	snprintf(w->path, sizeof(w->path), "%s/monitor.sock", w->folder);
	w->loop = loop_new();
	w->listener = unix_listen(w->path, 4, 0600, &err);
	w->source = loop_add_fd(w->loop, w->listener, EPOLLIN, on_client, w);
	*state = w;
	return w->source ? 0 : -1;
}

static int teardown(void **state)
{
	struct world *w = *state;

	loop_remove(w->source);
	close_fd(w->listener);
	unlink(w->path);
	rmdir(w->folder);
	loop_free(w->loop);
	free(w);
	return 0;
}

static struct world *ask(struct world *w, const char *answer, size_t len)
{
	w->answer = answer;
	w->answer_len = len;
	w->called = false;
	assert_non_null(monitor_call(w->loop, w->path, "PATCH", "/vm", json_pack("{s:s}", "state", "Paused"), on_end, w));
	assert_false(w->called);
	assert_int_equal(loop_run(w->loop), 0);
	assert_true(w->called);
	return w;
}

static void what_was_done_is_done(void **state)
{
	static const char done[] = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
	struct world *w = ask(*state, done, strlen(done));

	assert_false(w->failed);
	assert_string_equal(w->request, "PATCH /vm HTTP/1.1\r\nHost: monitor\r\nConnection: close\r\nContent-Type: application/json\r\n"
					"Content-Length: 18\r\n\r\n{\"state\":\"Paused\"}");
}

static void a_refusal_says_why_in_printable_characters(void **state)
{
	static const char refusal[] = "HTTP/1.1 400 Bad Request\r\n\r\n{\"fault_message\":\"no \\u001b[31mroom\"}",
			  strange[] = "HTTP/1.1 500 ?\r\n\r\n{\"fault_message\":[]}";
	struct world *w = ask(*state, refusal, strlen(refusal));

	assert_true(w->failed && w->refused);
	assert_string_equal(w->err.message, "its monitor says: no ?[31mroom");
	ask(w, strange, strlen(strange));
	assert_true(w->failed && w->refused);
	assert_string_equal(w->err.message, "its monitor says: no");
}

static void what_makes_no_sense_is_no_answer(void **state)
{
	static const char *const answers[] = {"", "HTTP/1.1 204 No Content\r\n", "HTTP/1.0 204 No Content\r\n\r\n", "204\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 -1\r\n\r\n", "HTTP/1.1 99999999999999999999\r\n\r\n"};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
		ask(w, answers[i], strlen(answers[i]));
		assert_true(w->failed && !w->refused);
		assert_int_equal(w->err.errnum, i ? EPROTO : ECONNRESET);
	}
	ask(w, "HTTP/1.1 204\0\r\n\r\n", 17);
	assert_true(w->failed && !w->refused);
}

static void little_is_read_of_what_is_long(void **state)
{
	static char endless[65536];
	struct world *w;

	memset(endless, 'a', sizeof(endless));
	w = ask(*state, endless, sizeof(endless));
	assert_true(w->failed && !w->refused);
	assert_int_equal(w->err.errnum, EMSGSIZE);
}

static void nobody_there_is_told_later_or_not_at_all(void **state)
{
	struct world *w = *state;
	struct monitor_call *call;

	unlink(w->path);
	ask(w, "", 0);
	assert_true(w->failed && !w->refused);
	assert_int_equal(w->err.errnum, ENOENT);
	w->called = false;
	call = monitor_call(w->loop, w->path, "PATCH", "/vm", json_object(), on_end, w);
	monitor_call_cancel(call);
	monitor_call_cancel(NULL);
	loop_stop(w->loop);
	loop_run(w->loop);
	assert_false(w->called);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_done_is_done, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refusal_says_why_in_printable_characters, setup, teardown),
		cmocka_unit_test_setup_teardown(what_makes_no_sense_is_no_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(little_is_read_of_what_is_long, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_there_is_told_later_or_not_at_all, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
