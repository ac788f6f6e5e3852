/* Orders to the agent: what each verb answers, and everything that is refused. Needs root, as the agent does. */
#include "tests/unit/agent_world.h"

#include "common/exec_spec.h"
#include "common/frame.h"
#include "guest-kernel/order_verbs.h"

#include <arpa/inet.h>
#include <endian.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#define PATIENCE_MS 20000

/* In place of what would change this host (--wrap). */
int __wrap_order_carry_out(struct order *order, struct guest_config *config, struct order_answer *ret, struct error *err);

static int carried_out = -1;

int __wrap_order_carry_out(struct order *order, struct guest_config *config, struct order_answer *ret, struct error *err)
{
	uint8_t seed[ORDER_SEED_MAX];

	assert_string_equal(config->hostname, "unit");
	carried_out = order->verb;
	switch (order->verb) {
	case ORDER_CLOCK:
		ret->moved_ns = -order->unix_ns;
		return 0;
	case ORDER_RESEED:
		assert_int_equal(order_seed(order, seed), 16);
		assert_int_equal(seed[0], 0x01);
		assert_int_equal(seed[15], 0xef);
		return 0;
	case ORDER_HOSTNAME:
		assert_string_equal(order->hostname, "new.name");
		return 0;
	default:
		assert_string_equal(order->network->mac, "02:00:00:00:00:0A");
		return error_set(err, ENODEV, "interface %s: No such device", order->network->interface);
	}
}

static void send_frame(int fd, uint8_t type, const char *text)
{
	struct buf out;

	buf_init(&out, HULL_SPEC_MAX);
	assert_int_equal(frame_put(&out, type, text, (uint32_t)strlen(text)), 0);
	assert_int_equal(send(fd, out.data, out.len, MSG_NOSIGNAL), out.len);
	buf_done(&out);
}

static int begin_within(void **state, uint32_t timeout_ms, const char *order)
{
	int fd = ask(*state, request_of(HULL_AGENT_ORDER, timeout_ms));

	assert_int_equal(status_of(fd), 0);
	send_frame(fd, HULL_FRAME_SPEC, order);
	return fd;
}

static int begin(void **state, const char *order)
{
	return begin_within(state, PATIENCE_MS, order);
}

/* The last word, of that type; the connection has ended. */
static json_t *heard(int fd, uint8_t type)
{
	struct hull_frame_header header;
	struct error err;
	char text[4096];
	json_t *object;

	assert_int_equal(recv(fd, &header, sizeof header, MSG_WAITALL), sizeof header);
	assert_int_equal(header.type, type);
	assert_in_range(le32toh(header.len), 2, sizeof text);
	assert_int_equal(recv(fd, text, le32toh(header.len), MSG_WAITALL), le32toh(header.len));
	object = json_parse(text, le32toh(header.len), &err);
	assert_non_null(object);
	ended(fd);
	return object;
}

static void answer_of(int fd, struct order_answer *ret)
{
	json_t *object = heard(fd, HULL_FRAME_ANSWER);
	struct error err;

	assert_int_equal(json_read(&order_answer_table, object, ret, &err), 0);
	json_decref(object);
}

static void answered(void **state, const char *order, bool frozen)
{
	struct order_answer answer;

	answer_of(begin(state, order), &answer);
	assert_int_equal(answer.frozen, frozen);
	json_done(&order_answer_table, &answer);
}

static void refused_on(int fd, int errnum, const char *field, const char *message)
{
	json_t *object = heard(fd, HULL_FRAME_REFUSED);
	struct exec_refusal refusal;
	struct error err;

	assert_int_equal(json_read(&exec_refusal_table, object, &refusal, &err), 0);
	json_decref(object);
	assert_string_equal(refusal.field, field);
	if (!strstr(refusal.message, message))
		fail_msg("\"%s\" does not say \"%s\"", refusal.message, message);
	assert_int_equal(refusal.errnum, errnum);
	json_done(&exec_refusal_table, &refusal);
}

