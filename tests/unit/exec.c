/* Programs executed by the agent for its clients: what they read, write, and end with. Needs root, as the
 * agent does. */
#include "tests/unit/agent_world.h"

#include "common/frame.h"

#include <endian.h>
#include <fcntl.h>

#define MIB (1u << 20)

struct client {
	int fd;
	char type;
	uint32_t len;
	char data[HULL_FRAME_MAX + 1]; /* of the last frame, NUL-terminated */
	uint32_t credit;
};

static struct client client;

static void send_frame(enum hull_frame_type type, const void *data, size_t len)
{
	struct buf out;

	buf_init(&out, 2 * HULL_SPEC_MAX);
	assert_int_equal(frame_put(&out, type, data, (uint32_t)len), 0);
	assert_int_equal(send(client.fd, out.data, out.len, MSG_NOSIGNAL), out.len);
	buf_done(&out);
}

static void send_number(enum hull_frame_type type, uint32_t number)
{
	uint32_t wire = htole32(number);

	send_frame(type, &wire, sizeof wire);
}

/* The type of the next frame; 0 at the end. */
static int receive(void)
{
	struct hull_frame_header header;

	if (recv(client.fd, &header, sizeof header, MSG_WAITALL) != sizeof header)
		return 0;
	client.len = le32toh(header.len);
	assert_true(client.len <= HULL_FRAME_MAX);
	if (client.len)
		assert_int_equal(recv(client.fd, client.data, client.len, MSG_WAITALL), client.len);
	client.data[client.len] = '\0';
	if (header.type == HULL_FRAME_CREDIT)
		client.credit += le32toh(*(uint32_t *)client.data);
	return header.type;
}

static uint32_t number(void)
{
	uint32_t wire;

	assert_int_equal(client.len, sizeof wire);
	memcpy(&wire, client.data, sizeof wire);
	return le32toh(wire);
}

static void begin(void **state, const char *spec)
{
	if (geteuid() != 0)
		skip();
	client.fd = ask(*state, request_of(HULL_AGENT_EXEC, 0));
	client.credit = HULL_EXEC_WINDOW;
	assert_int_equal(status_of(client.fd), 0);
	send_frame(HULL_FRAME_SPEC, spec, strlen(spec));
}

static void started(void **state, const char *spec)
{
	begin(state, spec);
	assert_int_equal(receive(), HULL_FRAME_STARTED);
}

static void shell(void **state, const char *script)
{
	char spec[1024];

	snprintf(spec, sizeof spec, "{\"command\": [\"sh\", \"-c\", \"%s\"]}", script);
	started(state, spec);
}

/* Everything until EXIT: standard output and error as text. */
static uint32_t collect(char *out, size_t size, char *errors, size_t errors_size)
{
	size_t n = 0, n_errors = 0;

	for (;;) {
		int type = receive();

		if (type == HULL_FRAME_STDOUT && n + client.len < size) {
			memcpy(out + n, client.data, client.len);
			n += client.len;
		} else if (type == HULL_FRAME_STDERR && n_errors + client.len < errors_size) {
			memcpy(errors + n_errors, client.data, client.len);
			n_errors += client.len;
		} else if (type == HULL_FRAME_EXIT) {
			break;
		} else {
			assert_int_equal(type, HULL_FRAME_CREDIT);
		}
	}
	out[n] = errors[n_errors] = '\0';
	n = number();
	ended(client.fd);
	return (uint32_t)n;
}

static char out[4 * MIB + 1], errors[4096];

static uint32_t collected(void)
{
	return collect(out, sizeof out, errors, sizeof errors);
}

static void output_error_and_status_are_apart(void **state)
{
	shell(state, "echo out; echo err >&2; exit 7");
	assert_int_equal(collected(), 7);
	assert_string_equal(out, "out\n");
	assert_string_equal(errors, "err\n");
}

