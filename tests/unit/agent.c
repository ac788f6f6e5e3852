/* The agent's protocol, over socket pairs in place of vsock: each verb, and requests that are none. */
#include "tests/unit/agent_world.h"

#include <arpa/inet.h>

static void ping_is_answered_and_ends(void **state)
{
	int fd = ask(*state, request_of(HULL_AGENT_PING, 0));

	assert_int_equal(status_of(fd), 0);
	ended(fd);
}

static void a_request_may_come_in_pieces(void **state)
{
	struct hull_agent_request request = request_of(HULL_AGENT_PING, 0);
	int fd = connect_agent(*state);

	for (size_t i = 0; i < sizeof request; i++)
		assert_int_equal(send(fd, (char *)&request + i, 1, 0), 1);
	assert_int_equal(status_of(fd), 0);
	ended(fd);
}

static void stop_is_answered_and_carried_out(void **state)
{
	struct fixture *f = *state;
	int fd = ask(f, request_of(HULL_AGENT_STOP, 1234));

	assert_int_equal(status_of(fd), 0);
	ended(fd);
	assert_int_equal(status_of(ask(f, request_of(HULL_AGENT_PING, 0))), 0); /* the loop has passed it */
	assert_int_equal(f->stops, 1);
	assert_int_equal(f->stop_ms, 1234);
}

static void what_it_does_not_know_it_says_so(void **state)
{
	struct hull_agent_request request = request_of(HULL_AGENT_PING, 0);

	assert_int_equal(status_of(ask(*state, request_of(99, 0))), EPROTONOSUPPORT);
	assert_int_equal(status_of(ask(*state, request_of(0, 0))), EPROTONOSUPPORT);
	request.version = 2;
	assert_int_equal(status_of(ask(*state, request)), EPROTONOSUPPORT);
}

static void another_protocol_is_not_answered(void **state)
{
	struct hull_agent_request request = request_of(HULL_AGENT_PING, 0);

	memcpy(&request.magic, "GET ", 4);
	ended(ask(*state, request));
}

static int listen_on(int family, uint16_t *ret_port)
{
	struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in6 bound;
	socklen_t len = sizeof bound;
	int fd = socket(family, SOCK_STREAM, 0);

	if (family == AF_INET)
		assert_int_equal(bind(fd, (struct sockaddr *)&in4, sizeof in4), 0);
	else if (bind(fd, (struct sockaddr *)&in6, sizeof in6) < 0)
		skip();
	assert_int_equal(listen(fd, 8), 0);
	getsockname(fd, (struct sockaddr *)&bound, &len);
	*ret_port = ntohs(bound.sin6_port); /* at the same place in both */
	return fd;
}

static void streams_to(struct fixture *f, int family)
{
	uint16_t port;
	int listener = listen_on(family, &port), fd = connect_agent(f), server;
	struct hull_agent_request request = request_of(HULL_AGENT_STREAM, port);
	char early[sizeof request + 5], text[16] = {0};

	/* What follows the request in the same packet belongs to the stream. */
	memcpy(early, &request, sizeof request);
	memcpy(early + sizeof request, "early", 5);
	assert_int_equal(send(fd, early, sizeof early, 0), sizeof early);
	assert_int_equal(status_of(fd), 0);
	server = accept(listener, NULL, NULL);
	assert_int_equal(recv(server, text, 5, MSG_WAITALL), 5);
	assert_string_equal(text, "early");
	shutdown(fd, SHUT_WR);
	assert_int_equal(recv(server, text, 1, 0), 0);
	assert_int_equal(send(server, "answer", 6, 0), 6);
	close_fd(server);
	assert_int_equal(recv(fd, text, 6, MSG_WAITALL), 6);
	assert_string_equal(text, "answer");
	ended(fd);
	close_fd(listener);
}

static void a_stream_reaches_a_listener_on_ipv4(void **state)
{
	streams_to(*state, AF_INET);
}

static void a_stream_reaches_a_listener_on_ipv6(void **state)
{
	streams_to(*state, AF_INET6);
}

static void a_stream_to_nobody_is_refused(void **state)
{
	uint16_t port;
	int listener = listen_on(AF_INET, &port), fd;

	close_fd(listener);
	fd = ask(*state, request_of(HULL_AGENT_STREAM, port));
	assert_int_equal(status_of(fd), ECONNREFUSED);
	ended(fd);
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_STREAM, 0))), EINVAL);
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_STREAM, 65536))), EINVAL);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(ping_is_answered_and_ends),
		CASE(a_request_may_come_in_pieces),
		CASE(stop_is_answered_and_carried_out),
		CASE(what_it_does_not_know_it_says_so),
		CASE(another_protocol_is_not_answered),
		CASE(a_stream_reaches_a_listener_on_ipv4),
		CASE(a_stream_reaches_a_listener_on_ipv6),
		CASE(a_stream_to_nobody_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