/* ---- what is no order ---- */

static void each_refusal_names_the_field_and_the_reason(void **state)
{
	static const struct {
		const char *order;
		int errnum;
		const char *field, *message;
	} cases[] = {
		{"{", EINVAL, "", "line 1"},
		{"[]", EINVAL, "", "must be an object"},
		{"{}", ENODATA, "verb", "is required"},
		{"{\"verb\": \"explode\"}", EINVAL, "verb", "must be one of"},
		{"{\"verb\": \"thaw\", \"colour\": 1}", ENOKEY, "colour", "unknown"},
		{"{\"verb\": \"thaw\", \"hostname\": \"x\"}", EINVAL, "hostname", "is not of thaw"},
		{"{\"verb\": \"freeze\", \"unix_ns\": 1}", EINVAL, "unix_ns", "is not of freeze"},
		{"{\"verb\": \"clock\", \"unix_ns\": 0}", EINVAL, "unix_ns", "must be 1 to"},
		{"{\"verb\": \"health\"}", ENODATA, "health", "is required"},
		{"{\"verb\": \"health\", \"health\": {}}", EINVAL, "health", "one of http, tcp and exec"},
		{"{\"verb\": \"health\", \"health\": {\"tcp\": {\"port\": 1}, \"http\": {\"port\": 1}}}", EINVAL, "health",
			"one of http, tcp and exec"},
		{"{\"verb\": \"health\", \"health\": {\"tcp\": {\"port\": 0}}}", EINVAL, "health.tcp.port", "must be 1 to 65535"},
		{"{\"verb\": \"health\", \"health\": {\"tcp\": {}}}", ENODATA, "health.tcp.port", "is required"},
		{"{\"verb\": \"health\", \"health\": {\"http\": {\"port\": 1, \"path\": \"x\"}}}", EINVAL, "health.http.path",
			"must begin with /"},
		{"{\"verb\": \"health\", \"health\": {\"http\": {\"port\": 1, \"path\": \"/ HTTP/1.0\\r\\nX: y\"}}}", EINVAL,
			"health.http.path", "without spaces"},
		{"{\"verb\": \"health\", \"health\": {\"exec\": {\"command\": []}}}", EINVAL, "health.exec.command", "empty"},
		{"{\"verb\": \"health\", \"health\": {\"exec\": {\"command\": [\"\"]}}}", EINVAL, "health.exec.command[0]",
			"must not be empty"},
		{"{\"verb\": \"reseed\"}", ENODATA, "seed", "is required"},
		{"{\"verb\": \"reseed\", \"seed\": \"0123456789abcdef\"}", EINVAL, "seed", "at least 32"},
		{"{\"verb\": \"reseed\", \"seed\": \"0123456789abcdef0123456789abcdeg\"}", EINVAL, "seed", "hexadecimal"},
		{"{\"verb\": \"reseed\", \"seed\": \"0123456789abcdef0123456789abcdef0\"}", EINVAL, "seed", "hexadecimal"},
		{"{\"verb\": \"hostname\"}", ENODATA, "hostname", "is required"},
		{"{\"verb\": \"hostname\", \"hostname\": \"a b\"}", EINVAL, "hostname", "may hold letters"},
		{"{\"verb\": \"network\", \"network\": {\"prefix\": 24}}", ENODATA, "network.address", "is required"},
		{"{\"verb\": \"network\", \"network\": {\"address\": \"10.0.0\", \"prefix\": 24}}", EINVAL, "network.address",
			"IPv4"},
		{"{\"verb\": \"network\", \"network\": {\"address\": \"10.0.0.1\", \"prefix\": 33}}", EINVAL, "network.prefix",
			"must be 0 to 32"},
		{"{\"verb\": \"network\", \"network\": {\"address\": \"10.0.0.1\", \"prefix\": 8, \"mac\": \"01:00:00:00:00:01\"}}",
			EINVAL, "network.mac", "one interface"},
		{"{\"verb\": \"network\", \"network\": {\"address\": \"10.0.0.1\", \"prefix\": 8, \"mac\": \"00:00:00:00:00:00\"}}",
			EINVAL, "network.mac", "one interface"},
		{"{\"verb\": \"network\", \"network\": {\"address\": \"10.0.0.1\", \"prefix\": 8, \"mac\": \"02:00:00:00:00:1\"}}",
			EINVAL, "network.mac", "one interface"},
		{"{\"verb\": \"hook\"}", ENODATA, "hook", "is required"},
		{"{\"verb\": \"hook\", \"hook\": \"none\"}", ENODATA, "hook", "is required"},
		{"{\"verb\": \"hook\", \"hook\": \"../../bin/sh\"}", EINVAL, "hook", "must be one of"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		refused_on(begin(state, cases[i].order), cases[i].errnum, cases[i].field, cases[i].message);
}

static void who_breaks_the_rules_has_gone(void **state)
{
	int fd = ask(*state, request_of(HULL_AGENT_ORDER, PATIENCE_MS));

	assert_int_equal(status_of(fd), 0);
	send_frame(fd, HULL_FRAME_STDIN, "");
	ended(fd);
	fd = begin(state, "{\"verb\": \"health\", \"health\": {\"exec\": {\"command\": [\"sleep\", \"1000\"]}}}");
	send_frame(fd, HULL_FRAME_SPEC, "{\"verb\": \"thaw\"}");
	ended(fd);
}

static void a_time_that_none_is_given_is_refused(void **state)
{
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_ORDER, 0))), EINVAL);
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_ORDER, ORDER_TIMEOUT_MAX_MS + 1))), EINVAL);
}

