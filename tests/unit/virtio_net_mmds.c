/* virtio-net with somebody who answers before the back-end: a stand-in that shows what the device does, and MMDS itself. */
#include "tests/unit/mmds_guest.h"
#include "tests/unit/net_world.h"

#include <errno.h>

/* Takes frames whose first byte is 'i', and gives each back, when its delay is over. */
struct echo {
	struct net_interceptor interceptor;
	unsigned taken, resets;
	unsigned *freed;
	uint64_t delay_ns, due_ns; /* UINT64_MAX: nothing is due */
	bool checksum_due;
	uint8_t frame[NET_FRAME_MAX];
	size_t len;
};

static bool echo_wants(const struct net_interceptor *interceptor, const uint8_t *head, size_t len)
{
	(void)interceptor;
	assert_true(len <= NET_INTERCEPTOR_HEAD_BYTES);
	return len && head[0] == 'i';
}

static void echo_take(
	struct net_interceptor *interceptor, const uint8_t *frame, size_t len, bool checksum_due, uint64_t now_ns)
{
	struct echo *echo = (struct echo *)interceptor;

	memcpy(echo->frame, frame, len);
	echo->len = len;
	echo->due_ns = now_ns + echo->delay_ns;
	echo->checksum_due = checksum_due;
	echo->taken++;
}

static size_t echo_next(struct net_interceptor *interceptor, uint8_t *frame, uint64_t now_ns)
{
	struct echo *echo = (struct echo *)interceptor;

	if (echo->due_ns > now_ns)
		return 0;
	echo->due_ns = UINT64_MAX;
	memcpy(frame, echo->frame, echo->len);
	return echo->len;
}

static uint64_t echo_delay_ns(const struct net_interceptor *interceptor, uint64_t now_ns)
{
	const struct echo *echo = (const struct echo *)interceptor;

	return echo->due_ns == UINT64_MAX ? UINT64_MAX : echo->due_ns > now_ns ? echo->due_ns - now_ns : 0;
}

static void echo_reset(struct net_interceptor *interceptor)
{
	struct echo *echo = (struct echo *)interceptor;

	echo->resets++;
	echo->due_ns = UINT64_MAX;
}

static void echo_free(struct net_interceptor *interceptor)
{
	(*((struct echo *)interceptor)->freed)++;
	free(interceptor);
}

static const struct net_interceptor_ops echo_ops = {echo_wants, echo_take, echo_next, echo_delay_ns, echo_reset, echo_free};
static unsigned echoes_freed;

static struct echo *echo_new(void)
{
	struct echo *echo = calloc(1, sizeof(*echo));

	echo->interceptor.ops = &echo_ops;
	echo->due_ns = UINT64_MAX;
	echo->freed = &echoes_freed;
	return echo;
}

/* The device, with the stand-in, and these limits. */
static struct echo *make(struct world *w, const struct rate_limiter_config *rx, const struct rate_limiter_config *tx)
{
	struct echo *echo = echo_new();
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	w->peer = fds[1];
	w->interceptor = &echo->interceptor;
	w->rx_limiter = rx;
	w->tx_limiter = tx;
	world_make_device(w, NET_BACKEND_STREAM, fds[0]);
	return echo;
}

static int setup_world(void **state)
{
	*state = world_new();
	return 0;
}

static void fill_taken(uint8_t *frame, size_t len, unsigned seed)
{
	fill_frame(frame, len, seed);
	frame[0] = 'i';
}

