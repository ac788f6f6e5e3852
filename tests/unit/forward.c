/* Published ports of an emulated host: what the inside may ask for, and what QEMU's monitor is then told. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "common/loop.h"
#include "tools/forward.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static void test_good_lines_are_read(void **state)
{
	struct forward_request request;
	const char *reason;

	(void)state;
	assert_int_equal(forward_parse("add 127.0.0.1 8080", &request, &reason), 0);
	assert_true(request.add);
	assert_string_equal(request.address, "127.0.0.1");
	assert_int_equal(request.port, 8080);
	assert_int_equal(forward_parse("remove 0.0.0.0 65535", &request, &reason), 0);
	assert_false(request.add);
	assert_int_equal(request.port, 65535);
	assert_false(request.udp);
	assert_int_equal(forward_parse("add 127.255.255.255 1", &request, &reason), 0);
	assert_int_equal(forward_parse("remove 127.255.255.255 65535 udp", &request, &reason), 0);
	assert_true(request.udp);
	assert_int_equal(request.port, 65535);
}

static void test_bad_lines_are_refused(void **state)
{
	static const char *const bad[] = {
		"", "add", "add ", "add 127.0.0.1", "add 127.0.0.1 ", "add  127.0.0.1 80", "add 127.0.0.1  80",
		"add 127.0.0.1 80 ", "add 127.0.0.1 80 x", "add 127.0.0.1 080", "add 127.0.0.1 0", "add 127.0.0.1 65536",
		"add 127.0.0.1 -1", "add 127.0.0.1 +80", "add 127.0.0.1 99999999999999", "add 127.0.0.1 80;quit",
		"add 127.0.0.1 80\r", "add 127.1 80", "add 0 80", "add 10.0.0.1 80", "add 128.0.0.1 80", "add ::1 80",
		"add localhost 80", "add 127.0.0.1-: 80", "add 127.0.0.1,x 80", "ADD 127.0.0.1 80", "quit", "list", "add 127.0.0.1 80 tcp", "add 127.0.0.1 80  udp", "add 127.0.0.1 80 udp ",
		"add 127.0.0.1 udp", "add 127.0.0.1 0000080 udp", "add 127.0.0.1 80 UDP",
		"add 127.0.0.1 99999999999999999 udp",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct forward_request request;
		const char *reason = NULL;

		if (forward_parse(bad[i], &request, &reason) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
		assert_non_null(reason);
	}
}

struct fixture {
	struct loop *loop;
	struct forward *forward;
	int monitor, inside; /* the other ends: ours */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int monitor[2], inside[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, monitor), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, inside), 0);
	f->loop = loop_new();
	f->forward = forward_new(f->loop, monitor[0], inside[0]);
	assert_non_null(f->forward);
	f->monitor = monitor[1];
	f->inside = inside[1];
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	forward_free(f->forward);
	loop_free(f->loop);
	close(f->monitor);
	close(f->inside);
	free(f);
	return 0;
}

static void stop(void *ctx, uint32_t events)
{
	(void)events;
	loop_stop(ctx);
}

static void stop_late(void *ctx)
{
	loop_stop(ctx);
}

/* Runs the loop until something can be read from `fd`, 10 s at most; it must be `expected`. */
static void expect(struct fixture *f, int fd, const char *expected)
{
	struct loop_source *source = loop_add_fd(f->loop, fd, EPOLLIN, stop, f->loop);
	struct loop_source *late = loop_add_timer(f->loop, stop_late, f->loop);
	char text[512] = "";

	loop_timer_arm(late, 10000000000ull);
	loop_run(f->loop);
	loop_remove(source);
	loop_remove(late);
	if (read(fd, text, sizeof(text) - 1) < 0)
		fail_msg("nothing came; expected %s", expected);
	assert_string_equal(text, expected);
}