static void who_says_nothing_is_left_when_the_time_is_over(void **state)
{
	int fd = ask(*state, request_of(HULL_AGENT_ORDER, 1));

	assert_int_equal(status_of(fd), 0);
	ended(fd);
}

static void there_are_not_more_than_so_many_at_once(void **state)
{
	int fds[64];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = ask(*state, request_of(HULL_AGENT_ORDER, PATIENCE_MS));
		assert_int_equal(status_of(fds[i]), 0);
	}
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_ORDER, PATIENCE_MS))), EAGAIN);
	send_frame(fds[0], HULL_FRAME_SPEC, "{\"verb\": \"thaw\"}");
	json_decref(heard(fds[0], HULL_FRAME_ANSWER));
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_ORDER, PATIENCE_MS))), 0);
	for (size_t i = 1; i < ARRAY_SIZE(fds); i++)
		close_fd(fds[i]);
}

/* ---- health ---- */

static void health_of(int fd, const char *reason)
{
	struct order_answer answer;

	answer_of(fd, &answer);
	if (reason && (!answer.reason || !strstr(answer.reason, reason)))
		fail_msg("\"%s\" does not say \"%s\"", answer.reason, reason);
	assert_int_equal(answer.healthy, !reason);
	assert_true(reason || !answer.reason);
	json_done(&order_answer_table, &answer);
}

static int listen_somewhere(uint16_t *ret_port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	assert_int_equal(listen(fd, 8), 0);
	getsockname(fd, (struct sockaddr *)&in, &len);
	*ret_port = ntohs(in.sin_port);
	return fd;
}

static void a_port_is_healthy_when_it_accepts(void **state)
{
	char order[128];
	uint16_t port;
	int listener = listen_somewhere(&port);

	snprintf(order, sizeof order, "{\"verb\": \"health\", \"health\": {\"tcp\": {\"port\": %u}}}", port);
	health_of(begin(state, order), NULL);
	close_fd(listener);
	health_of(begin(state, order), "Connection refused");
}