static bool peer_has_nothing(struct world *w)
{
	char c;

	return recv(w->peer, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void its_frames_do_not_reach_the_back_end(void **state)
{
	struct world *w = *state;
	struct echo *echo = make(w, NULL, NULL);
	uint8_t ours[3000], theirs[3000];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (unsigned i = 0; i < 200; i++) {
		size_t len = 14 + i * 14; /* shorter and longer than what is looked at */

		fill_taken(ours, len, i);
		fill_frame(theirs, len, i + 1);
		guest_sends(w, ours, len + (len == 14));
		guest_expects(w, ours, len + (len == 14));
		assert_true(peer_has_nothing(w));
		guest_sends(w, theirs, len + (len == 14));
		peer_expects(w, theirs, len + (len == 14));
		peer_sends(w, theirs, len);
		guest_expects(w, theirs, len);
	}
	assert_int_equal(echo->taken, 200);
	assert_int_equal(virtio_net_metrics(w->dev)->tx_count, 200);
	assert_int_equal(virtio_net_metrics(w->dev)->rx_count, 400);
	assert_int_equal(tx_done(w), 400);
}

static void its_answers_wait_for_buffers(void **state)
{
	struct world *w = *state;
	uint8_t frame[3000];

	make(w, NULL, NULL);
	world_start(w, MERGED, 1, RX_BYTES);
	fill_taken(frame, sizeof(frame), 1);
	guest_sends(w, frame, sizeof(frame));
	driver_run_rounds(&w->driver, 3);
	assert_false(driver_queue_has_used(&w->q[RX]));
	post_rx(w, guest_alloc(&w->guest, RX_BYTES, 16), RX_BYTES);
	driver_kick(&w->driver, RX);
	guest_expects(w, frame, sizeof(frame));
}

/* Without a receive buffer, and with one due only later, nothing spins. */
static void it_is_called_when_its_time_has_come(void **state)
{
	struct world *w = *state;
	struct echo *echo = make(w, NULL, NULL);
	uint8_t frame[100];
	uint64_t begun_ns;

	echo->delay_ns = 30000000;
	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_taken(frame, sizeof(frame), 1);
	begun_ns = monotonic_ns();
	guest_sends(w, frame, sizeof(frame));
	driver_run_rounds(&w->driver, 3);
	assert_false(driver_queue_has_used(&w->q[RX]));
	guest_expects(w, frame, sizeof(frame));
	assert_true(monotonic_ns() - begun_ns >= echo->delay_ns);
}

static void it_answers_without_a_back_end(void **state)
{
	struct world *w = *state;
	uint8_t frame[100];

	make(w, NULL, NULL);
	world_start(w, MERGED, QSIZE, RX_BYTES);
	w->peer = close_fd(w->peer);
	driver_run_rounds(&w->driver, 3);
	assert_int_equal(link_status(w), 0);
	fill_taken(frame, sizeof(frame), 1);
	guest_sends(w, frame, sizeof(frame));
	guest_expects(w, frame, sizeof(frame));
}

/* As Firecracker counts: what is sent to it is not the back-end's, what comes from it is the guest's all the same. */
static void limits_count_what_it_says_and_not_what_it_hears(void **state)
{
	struct token_bucket_config few = {.size = 2, .refill_time = 1000000000};
	struct rate_limiter_config limit = {.ops = &few};
	struct world *w = *state;
	uint8_t ours[100], theirs[100];

	make(w, &limit, &limit);
	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_taken(ours, sizeof(ours), 1);
	fill_frame(theirs, sizeof(theirs), 2);
	for (int i = 0; i < 20; i++) {
		guest_sends(w, ours, sizeof(ours));
		driver_run_rounds(&w->driver, 2);
	}
	assert_int_equal(tx_done(w), 20);
	assert_int_equal(virtio_net_metrics(w->dev)->tx_rate_limiter_throttled, 0);
	assert_int_equal(virtio_net_metrics(w->dev)->rx_count, 2);
	assert_true(virtio_net_metrics(w->dev)->rx_rate_limiter_throttled > 0);
	/* The back-end's wait, and then those behind them. */
	for (int i = 0; i < 3; i++)
		guest_sends(w, theirs, sizeof(theirs));
	guest_sends(w, ours, sizeof(ours));
	driver_run_rounds(&w->driver, 2);
	assert_int_equal(tx_done(w), 2);
	virtio_net_set_limiters(w->dev, &(struct rate_limiter_config){.ops = &(struct token_bucket_config){0}},
		&(struct rate_limiter_config){.ops = &(struct token_bucket_config){0}});
	driver_run_rounds(&w->driver, 3);
	assert_int_equal(tx_done(w), 2);
}

static void a_malformed_frame_is_not_shown_to_it(void **state)
{
	struct world *w = *state;
	struct echo *echo = make(w, NULL, NULL);
	uint8_t frame[100];

	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_taken(frame, sizeof(frame), 1);
	guest_sends_with(w, &(struct net_header){.flags = NET_HEADER_NEEDS_CSUM}, frame, sizeof(frame));
	guest_sends_with(w, &(struct net_header){.gso_type = NET_GSO_TCPV4}, frame, sizeof(frame));
	driver_run_rounds(&w->driver, 2);
	assert_int_equal(echo->taken, 0);
	assert_int_equal(tx_done(w), 2);
}

static void it_hears_of_a_reset(void **state)
{
	struct world *w = *state;
	struct echo *echo = make(w, NULL, NULL);
	uint8_t frame[100];

	echo->delay_ns = 3600000000000;
	world_start(w, MERGED, QSIZE, RX_BYTES);
	fill_taken(frame, sizeof(frame), 1);
	guest_sends(w, frame, sizeof(frame));
	driver_run_rounds(&w->driver, 2);
	assert_int_equal(echo->taken, 1);
	driver_reset(&w->driver);
	assert_int_equal(echo->resets, 1);
	assert_int_equal(echo->due_ns, UINT64_MAX);
}

static void it_is_freed_whatever_happens(void **state)
{
	struct world *w = *state;
	struct virtio_net_config config = {.id = "net0", .kind = NET_BACKEND_STREAM, .fds = {-1}};
	struct error err = {0};

	echoes_freed = 0;
	config.interceptor = &echo_new()->interceptor;
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err)); /* no address */
	assert_string_equal(err.field, "guest_mac");
	assert_int_equal(echoes_freed, 1);
	config.mac[0] = 2;
	config.interceptor = &echo_new()->interceptor;
	assert_null(virtio_net_new(&config, w->loop, &w->guest.mem, &err)); /* no back-end */
	assert_int_equal(echoes_freed, 2);
	make(w, NULL, NULL);
	driver_done(&w->driver);
	virtio_dev_free(w->dev);
	w->dev = NULL;
	assert_int_equal(echoes_freed, 3);
}