static void say(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void negotiate(struct fixture *f)
{
	say(f->monitor, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
	expect(f, f->monitor, "{\"execute\":\"qmp_capabilities\"}");
	say(f->monitor, "{\"return\": {}}\r\n");
}

#define COMMAND(text) "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"" text "\"}}"

static void test_a_forward_is_added_once_and_removed(void **state)
{
	struct fixture *f = *state;

	say(f->inside, "add 127.0.0.1 8080\n"); /* before the monitor is there: it waits */
	negotiate(f);
	expect(f, f->monitor, COMMAND("hostfwd_add n0 tcp:127.0.0.1:8080-:8080"));
	say(f->monitor, "{\"timestamp\": {}, \"event\": \"RTC_CHANGE\"}\r\n{\"return\": \"\"}\r\n");
	expect(f, f->inside, "ok\n");
	say(f->inside, "add 127.0.0.1 8080\n");
	expect(f, f->inside, "ok\n");
	say(f->inside, "remove 127.0.0.1 8080\n");
	expect(f, f->monitor, COMMAND("hostfwd_remove n0 tcp:127.0.0.1:8080"));
	say(f->monitor, "{\"return\": \"host forwarding rule for tcp:127.0.0.1:8080 removed\\r\\n\"}\r\n");
	expect(f, f->inside, "ok\n");
	say(f->inside, "remove 127.0.0.1 8080\n");
	expect(f, f->inside, "ok\n");
}

static void test_tcp_and_udp_are_forwarded_each_for_itself(void **state)
{
	struct fixture *f = *state;

	negotiate(f);
	say(f->inside, "add 127.0.0.1 53\nadd 127.0.0.1 53 udp\nremove 127.0.0.1 53 udp\n");
	expect(f, f->monitor, COMMAND("hostfwd_add n0 tcp:127.0.0.1:53-:53"));
	say(f->monitor, "{\"return\": \"\"}\r\n");
	expect(f, f->monitor, COMMAND("hostfwd_add n0 udp:127.0.0.1:53-:53"));
	say(f->monitor, "{\"return\": \"\"}\r\n");
	expect(f, f->monitor, COMMAND("hostfwd_remove n0 udp:127.0.0.1:53"));
}

/* A port of 127.0.0.1 that somebody listens on: the returned socket. */
static int take_port(unsigned *ret)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(address);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	*ret = ntohs(address.sin_port);
	return fd;
}

static void test_requests_are_answered_one_after_the_other(void **state)
{
	struct fixture *f = *state;
	char lines[256];
	unsigned port;
	int taken;

	negotiate(f);
	taken = take_port(&port);
	snprintf(lines, sizeof(lines), "add 127.0.0.1 1\nadd 127.0.0.1 %u\n", port);
	say(f->inside, lines);
	expect(f, f->monitor, COMMAND("hostfwd_add n0 tcp:127.0.0.1:1-:1"));
	say(f->monitor, "{\"return\": \"\"}\r\n");
	expect(f, f->inside, "ok\n");
	snprintf(lines, sizeof(lines), COMMAND("hostfwd_add n0 tcp:127.0.0.1:%u-:%u"), port, port);
	expect(f, f->monitor, lines);
	say(f->monitor, "{\"return\": \"could not set up host forwarding rule\\r\\n\"}\r\n");
	snprintf(lines, sizeof(lines), "error 127.0.0.1:%u: Address already in use\n", port);
	expect(f, f->inside, lines);
	close(taken);
}

static void test_a_hostile_inside_reaches_no_monitor(void **state)
{
	struct fixture *f = *state;
	char junk[60];

	negotiate(f);
	memset(junk, 'x', sizeof(junk));
	for (int i = 0; i < 100; i++) { /* one endless line; the loop runs in between */
		if (write(f->inside, junk, sizeof(junk)) < 0)
			assert_int_equal(errno, EAGAIN);
	}
	say(f->inside, "\n");
	expect(f, f->inside, "error line too long\n");
	assert_int_equal(write(f->inside, "add 127.0.0.1 80\0 \n", 19), 19);
	expect(f, f->inside, "error a byte that is no text\n");
	say(f->inside, "hostfwd_add n0 tcp::22-:22\n");
	expect(f, f->inside, "error expected: add|remove ADDRESS PORT [udp]\n");
	assert_int_equal(poll(&(struct pollfd){.fd = f->monitor, .events = POLLIN}, 1, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_lines_are_read),
		cmocka_unit_test(test_bad_lines_are_refused),
		cmocka_unit_test_setup_teardown(test_a_forward_is_added_once_and_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp_and_udp_are_forwarded_each_for_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(test_requests_are_answered_one_after_the_other, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_hostile_inside_reaches_no_monitor, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