/* What a GET of /up that is answered so makes of the machine; NULL: healthy. */
static void answered_with(void **state, const char *response, const char *reason)
{
	char order[160], request[512];
	uint16_t port;
	int listener = listen_somewhere(&port), fd, server;
	ssize_t n;

	snprintf(order, sizeof order, "{\"verb\": \"health\", \"health\": {\"http\": {\"port\": %u, \"path\": \"/up?x=1\"}}}", port);
	fd = begin_within(state, response ? PATIENCE_MS : 50, order);
	server = accept(listener, NULL, NULL);
	n = recv(server, request, sizeof request - 1, 0);
	request[n > 0 ? n : 0] = '\0';
	assert_memory_equal(request, "GET /up?x=1 HTTP/1.1\r\nHost: localhost:", 38);
	assert_non_null(strstr(request, "\r\n\r\n"));
	for (const char *c = response; c && *c; c++) /* in pieces; what it does not wait for it need not take */
		send(server, c, 1, MSG_NOSIGNAL);
	if (response)
		close_fd(server);
	health_of(fd, reason);
	if (!response)
		close_fd(server);
	close_fd(listener);
}

static void a_page_is_healthy_by_its_status(void **state)
{
	answered_with(state, "HTTP/1.1 200 OK\r\n\r\n", NULL);
	answered_with(state, "HTTP/1.0 204\r\n\r\n", NULL);
	answered_with(state, "HTTP/1.1 399 Odd\r\n\r\n", NULL);
	answered_with(state, "HTTP/1.1 400 Bad\r\n\r\n", "GET /up?x=1 is answered with 400");
	answered_with(state, "HTTP/1.1 503 Later\r\n\r\n", "answered with 503");
	answered_with(state, "HTTP/1.1 100 Continue\r\n\r\n", "answered with 100");
	answered_with(state, "HTTP/1.1 2000 OK\r\n\r\n", "what is not HTTP");
	answered_with(state, "HTTP/1.1 +20 OK\r\n\r\n", "what is not HTTP");
	answered_with(state, "HTTP/2.0 200 OK\r\n\r\n", "what is not HTTP");
	answered_with(state, "SSH-2.0-OpenSSH_9.2\r\n", "what is not HTTP");
	answered_with(state, "HTTP/1.1 2", "answers nothing: it closes");
	answered_with(state, NULL, "no answer within 50 ms");
}

static int begin_program(void **state, uint32_t timeout_ms, const char *script)
{
	char order[512];

	if (geteuid() != 0)
		skip();
	snprintf(order, sizeof order, "{\"verb\": \"health\", \"health\": {\"exec\": {\"command\": [\"sh\", \"-c\", \"%s\"]}}}", script);
	return begin_within(state, timeout_ms, order);
}

static void a_program_is_healthy_when_it_ends_with_0(void **state)
{
	health_of(begin_program(state, PATIENCE_MS, "echo $A; head -c 200000 /dev/zero; exit 0"), NULL);
	health_of(begin_program(state, PATIENCE_MS, "echo first; echo the $A is low >&2; echo; exit 3"), "exit status 3: the base is low");
	health_of(begin_program(state, PATIENCE_MS, "kill -9 $$"), "exit status 137");
	health_of(begin(state, "{\"verb\": \"health\", \"health\": {\"exec\": {\"command\": [\"/nowhere\"]}}}"), "/nowhere: not found");
	/* What it leaves behind, for a while, holds nothing up. */
	health_of(begin_program(state, PATIENCE_MS, "sleep 20 & exit 4"), "exit status 4");
}