static void environment_user_and_folder_are_what_was_asked_for(void **state)
{
	started(state, "{\"command\": [\"sh\", \"-c\", \"echo $A $B $(id -u):$(id -g) $PWD $HOSTNAME\"], \"env\": {\"B\": \"own\"},"
		       " \"user\": \"1234:5\", \"workdir\": \"/proc\"}");
	assert_int_equal(collected(), 0);
	assert_string_equal(out, "base own 1234:5 /proc unit\n");
}

static void input_is_given_as_it_is_read(void **state)
{
	static char sent[MIB];
	size_t n = 0, n_out = 0;
	int type;

	for (size_t i = 0; i < sizeof sent; i++)
		sent[i] = (char)(i * 7 + i / 251);
	started(state, "{\"command\": [\"cat\"]}");
	while (n < sizeof sent || n_out < sizeof sent) {
		size_t part = sizeof sent - n < 9000 ? sizeof sent - n : 9000;

		if (part && part <= client.credit) {
			send_frame(HULL_FRAME_STDIN, sent + n, part);
			client.credit -= (uint32_t)part;
			n += part;
			continue;
		}
		type = receive();
		if (type == HULL_FRAME_CREDIT)
			continue;
		assert_int_equal(type, HULL_FRAME_STDOUT);
		assert_memory_equal(client.data, sent + n_out, client.len);
		n_out += client.len;
	}
	send_frame(HULL_FRAME_STDIN_EOF, NULL, 0);
	assert_int_equal(collected(), 0);
}

static void a_client_that_takes_its_time_loses_nothing(void **state)
{
	shell(state, "seq 400000; echo last >&2");
	/* The program cannot have ended: what it writes fits no buffer on the way. */
	assert_int_equal(collected(), 0);
	assert_int_equal(strlen(out), 2688895);
	assert_string_equal(out + 2688895 - 7, "400000\n");
	assert_string_equal(errors, "last\n");
}

static void a_signal_does_not_wait_behind_input_that_nobody_reads(void **state)
{
	static const char fill[HULL_EXEC_WINDOW];

	shell(state, "exec sleep 1000");
	send_frame(HULL_FRAME_STDIN, fill, sizeof fill);
	send_number(HULL_FRAME_SIGNAL, SIGTERM);
	assert_int_equal(collected(), 128 + SIGTERM);
}

static void input_that_is_not_wanted_is_dropped(void **state)
{
	static const char fill[HULL_EXEC_WINDOW];

	shell(state, "exec <&-; echo closed; sleep 1000");
	assert_int_equal(receive(), HULL_FRAME_STDOUT);
	for (int i = 0; i < 4; i++) {
		send_frame(HULL_FRAME_STDIN, fill, client.credit);
		client.credit = 0;
		while (client.credit == 0)
			assert_int_equal(receive(), HULL_FRAME_CREDIT);
	}
	send_number(HULL_FRAME_SIGNAL, SIGKILL);
	assert_int_equal(collected(), 128 + SIGKILL);
}

static void what_cannot_be_executed_ends_as_in_a_shell(void **state)
{
	started(state, "{\"command\": [\"no-such-program\"]}");
	assert_int_equal(collected(), 127);
	assert_non_null(strstr(errors, "no-such-program: not found in PATH"));
	started(state, "{\"command\": [\"/etc/passwd\"]}");
	assert_int_equal(collected(), 126);
	assert_string_equal(errors, "command: /etc/passwd: Permission denied\n");
}

