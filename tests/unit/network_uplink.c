/* Frames between a network's uplink and passt: a packet socket stands for the tap, the other end of the stream for passt. */
#include "tests/unit/test.h"

#include "api/network/uplink.h"
#include "common/checked.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct world {
	struct uplink *uplink;
	int tap, passt; /* the far ends */
};

static void pair(int type, int ret[2])
{
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret), 0);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	int tap[2], stream[2];

	pair(SOCK_SEQPACKET, tap);
	pair(SOCK_STREAM, stream);
	w->uplink = calloc(1, sizeof(*w->uplink));
	*w->uplink = (struct uplink){.tap = tap[0], .stream = -1};
	uplink_connect(w->uplink, stream[0]);
	w->tap = tap[1];
	w->passt = stream[1];
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	uplink_connect(w->uplink, -1);
	close(w->uplink->tap);
	close(w->tap);
	close(w->passt);
	free(w->uplink);
	free(w);
	return 0;
}

static void send_to_network(const struct world *w, uint32_t length, const char *frame)
{
	uint32_t head = htobe32(length);

	assert_int_equal(write(w->passt, &head, sizeof(head)), sizeof(head));
	assert_int_equal(write(w->passt, frame, strlen(frame)), strlen(frame));
}

static void frames_go_out_behind_their_length(void **state)
{
	struct world *w = *state;
	char got[32];

	assert_int_equal(write(w->tap, "first", 5), 5);
	assert_int_equal(write(w->tap, "second", 6), 6);
	assert_int_equal(uplink_tap_events(w->uplink), POLLIN);
	uplink_from_tap(w->uplink);
	assert_int_equal(read(w->passt, got, sizeof(got)), 19);
	assert_memory_equal(got, "\0\0\0\5first\0\0\0\6second", 19);
}

static void frames_come_in_whole_however_the_stream_is_cut(void **state)
{
	struct world *w = *state;
	char got[32];

	send_to_network(w, 5, "fir");
	uplink_on_stream(w->uplink, POLLIN);
	assert_int_equal(read(w->tap, got, sizeof(got)), -1);
	assert_int_equal(write(w->passt, "st\0\0", 4), 4);
	uplink_on_stream(w->uplink, POLLIN);
	assert_int_equal(read(w->tap, got, sizeof(got)), 5);
	assert_memory_equal(got, "first", 5);
	assert_int_equal(write(w->passt, "\0\6second", 8), 8);
	uplink_on_stream(w->uplink, POLLIN);
	assert_int_equal(read(w->tap, got, sizeof(got)), 6);
	assert_memory_equal(got, "second", 6);
}

/* Nothing else is taken from the tap until the rest of a frame has gone; then they come in order, and whole. */
static void a_stream_that_is_full_holds_back_and_loses_no_half_frame(void **state)
{
	struct world *w = *state;
	size_t total = 0, frames = 0;
	char frame[1500], got[65536];
	ssize_t n;

	memset(frame, 'x', sizeof(frame));
	while (uplink_tap_events(w->uplink) && frames < 1000) {
		assert_int_equal(write(w->tap, frame, sizeof(frame)), sizeof(frame));
		uplink_from_tap(w->uplink);
		frames++;
	}
	assert_true(frames < 1000);
	assert_true(uplink_stream_events(w->uplink) & POLLOUT);
	for (;;) {
		n = read(w->passt, got, sizeof(got));
		if (n > 0)
			total += (size_t)n;
		else if (uplink_stream_events(w->uplink) & POLLOUT)
			uplink_on_stream(w->uplink, POLLOUT);
		else
			break;
	}
	assert_int_equal(total, frames * (sizeof(frame) + STREAM_FRAME_LENGTH_BYTES));
}

static void a_length_that_no_frame_has_is_the_end_of_the_stream(void **state)
{
	static const uint32_t lengths[] = {0, UPLINK_FRAME_MAX + 1, UINT32_MAX};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		int stream[2];

		send_to_network(w, lengths[i], "x");
		uplink_on_stream(w->uplink, POLLIN);
		assert_int_equal(w->uplink->stream, -1);
		close(w->passt);
		pair(SOCK_STREAM, stream);
		uplink_connect(w->uplink, stream[0]);
		w->passt = stream[1];
	}
}

/* What was half there of the last one is no beginning of the next's. */
static void another_passt_takes_the_place_of_one_that_has_gone(void **state)
{
	struct world *w = *state;
	int stream[2];
	char got[32];

	send_to_network(w, 10, "hal");
	uplink_on_stream(w->uplink, POLLIN);
	close(w->passt);
	uplink_on_stream(w->uplink, POLLIN | POLLHUP);
	assert_int_equal(w->uplink->stream, -1);
	assert_int_equal(write(w->tap, "lost", 4), 4);
	uplink_from_tap(w->uplink);
	pair(SOCK_STREAM, stream);
	w->passt = stream[1];
	uplink_connect(w->uplink, stream[0]);
	send_to_network(w, 5, "whole");
	uplink_on_stream(w->uplink, POLLIN);
	assert_int_equal(read(w->tap, got, sizeof(got)), 5);
	assert_memory_equal(got, "whole", 5);
	assert_int_equal(write(w->tap, "kept", 4), 4);
	uplink_from_tap(w->uplink);
	assert_int_equal(read(w->passt, got, sizeof(got)), 8);
	assert_memory_equal(got, "\0\0\0\4kept", 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frames_go_out_behind_their_length, set_up, tear_down),
		cmocka_unit_test_setup_teardown(frames_come_in_whole_however_the_stream_is_cut, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_stream_that_is_full_holds_back_and_loses_no_half_frame, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_length_that_no_frame_has_is_the_end_of_the_stream, set_up, tear_down),
		cmocka_unit_test_setup_teardown(another_passt_takes_the_place_of_one_that_has_gone, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
