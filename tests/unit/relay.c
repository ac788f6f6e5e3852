/* Streams copied both ways: nothing lost, nothing held without bound, ends passed on. */
#include "tests/unit/test.h"

#include "common/relay.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#define DEADLINE_NS (20ull * 1000000000)

struct fixture {
	struct loop *loop;
	struct relay *relay;
	struct loop_source *deadline;
	int a, b; /* the ends that a client and a server would hold; blocking */
	int done;
};

static void on_done(void *ctx)
{
	struct fixture *f = ctx;

	f->done++;
	relay_free(f->relay);
	f->relay = NULL;
	loop_stop(f->loop);
}

static void on_deadline(void *ctx)
{
	struct fixture *f = ctx;

	loop_stop(f->loop);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	int left[2], right[2];

	f->loop = loop_new();
	f->deadline = loop_add_timer(f->loop, on_deadline, f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, left), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, right), 0);
	f->a = left[0];
	f->b = right[0];
	f->relay = relay_new(f->loop, left[1], right[1], on_done, f);
	assert_non_null(f->relay);
	loop_timer_arm(f->deadline, DEADLINE_NS);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	relay_free(f->relay);
	loop_free(f->loop);
	close_fd(f->a);
	close_fd(f->b);
	free(f);
	return 0;
}

#define FLOOD_BYTES (8u << 20)

static unsigned char pattern(size_t at)
{
	return (unsigned char)(at * 31 + (at >> 12));
}

static void *send_flood(void *arg)
{
	struct fixture *f = arg;
	unsigned char chunk[4096];

	for (size_t at = 0; at < FLOOD_BYTES; at += sizeof chunk) {
		for (size_t i = 0; i < sizeof chunk; i++)
			chunk[i] = pattern(at + i);
		if (send(f->a, chunk, sizeof chunk, MSG_NOSIGNAL) != (ssize_t)sizeof chunk)
			return "send";
	}
	shutdown(f->a, SHUT_WR);
	return NULL;
}

/* Reads the flood, then says one byte back and closes: only then has the relay ended. */
static void *read_flood(void *arg)
{
	struct fixture *f = arg;
	unsigned char chunk[10007];
	size_t at = 0;
	ssize_t n;

	while ((n = recv(f->b, chunk, sizeof chunk, 0)) > 0)
		for (ssize_t i = 0; i < n; i++)
			if (chunk[i] != pattern(at++))
				return "wrong byte";
	if (at != FLOOD_BYTES)
		return "wrong length";
	if (send(f->b, "!", 1, MSG_NOSIGNAL) != 1)
		return "cannot answer after the other side's end";
	shutdown(f->b, SHUT_WR);
	return NULL;
}

static void a_flood_arrives_whole_and_half_close_is_passed_on(void **state)
{
	struct fixture *f = *state;
	pthread_t sender, reader;
	void *wrong;
	char byte;

	pthread_create(&sender, NULL, send_flood, f);
	pthread_create(&reader, NULL, read_flood, f);
	loop_run(f->loop);
	assert_int_equal(f->done, 1);
	pthread_join(sender, &wrong);
	assert_null(wrong);
	pthread_join(reader, &wrong);
	assert_null(wrong);
	assert_int_equal(recv(f->a, &byte, 1, 0), 1);
	assert_int_equal(byte, '!');
	assert_int_equal(recv(f->a, &byte, 1, 0), 0);
}

static void a_reader_that_reads_nothing_stops_the_sender(void **state)
{
	struct fixture *f = *state;
	char chunk[65536] = {0};
	size_t sent = 0, before;
	ssize_t n;

	/* Until a round of the loop makes no more room. */
	do {
		before = sent;
		while ((n = send(f->a, chunk, sizeof chunk, MSG_DONTWAIT)) > 0)
			sent += (size_t)n;
		loop_timer_arm(f->deadline, 50 * 1000000ull);
		loop_run(f->loop);
	} while (sent != before);
	assert_true(sent < 4u << 20); /* two sockets' buffers and the relay's */
	assert_int_equal(f->done, 0);
}

static void a_reader_that_leaves_ends_the_relay(void **state)
{
	struct fixture *f = *state;
	char chunk[65536] = {0};

	f->b = close_fd(f->b);
	send(f->a, chunk, sizeof chunk, MSG_DONTWAIT);
	shutdown(f->a, SHUT_WR);
	loop_run(f->loop);
	assert_int_equal(f->done, 1);
}

static void what_a_side_said_before_it_left_is_delivered(void **state)
{
	struct fixture *f = *state;
	char text[16] = {0};

	assert_int_equal(send(f->b, "last words", 10, 0), 10);
	f->b = close_fd(f->b);
	shutdown(f->a, SHUT_WR);
	loop_run(f->loop);
	assert_int_equal(f->done, 1);
	assert_int_equal(recv(f->a, text, sizeof text, 0), 10);
	assert_string_equal(text, "last words");
}

static void both_ends_at_once_end_it_once(void **state)
{
	struct fixture *f = *state;

	f->a = close_fd(f->a);
	f->b = close_fd(f->b);
	loop_run(f->loop);
	assert_int_equal(f->done, 1);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(a_flood_arrives_whole_and_half_close_is_passed_on),
		CASE(a_reader_that_reads_nothing_stops_the_sender),
		CASE(a_reader_that_leaves_ends_the_relay),
		CASE(what_a_side_said_before_it_left_is_delivered),
		CASE(both_ends_at_once_end_it_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