static void what_cannot_be_begun_is_refused_with_its_field(void **state)
{
	static const char *const cases[][2] = {
		{"{\"command\": [\"true\"], \"user\": \"nobody-of-that-name\"}", "\"field\":\"user\""},
		{"{\"command\": [\"true\"], \"workdir\": \"/no/such/folder\"}", "\"field\":\"workdir\""},
		{"{\"command\": [\"true\"], \"workdir\": \"relative\"}", "\"field\":\"workdir\""},
		{"{\"command\": []}", "\"field\":\"command\""},
		{"{\"command\": [\"true\"], \"env\": {\"A=B\": \"\"}}", "\"field\":\"env.A=B\""},
		{"{\"command\": [\"true\"], \"comand\": 1}", "\"field\":\"comand\""},
		{"{", "\"message\":"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		begin(state, cases[i][0]);
		assert_int_equal(receive(), HULL_FRAME_REFUSED);
		if (!strstr(client.data, cases[i][1]))
			fail_msg("%s: %s", cases[i][0], client.data);
		ended(client.fd);
	}
}

/* What a terminal shows until `text` is seen. */
static void shown(const char *text)
{
	size_t n = 0;

	out[0] = '\0';
	while (!strstr(out, text)) {
		int type = receive();

		if (type == HULL_FRAME_CREDIT)
			continue;
		assert_int_equal(type, HULL_FRAME_STDOUT);
		memcpy(out + n, client.data, client.len + 1);
		n += client.len;
	}
}

static void a_terminal_has_a_size_and_a_ctrl_c(void **state)
{
	const struct hull_frame_size size = {htole16(50), htole16(132)};

	started(state, "{\"command\": [\"sh\", \"-c\", \"tty; stty size; read x; echo got $x;"
		       " read x; stty size; cat; exec tail -f /proc/version\"],"
		       " \"tty\": true, \"rows\": 33, \"columns\": 101}");
	shown("33 101\r\n");
	assert_non_null(strstr(out, "/dev/pts/"));
	send_frame(HULL_FRAME_STDIN, "hello\n", 6);
	shown("got hello\r\n");
	send_frame(HULL_FRAME_RESIZE, &size, sizeof size);
	send_frame(HULL_FRAME_STDIN, "again\n", 6);
	shown("50 132\r\n");
	send_frame(HULL_FRAME_STDIN_EOF, NULL, 0);
	shown("Linux version");
	send_frame(HULL_FRAME_STDIN, "\003", 1);
	assert_int_equal(collected(), 128 + SIGINT);
}

static void a_terminals_last_words_are_not_lost(void **state)
{
	started(state, "{\"command\": [\"seq\", \"100000\"], \"tty\": true}");
	assert_int_equal(collected(), 0);
	assert_int_equal(strlen(out), 588895 + 100000);
}

static bool is_alive(pid_t pid)
{
	char path[64], text[256] = "";
	FILE *stat;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	stat = fopen(path, "r");
	if (stat && fgets(text, sizeof text, stat) == NULL)
		text[0] = '\0';
	if (stat)
		fclose(stat);
	return text[0] && !strstr(text, ") Z ") && !strstr(text, ") X ");
}

static void gone(pid_t pid)
{
	for (int i = 0; i < 20000 && is_alive(pid); i++)
		usleep(1000);
	assert_false(is_alive(pid));
}

static void a_program_ends_with_its_client(void **state)
{
	pid_t leader, child;

	shell(state, "sleep 1000 & echo $!; wait");
	leader = (pid_t)number();
	assert_int_equal(receive(), HULL_FRAME_STDOUT);
	child = atoi(client.data);
	assert_true(is_alive(leader) && is_alive(child));
	close_fd(client.fd);
	gone(leader);
	gone(child);
}

static void what_a_program_leaves_behind_does_not_hold_up_its_end(void **state)
{
	pid_t child;

	shell(state, "sleep 1000 & echo $!");
	assert_int_equal(collected(), 0);
	child = atoi(out);
	assert_true(is_alive(child));
	kill(child, SIGKILL);
}

static void who_breaks_the_rules_is_cut_off(void **state)
{
	static const char fill[HULL_EXEC_WINDOW + 1];
	static const struct {
		uint8_t type;
		uint32_t len;
	} bad[] = {{HULL_FRAME_SPEC, 2}, {HULL_FRAME_SIGNAL, 0}, {HULL_FRAME_SIGNAL, 4}, {HULL_FRAME_RESIZE, 3},
		{HULL_FRAME_STDOUT, 1}, {99, 0}, {HULL_FRAME_STDIN, HULL_FRAME_MAX + 1}};
	pid_t pid;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		shell(state, "exec sleep 1000");
		pid = (pid_t)number();
		send_frame(bad[i].type, fill, bad[i].len);
		assert_int_equal(receive(), 0);
		close_fd(client.fd);
		gone(pid);
	}
	shell(state, "exec sleep 1000"); /* more than its credit */
	pid = (pid_t)number();
	for (int i = 0; i < 3; i++) /* the first goes into the pipe, the second is held */
		send_frame(HULL_FRAME_STDIN, fill, HULL_EXEC_WINDOW);
	while (receive())
		;
	close_fd(client.fd);
	gone(pid);
	begin(state, "");
	close_fd(client.fd);
}

