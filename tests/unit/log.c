/* The log's lines: how they look in both styles, and which are left out. */
#include "tests/unit/test.h"

#include "common/cleanup.h"
#include "common/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SECONDS "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\."

static int pipe_fds[2];

static int setup(void **state)
{
	(void)state;
	assert_int_equal(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
	log_open("web_1", LOG_LEVEL_INFO, pipe_fds[1]);
	log_style(LOG_STYLE_HULL);
	log_show_level(false);
	log_show_origin(false);
	log_set_module("");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	log_set_fd(STDERR_FILENO);
	close(pipe_fds[0]);
	return 0;
}

/* All that was written since the last call. */
static const char *written(void)
{
	static char text[4096];
	ssize_t len = read(pipe_fds[0], text, sizeof(text) - 1);

	text[len < 0 ? 0 : len] = '\0';
	return text;
}

static void expect(const char *pattern)
{
	const char *line = written();
	regex_t regex;

	assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	if (regexec(&regex, line, 0, NULL, 0) != 0)
		fail_msg("\"%s\" is not \"%s\"", line, pattern);
	regfree(&regex);
}

static void hulls_own_line(void **state)
{
	(void)state;
	log_warn("%d bottles", 99);
	expect(SECONDS "[0-9]{6}Z WARN  web_1: 99 bottles\n$");
	log_show_origin(true);
	log_error("gone");
	expect("Z ERROR web_1: tests/unit/log\\.c:[0-9]+: gone\n$");
}

static void *log_from_a_thread(void *arg)
{
	(void)arg;
	pthread_setname_np(pthread_self(), "vcpu 0");
	log_info("from a thread");
	return NULL;
}

static void firecrackers_line(void **state)
{
	pthread_t thread;

	(void)state;
	log_style(LOG_STYLE_FIRECRACKER);
	log_info("Running");
	expect(SECONDS "[0-9]{9} \\[web_1:main\\] Running\n$");
	log_show_level(true);
	log_warn("Running");
	expect("\\[web_1:main:WARN\\] Running\n$");
	log_show_origin(true);
	log_info("Running");
	expect("\\[web_1:main:INFO:tests/unit/log\\.c:[0-9]+\\] Running\n$");
	log_show_level(false);
	assert_int_equal(pthread_create(&thread, NULL, log_from_a_thread, NULL), 0);
	pthread_join(thread, NULL);
	expect("\\[web_1:vcpu 0:tests/unit/log\\.c:[0-9]+\\] from a thread\n$");
}

static void levels_and_modules_leave_lines_out(void **state)
{
	(void)state;
	log_debug("too fine");
	assert_string_equal(written(), "");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("fine");
	expect("DEBUG web_1: fine\n$");
	log_set_module("devices/");
	log_error("not a device");
	assert_string_equal(written(), "");
	log_set_module("tests/unit/lo");
	log_error("here");
	expect("here\n$");
	log_set_module("tests/unit/log.c and what is longer than any prefix that is kept, which is cut");
	log_error("not here");
	assert_string_equal(written(), "");
}

static void a_line_stays_one_line(void **state)
{
	char long_text[3000];
	const char *line;

	(void)state;
	log_info("two\nlines\r\x1b[31m");
	expect("two\\?lines\\?\\?\\[31m\n$");
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	for (enum log_style style = LOG_STYLE_HULL; style <= LOG_STYLE_FIRECRACKER; style++) {
		log_style(style);
		log_info("%s", long_text);
		line = written();
		assert_in_range(strlen(line), 1000, 1024);
		assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
	}
}

static void an_error_is_told_with_its_context(void **state)
{
	struct error err = {0};

	(void)state;
	error_set_field(&err, EINVAL, "drives", "no room");
	log_error_object(&err, "start");
	expect("ERROR web_1: start: drives: no room\n$");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(hulls_own_line),
		TEST(firecrackers_line),
		TEST(levels_and_modules_leave_lines_out),
		TEST(a_line_stays_one_line),
		TEST(an_error_is_told_with_its_context),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