/* ---- MMDS itself ---- */

static void make_with_mmds(struct world *w, struct mmds *mmds)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	w->peer = fds[1];
	w->interceptor = mmds_stack_new(mmds);
	world_make_device(w, NET_BACKEND_STREAM, fds[0]);
}

/* Sends a segment by the device's rings, and gets the next one. */
static struct tcp_segment exchange(struct world *w, struct client *c, uint8_t flags, const char *text)
{
	uint8_t frame[NET_FRAME_MAX];
	struct net_header header;
	struct mmds_world view;

	guest_sends(w, frame, make_segment(frame, c, c->seq, flags, text, strlen(text)));
	c->seq += (uint32_t)strlen(text) + !!(flags & TCP_SYN);
	view.frame_len = guest_receives(w, view.frame, &header);
	assert_int_equal(header.flags, 0); /* all checksums are in it */
	return received_segment(&view);
}

static void saved_in_mid_conversation_the_guest_asks_again(void **state)
{
	struct world *w = *state;
	struct mmds *mmds = mmds_new("vm-1", LIMIT, NULL);
	struct client c = {.ip = GUEST_IP, .port = 1000, .seq = 7, .window = 65535};
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};
	json_t *data = json_pack("{s:s}", "a", "one");

	assert_int_equal(mmds_store_put(&mmds->store, data, NULL), 0);
	json_decref(data);
	make_with_mmds(w, mmds);
	world_start(w, MERGED, QSIZE, RX_BYTES);
	c.ack = exchange(w, &c, TCP_SYN, "").seq + 1;
	exchange(w, &c, TCP_ACK, "GET /a HT"); /* the middle of it */
	virtio_dev_quiesce(w->dev);
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	driver_done(&w->driver);
	virtio_dev_free(w->dev);
	close(w->peer);
	assert_int_equal(mmds->metrics.connections_destroyed, 1);

	make_with_mmds(w, mmds);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(virtio_dev_load(w->dev, &reader, &err), 0);
	state_writer_done(&writer);
	virtio_dev_resume(w->dev);
	/* What goes on with the old connection is told that there is none; a new one is as good as ever. */
	assert_true(exchange(w, &c, TCP_ACK, "TP/1.1\r\n\r\n").flags & TCP_RST);
	c = (struct client){.ip = GUEST_IP, .port = 1001, .seq = 9, .window = 65535};
	c.ack = exchange(w, &c, TCP_SYN, "").seq + 1;
	assert_true(memmem(exchange(w, &c, TCP_ACK, "GET /a HTTP/1.1\r\n\r\n").data, 200, "one", 3) != NULL);
	driver_done(&w->driver);
	virtio_dev_free(w->dev);
	w->dev = NULL;
	mmds_free(mmds);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup_world, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(its_frames_do_not_reach_the_back_end),
		CASE(its_answers_wait_for_buffers),
		CASE(it_is_called_when_its_time_has_come),
		CASE(it_answers_without_a_back_end),
		CASE(limits_count_what_it_says_and_not_what_it_hears),
		CASE(a_malformed_frame_is_not_shown_to_it),
		CASE(it_hears_of_a_reset),
		CASE(it_is_freed_whatever_happens),
		CASE(saved_in_mid_conversation_the_guest_asks_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