static void many_at_once_lose_nothing(void **state)
{
	enum { N = 40 };
	int fds[N];

	for (int i = 0; i < N; i++) {
		begin(state, "{\"command\": [\"sh\", \"-c\", \"head -c 1048576 /dev/zero; echo err >&2; exit 9\"]}");
		fds[i] = client.fd;
	}
	for (int i = 0; i < N; i++) {
		size_t n = 0;
		int type;

		client.fd = fds[i];
		assert_int_equal(receive(), HULL_FRAME_STARTED);
		while ((type = receive()) != HULL_FRAME_EXIT)
			n += type == HULL_FRAME_STDOUT ? client.len : 0;
		assert_int_equal(n, MIB);
		assert_int_equal(number(), 9);
		ended(client.fd);
	}
}

/* ---- the workload ---- */

static struct {
	char *argv[4];
	int log[2], ended[2]; /* pipes: its log; a byte, its status, once it has ended */
} workload;

static void on_workload_started(void *ctx, pid_t pid)
{
	(void)ctx;
	assert_true(pid > 0);
}

static void on_workload_ended(void *ctx, int status)
{
	uint8_t byte = (uint8_t)status;

	(void)ctx;
	assert_int_equal(write(workload.ended[1], &byte, 1), 1);
}

static void hold(void *ctx)
{
	struct fixture *f = ctx;
	struct held_workload held = {workload.log[1], on_workload_started, on_workload_ended, f};

	agent_hold_workload(f->agent, &held);
}

static void drop(void *ctx)
{
	agent_drop_workload(((struct fixture *)ctx)->agent);
}

/* A machine whose command is this script, waiting. */
static void hold_script(struct fixture *f, const char *script)
{
	if (geteuid() != 0)
		skip();
	workload.argv[0] = (char *)"sh";
	workload.argv[1] = (char *)"-c";
	workload.argv[2] = (char *)script;
	f->config.command = (struct json_strings){workload.argv, 3};
	assert_int_equal(pipe2(workload.log, O_CLOEXEC), 0);
	assert_int_equal(pipe2(workload.ended, O_CLOEXEC), 0);
	assert_int_equal(fcntl(workload.log[1], F_SETFL, O_NONBLOCK), 0);
	loop_post(f->loop, hold, f);
}

static void refused(void **state, const char *spec, const char *why)
{
	begin(state, spec);
	assert_int_equal(receive(), HULL_FRAME_REFUSED);
	if (!strstr(client.data, why))
		fail_msg("%s", client.data);
	ended(client.fd);
}

/* The next `len` bytes of its log, into `out`. */
static void read_log(size_t len)
{
	size_t n = 0;
	ssize_t got;

	while (n < len && (got = read(workload.log[0], out + n, len - n)) > 0)
		n += (size_t)got;
	assert_int_equal(n, len);
	out[n] = '\0';
}