/* One that has gone, or whose time is over, takes its program with it. */
static void a_program_ends_with_its_order(void **state)
{
	char script[128], byte;
	int ends[2], fd;

	if (geteuid() != 0)
		skip();
	for (int i = 0; i < 2; i++) {
		struct pollfd there = {.events = POLLIN};
		char path[] = "/tmp/hull-orders.XXXXXX";

		assert_non_null(mkdtemp(path));
		snprintf(script, sizeof script, "%s/fifo", path);
		assert_int_equal(mkfifo(script, 0600), 0);
		ends[0] = open(script, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		snprintf(script, sizeof script, "exec > %s/fifo; echo x; exec sleep 1000", path);
		fd = begin_program(state, i ? PATIENCE_MS : 1500, script);
		there.fd = ends[0];
		assert_int_equal(poll(&there, 1, PATIENCE_MS), 1);
		assert_int_equal(read(ends[0], &byte, 1), 1);
		if (i)
			close_fd(fd);
		else
			health_of(fd, "no answer within 1500 ms");
		fcntl(ends[0], F_SETFL, 0);
		assert_int_equal(read(ends[0], &byte, 1), 1);
		assert_int_equal(read(ends[0], &byte, 1), 0); /* once the last writer has ended */
		close_fd(ends[0]);
		snprintf(script, sizeof script, "%s/fifo", path);
		unlink(script);
		rmdir(path);
	}
}

/* ---- the others ---- */

static void what_is_frozen_begins_nothing(void **state)
{
	answered(state, "{\"verb\": \"thaw\"}", false);
	answered(state, "{\"verb\": \"freeze\"}", true);
	answered(state, "{\"verb\": \"freeze\"}", true);
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_EXEC, 0))), EBUSY);
	refused_on(begin(state, "{\"verb\": \"health\", \"health\": {\"tcp\": {\"port\": 1}}}"), EBUSY, "", "is frozen");
	answered(state, "{\"verb\": \"thaw\"}", false);
	answered(state, "{\"verb\": \"thaw\"}", false);
	assert_int_equal(status_of(ask(*state, request_of(HULL_AGENT_EXEC, 0))), 0);
}

static void the_rest_is_carried_out_as_it_was_said(void **state)
{
	struct order_answer answer;

	answer_of(begin(state, "{\"verb\": \"clock\", \"unix_ns\": 9223372036854775807}"), &answer);
	assert_int_equal(carried_out, ORDER_CLOCK);
	assert_int_equal(answer.moved_ns, -INT64_MAX);
	answered(state, "{\"verb\": \"reseed\", \"seed\": \"0123456789abcdef0123456789abcdef\"}", false);
	assert_int_equal(carried_out, ORDER_RESEED);
	answered(state, "{\"verb\": \"hostname\", \"hostname\": \"new.name\"}", false);
	assert_int_equal(carried_out, ORDER_HOSTNAME);
	refused_on(begin(state, "{\"verb\": \"network\", \"network\": {\"interface\": \"eth9\", \"address\": \"10.0.0.2\", "
				"\"prefix\": 8, \"mac\": \"02:00:00:00:00:0A\"}}"),
		ENODEV, "", "eth9: No such device");
}

static void an_image_without_the_hook_is_no_failure(void **state)
{
	struct order_answer answer;

	if (access("/etc/hull/hooks/before-snapshot", F_OK) == 0)
		skip();
	answer_of(begin(state, "{\"verb\": \"hook\", \"hook\": \"before-snapshot\"}"), &answer);
	assert_false(answer.ran);
}

#define orders_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		orders_test(each_refusal_names_the_field_and_the_reason),
		orders_test(who_breaks_the_rules_has_gone),
		orders_test(a_time_that_none_is_given_is_refused),
		orders_test(who_says_nothing_is_left_when_the_time_is_over),
		orders_test(there_are_not_more_than_so_many_at_once),
		orders_test(a_port_is_healthy_when_it_accepts),
		orders_test(a_page_is_healthy_by_its_status),
		orders_test(a_program_is_healthy_when_it_ends_with_0),
		orders_test(a_program_ends_with_its_order),
		orders_test(what_is_frozen_begins_nothing),
		orders_test(the_rest_is_carried_out_as_it_was_said),
		orders_test(an_image_without_the_hook_is_no_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