static uint8_t status_at_its_end(void)
{
	uint8_t byte;

	assert_int_equal(read(workload.ended[0], &byte, 1), 1);
	assert_int_equal(read(workload.log[0], out, sizeof out), 0); /* nobody writes there any more */
	close_fd(workload.ended[0]);
	close_fd(workload.ended[1]);
	close_fd(workload.log[0]);
	return byte;
}

/* What is logged is what the client hears, and a log that is full makes both wait. */
static void a_workload_is_executed_once_and_logged(void **state)
{
	enum { BYTES = 1000000 };
	size_t n = 0;
	int type;

	hold_script(*state, "head -c 1000000 /dev/zero; read x; echo $x >&2; exit 7");
	refused(state, "{\"workload\": true, \"command\": [\"true\"]}", "another command");
	refused(state, "{\"workload\": true, \"user\": \"root\"}", "has its own");
	refused(state, "{}", "is required");
	refused(state, "{\"workload\": true, \"tty\": true, \"rows\": -1}", "rows");
	started(state, "{\"workload\": true}");
	while (n < BYTES / 2) {
		assert_int_equal(receive(), HULL_FRAME_STDOUT);
		read_log(client.len);
		n += client.len;
	}
	while (n < BYTES) {
		assert_int_equal(receive(), HULL_FRAME_STDOUT);
		n += client.len;
		read_log(client.len);
	}
	send_frame(HULL_FRAME_STDIN, "mine\n", 5);
	while ((type = receive()) == HULL_FRAME_CREDIT)
		;
	assert_int_equal(type, HULL_FRAME_STDERR);
	assert_string_equal(client.data, "mine\n");
	read_log(5);
	assert_string_equal(out, "mine\n");
	assert_int_equal(receive(), HULL_FRAME_EXIT);
	assert_int_equal(number(), 7);
	close_fd(client.fd); /* until then it has not ended for the machine */
	assert_int_equal(status_at_its_end(), 7);
	refused(state, "{\"workload\": true}", "does not wait");
}

static void a_workload_goes_on_without_its_client(void **state)
{
	hold_script(*state, "read x; echo got $x; cat; echo done; exit 5");
	started(state, "{\"workload\": true}");
	send_frame(HULL_FRAME_STDIN, "this\n", 5);
	close_fd(client.fd);
	read_log(14);
	assert_string_equal(out, "got this\ndone\n");
	assert_int_equal(status_at_its_end(), 5);
}

static void a_workload_that_was_taken_back_is_not_executed(void **state)
{
	struct fixture *f = *state;

	hold_script(f, "true");
	loop_post(f->loop, drop, f);
	refused(state, "{\"workload\": true}", "does not wait");
	assert_int_equal(read(workload.log[0], out, 1), 0);
	close_fd(workload.log[0]);
	close_fd(workload.ended[0]);
	close_fd(workload.ended[1]);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(output_error_and_status_are_apart),
		CASE(environment_user_and_folder_are_what_was_asked_for),
		CASE(input_is_given_as_it_is_read),
		CASE(a_client_that_takes_its_time_loses_nothing),
		CASE(a_signal_does_not_wait_behind_input_that_nobody_reads),
		CASE(input_that_is_not_wanted_is_dropped),
		CASE(what_cannot_be_executed_ends_as_in_a_shell),
		CASE(what_cannot_be_begun_is_refused_with_its_field),
		CASE(a_terminal_has_a_size_and_a_ctrl_c),
		CASE(a_terminals_last_words_are_not_lost),
		CASE(a_program_ends_with_its_client),
		CASE(what_a_program_leaves_behind_does_not_hold_up_its_end),
		CASE(who_breaks_the_rules_is_cut_off),
		CASE(many_at_once_lose_nothing),
		CASE(a_workload_is_executed_once_and_logged),
		CASE(a_workload_goes_on_without_its_client),
		CASE(a_workload_that_was_taken_back_is_not_executed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
