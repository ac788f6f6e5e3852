/* Frames in and frames out: what MMDS takes for its own, and how its TCP behaves towards guests good and bad. */
#include "tests/unit/mmds_guest.h"

#define GET(p) "GET " p " HTTP/1.1\r\n\r\n"

static const struct mmds_metrics *counts(const struct mmds_world *w)
{
	return &w->mmds->metrics;
}

/* A string value of that length at /big. */
static void put_big(struct mmds_world *w, size_t len)
{
	char *text = malloc(len + 16);
	size_t at = (size_t)sprintf(text, "{\"big\":\"");

	for (size_t i = 0; i < len; i++)
		text[at++] = (char)('a' + i % 23);
	strcpy(text + at, "\"}");
	put_data(w, text);
	free(text);
}

static void is_big(const char *answer, size_t len)
{
	const char *body = strstr(answer, "\r\n\r\n") + 4;

	assert_int_equal(strlen(body), len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(body[i], 'a' + i % 23);
}

/* ---- frames ---- */

static size_t make_arp(uint8_t *frame, uint16_t operation, uint32_t target)
{
	static const uint8_t head[] = {0, 1, 8, 0, 6, 4};

	memset(frame, 0xff, 6);
	memcpy(frame + 6, guest_mac, 6);
	net_put_16(frame + 12, 0x0806);
	memcpy(frame + 14, head, 6);
	net_put_16(frame + 20, operation);
	memcpy(frame + 22, guest_mac, 6);
	net_put_32(frame + 28, GUEST_IP);
	memset(frame + 32, 0, 6);
	net_put_32(frame + 38, target);
	return 42;
}

static void its_hardware_address_is_told(void **state)
{
	struct mmds_world *w = *state;
	uint8_t frame[64], want[42];
	size_t len = make_arp(frame, 1, MMDS_ADDRESS_DEFAULT);

	assert_true(sends(w, frame, len, false));
	assert_int_equal(receives(w), 42);
	memcpy(want, guest_mac, 6);
	memcpy(want + 6, mmds_mac, 6);
	memcpy(want + 12, frame + 12, 8);
	net_put_16(want + 20, 2);
	memcpy(want + 22, mmds_mac, 6);
	net_put_32(want + 28, MMDS_ADDRESS_DEFAULT);
	memcpy(want + 32, guest_mac, 6);
	net_put_32(want + 38, GUEST_IP);
	assert_memory_equal(w->frame, want, 42);
	expects_nothing(w);
	/* Padding changes nothing. */
	assert_true(sends(w, frame, 60, false));
	assert_int_equal(receives(w), 42);
}

static void what_is_not_addressed_to_it_is_left_alone(void **state)
{
	struct mmds_world *w = *state;
	uint8_t frame[100] = {0}, payload[40] = {0};
	size_t len;

	make_arp(frame, 1, MMDS_ADDRESS_DEFAULT + 1);
	assert_false(sends(w, frame, 42, false));
	make_arp(frame, 1, MMDS_ADDRESS_DEFAULT);
	for (len = 0; len < 42; len++)
		assert_false(sends(w, frame, len, false));
	len = make_packet(frame, GUEST_IP, 6, payload, sizeof(payload));
	for (size_t i = 0; i < 34; i++)
		assert_false(sends(w, frame, i, false));
	net_put_32(frame + 30, MMDS_ADDRESS_DEFAULT ^ 1);
	assert_false(sends(w, frame, len, false));
	net_put_32(frame + 30, MMDS_ADDRESS_DEFAULT);
	net_put_16(frame + 12, 0x86dd); /* IPv6 */
	assert_false(sends(w, frame, len, false));
	net_put_16(frame + 12, 0x8100); /* a tag */
	assert_false(sends(w, frame, len, false));
	assert_int_equal(counts(w)->rx_accepted, 0);
	/* Another address than the default one. */
	w->mmds->address = MMDS_ADDRESS_DEFAULT ^ 1;
	net_put_16(frame + 12, 0x0800);
	assert_false(sends(w, frame, len, false));
	net_put_32(frame + 30, MMDS_ADDRESS_DEFAULT ^ 1);
	assert_true(sends(w, frame, len, false));
}

/* What is ours and wrong is taken, so that no network sees it, and leads to nothing. */
static void malformed_frames_are_swallowed(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	uint8_t good[200], frame[200];
	size_t len = make_segment(good, &c, 1, TCP_SYN, NULL, 0);
	static const struct {
		size_t at;
		uint8_t value;
	} bad[] = {
		{14, 0x55}, /* version */
		{14, 0x44}, /* header of 16 bytes */
		{14, 0x4f}, /* of 60 */
		{16, 0xff}, /* longer than the frame */
		{17, 19},   /* shorter than its header */
		{24, 0x12}, /* checksum */
		{26, 10},   /* source address; so is the checksum */
		{50, 0x12}, /* TCP's checksum */
		{46, 0x40}, /* TCP's header of 16 bytes */
		{46, 0xf0}, /* of 60 */
	};
	static const uint8_t bad_sources[][4] = {{0, 0, 0, 1}, {224, 0, 0, 1}, {255, 255, 255, 255}};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(frame, good, len);
		frame[bad[i].at] = bad[i].value;
		assert_true(sends(w, frame, len, false));
		assert_int_equal(counts(w)->rx_accepted_err, i + 1);
		expects_nothing(w);
	}
	memcpy(frame, good, len);
	frame[6] |= 1; /* from a group */
	assert_true(sends(w, frame, len, false));
	assert_int_equal(counts(w)->rx_bad_eth, 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad_sources); i++) {
		c.ip = net_get_32(bad_sources[i]);
		len = make_segment(frame, &c, 1, TCP_SYN, NULL, 0);
		assert_true(sends(w, frame, len, false));
	}
	len = make_packet(frame, GUEST_IP, 1, (const uint8_t *)"ping....", 8);
	assert_true(sends(w, frame, len, false)); /* not TCP */
	len = make_packet(frame, GUEST_IP, 6, good + 34, 20);
	net_put_16(frame + 14 + 6, 0x2000); /* a fragment */
	net_put_16(frame + 14 + 10, 0);
	net_put_16(frame + 14 + 10, (uint16_t)~sum_of(0, frame + 14, 20));
	assert_true(sends(w, frame, len, false));
	make_arp(frame, 2, MMDS_ADDRESS_DEFAULT); /* an answer */
	assert_true(sends(w, frame, 42, false));
	assert_int_equal(counts(w)->rx_accepted_unusual, 6);
	make_arp(frame, 1, MMDS_ADDRESS_DEFAULT);
	frame[18] = 8; /* no Ethernet */
	assert_true(sends(w, frame, 42, false));
	expects_nothing(w);
	assert_int_equal(counts(w)->connections_created, 0);
}

static void a_checksum_may_be_left_to_the_device(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	uint8_t frame[100];
	size_t len = make_segment(frame, &c, 1, TCP_SYN, NULL, 0);

	frame[50] ^= 1;
	assert_true(sends(w, frame, len, true));
	assert_int_equal(expects_segment(w).flags, TCP_SYN | TCP_ACK);
}

/* ---- a connection's life ---- */

static void a_request_is_answered(void **state)
{
	struct mmds_world *w = *state;
	uint64_t frames;

	put_data(w, "{\"a\":{\"b\":\"value\"}}");
	answers(w, GET("/a/b"), 200, "value");
	answers(w, GET("/a"), 200, "b");
	answers(w, GET("/"), 200, "a/");
	answers(w, GET("/x"), 404, "Resource not found: /x.");
	answers(w, "GET /a/b HTTP/1.0\r\n\r\n", 200, "value");
	assert_int_equal(counts(w)->connections_created, 5);
	assert_int_equal(counts(w)->connections_destroyed, 5);
	frames = counts(w)->tx_frames;
	assert_true(frames >= 5 * 2 && counts(w)->tx_count == frames && counts(w)->tx_bytes > 54 * frames);
}

static void a_connection_is_used_again(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	char *text;

	put_data(w, "{\"a\":\"one\"}");
	connects(&c);
	for (int i = 0; i < 100; i++) {
		text = asks(&c, GET("/a"));
		assert_non_null(strstr(text, "\r\n\r\none"));
		free(text);
	}
	/* Requests sent ahead are answered in turn. */
	text = asks(&c, GET("/a") GET("/b") GET("/a"));
	assert_non_null(strstr(strstr(strstr(text, "one"), "not found"), "one"));
	free(text);
	assert_int_equal(counts(w)->connections_created, 1);
	assert_int_equal(w->stack->ops->delay_ns(w->stack, w->now_ns), UINT64_MAX); /* idle: nobody is woken */
	sends_segment(&c, c.seq, TCP_FIN | TCP_ACK, NULL, 0);
	assert_int_equal(expects_segment(w).flags, TCP_FIN | TCP_ACK);
	c.ack++;
	sends_segment(&c, c.seq + 1, TCP_ACK, NULL, 0);
	expects_nothing(w);
	assert_int_equal(counts(w)->connections_destroyed, 1);
}

static void a_request_comes_byte_by_byte(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	char text[1000] = "", byte[2] = "";

	put_data(w, "{\"a\":\"one\"}");
	connects(&c);
	for (const char *at = GET("/a"); *at; at++) {
		byte[0] = *at;
		assert_string_equal(text, "");
		says(&c, byte);
		hears(&c, text, sizeof(text));
	}
	assert_non_null(strstr(text, "one"));
}

/* Firefox and wget close when they have got all; Go's client says so before; a shell's nc half-closes at once. */
static void either_side_may_close_first(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	char text[1000] = "";

	put_data(w, "{\"a\":\"one\"}");
	/* The guest, with its request. */
	connects(&c);
	sends_segment(&c, c.seq, TCP_ACK | TCP_FIN, GET("/a"), strlen(GET("/a")));
	c.seq += strlen(GET("/a")) + 1;
	hears(&c, text, sizeof(text));
	assert_non_null(strstr(text, "one"));
	assert_true(c.finished);
	/* The guest, in the middle of one. */
	c = client_new(w, 1001);
	connects(&c);
	says(&c, "GET /");
	*text = '\0';
	hears(&c, text, sizeof(text));
	sends_segment(&c, c.seq++, TCP_ACK | TCP_FIN, NULL, 0);
	hears(&c, text, sizeof(text));
	assert_string_equal(text, "");
	assert_true(c.finished);
	/* The server; the guest's end comes later. */
	c = client_new(w, 1002);
	connects(&c);
	free(asks(&c, "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"));
	assert_true(c.finished);
	says(&c, "more"); /* nobody reads it, and it is acknowledged */
	assert_int_equal(expects_segment(w).ack, c.seq);
	assert_int_equal(w->stack->ops->delay_ns(w->stack, w->now_ns), UINT64_MAX);
	sends_segment(&c, c.seq++, TCP_ACK | TCP_FIN, NULL, 0);
	assert_int_equal(expects_segment(w).ack, c.seq);
	assert_int_equal(counts(w)->connections_created, 3);
	assert_int_equal(counts(w)->connections_destroyed, 3);
	/* Whoever says it again is told that there is nobody. */
	sends_segment(&c, c.seq - 1, TCP_ACK | TCP_FIN, NULL, 0);
	assert_true(expects_segment(w).flags & TCP_RST);
}

static void a_reset_ends_a_connection(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);

	connects(&c);
	sends_segment(&c, c.seq + 100, TCP_RST, NULL, 0); /* about right: may be somebody else's (RFC 5961) */
	assert_int_equal(expects_segment(w).flags, TCP_ACK);
	sends_segment(&c, c.seq - 100, TCP_RST, NULL, 0); /* old */
	expects_nothing(w);
	assert_int_equal(counts(w)->connections_destroyed, 0);
	sends_segment(&c, c.seq, TCP_RST, NULL, 0);
	expects_nothing(w);
	assert_int_equal(counts(w)->connections_destroyed, 1);
}

static void strays_are_reset(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	struct tcp_segment s;
	uint8_t frame[100];
	size_t len;

	c.ack = 77;
	sends_segment(&c, 500, TCP_ACK, "abc", 3);
	s = expects_segment(w);
	assert_int_equal(s.flags, TCP_RST);
	assert_int_equal(s.seq, 77);
	sends_segment(&c, 500, TCP_FIN, "abc", 3);
	s = expects_segment(w);
	assert_int_equal(s.flags, TCP_RST | TCP_ACK);
	assert_int_equal(s.ack, 504);
	sends_segment(&c, 500, TCP_SYN | TCP_ACK, NULL, 0);
	assert_int_equal(expects_segment(w).flags, TCP_RST);
	sends_segment(&c, 500, TCP_RST, NULL, 0);
	expects_nothing(w);
	/* Nobody listens on another port. */
	len = make_segment(frame, &c, 500, TCP_SYN, NULL, 0);
	net_put_16(frame + 36, 443);
	assert_true(sends(w, frame, len, true));
	s = expects_segment(w);
	assert_int_equal(s.flags, TCP_RST | TCP_ACK);
	assert_int_equal(s.source_port, 443);
	assert_int_equal(s.ack, 501);
	/* A storm of them is answered as far as there is room. */
	for (int i = 0; i < 1000; i++)
		sends_segment(&c, 500, TCP_ACK, NULL, 0);
	for (int i = 0; i < MMDS_TCP_RESETS; i++)
		assert_true(expects_segment(w).flags & TCP_RST);
	expects_nothing(w);
	assert_int_equal(counts(w)->connections_created, 0);
}

static void a_handshake_that_goes_wrong_is_reset(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	struct tcp_segment s;

	sends_segment(&c, c.seq++, TCP_SYN, NULL, 0);
	c.ack = 5;
	sends_segment(&c, c.seq, TCP_ACK, NULL, 0); /* before our SYN was sent */
	s = expects_segment(w);
	assert_int_equal(s.flags, TCP_RST);
	assert_int_equal(s.seq, 5);
	expects_nothing(w);
	/* The same SYN again gets the same answer; another one a new connection. */
	c = client_new(w, 1001);
	sends_segment(&c, c.seq, TCP_SYN, NULL, 0);
	s = expects_segment(w);
	sends_segment(&c, c.seq, TCP_SYN, NULL, 0);
	assert_int_equal(expects_segment(w).seq, s.seq);
	connects(&c);
	c.seq += 100000;
	connects(&c);
	free(asks(&c, GET("/")));
	expects_nothing(w);
}

/* ---- flow, loss, order ---- */

static void a_long_answer_goes_in_segments_of_the_peers_size(void **state)
{
	static const uint8_t options[] = {1, 2, 4, 536 >> 8, 536 & 255, 1, 1, 0};
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	uint8_t frame[200], syn[28];
	struct tcp_segment s;
	size_t len, total = 0;

	put_big(w, 20000);
	make_segment(frame, &c, c.seq++, TCP_SYN, NULL, 0);
	memcpy(syn, frame + 34, 20);
	memcpy(syn + 20, options, sizeof(options));
	syn[12] = 7 << 4;
	len = make_packet(frame, GUEST_IP, 6, syn, sizeof(syn));
	assert_true(sends(w, frame, len, true));
	s = expects_segment(w);
	assert_int_equal(s.data[-4], 2); /* ours: 1460 */
	assert_int_equal(net_get_16(s.data - 2), 1460);
	c.ack = s.seq + 1;
	c.window = 4000;
	sends_segment(&c, c.seq, TCP_ACK, NULL, 0);
	says(&c, GET("/big"));
	/* Not more than the window, until it is acknowledged. */
	while (receives(w)) {
		s = received_segment(w);
		assert_true(s.len <= 536);
		assert_int_equal(s.seq, c.ack + total);
		total += s.len;
	}
	assert_int_equal(total, 4000);
	c.ack += 4000;
	sends_segment(&c, c.seq, TCP_ACK, NULL, 0);
	assert_int_equal(expects_segment(w).seq, c.ack);
}

static void options_that_lie_are_as_none(void **state)
{
	static const uint8_t lies[][8] = {{2, 0, 5, 180}, {2, 1, 5, 180}, {2, 9, 5, 180}, {2}, {1, 1, 1, 1, 1, 1, 1, 2},
		{2, 4, 0, 0}, {254, 3, 0, 2, 4, 0, 1}, {0, 2, 4, 0, 1}};
	struct mmds_world *w = *state;

	put_big(w, 3000);
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct client c = client_new(w, (uint16_t)(1000 + i));
		uint8_t frame[200], syn[28];
		struct tcp_segment s;
		size_t len;

		make_segment(frame, &c, c.seq++, TCP_SYN, NULL, 0);
		memcpy(syn, frame + 34, 20);
		memcpy(syn + 20, lies[i], 8);
		syn[12] = 7 << 4;
		len = make_packet(frame, GUEST_IP, 6, syn, sizeof(syn));
		assert_true(sends(w, frame, len, true));
		c.ack = expects_segment(w).seq + 1;
		sends_segment(&c, c.seq, TCP_ACK, NULL, 0);
		says(&c, GET("/big"));
		s = expects_segment(w);
		assert_int_equal(s.len, i == 6 ? 48 : 536);
		sends_segment(&c, c.seq, TCP_RST, NULL, 0);
	}
}

static void what_is_lost_is_sent_again(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	char *text = calloc(1, 4 * LIMIT);
	uint64_t delay_ns;
	size_t n = 0;

	put_big(w, 10000);
	/* The SYN. */
	sends_segment(&c, c.seq, TCP_SYN, NULL, 0);
	assert_int_equal(expects_segment(w).flags, TCP_SYN | TCP_ACK);
	delay_ns = w->stack->ops->delay_ns(w->stack, w->now_ns);
	assert_true(delay_ns > 100 * MS && delay_ns < 1000 * MS);
	w->now_ns += delay_ns - 1;
	expects_nothing(w);
	w->now_ns++;
	c.seq++;
	c.ack = expects_segment(w).seq + 1;
	sends_segment(&c, c.seq, TCP_ACK, NULL, 0);
	/* All of the answer. */
	says(&c, GET("/big"));
	while (receives(w))
		n++;
	assert_int_equal(n, 19); /* of 536 bytes: it has told us no other size */
	w->now_ns += w->stack->ops->delay_ns(w->stack, w->now_ns);
	hears(&c, text, 4 * LIMIT);
	is_big(text, 10000);
	assert_int_equal(w->stack->ops->delay_ns(w->stack, w->now_ns), UINT64_MAX);
	/* The last segment, and the FIN with it. */
	says(&c, "GET /x HTTP/1.0\r\n\r\n");
	assert_true(expects_segment(w).flags & TCP_FIN);
	w->now_ns += w->stack->ops->delay_ns(w->stack, w->now_ns);
	*text = '\0';
	hears(&c, text, 4 * LIMIT);
	assert_true(c.finished);
	assert_non_null(strstr(text, "not found"));
	free(text);
}

static void a_peer_that_falls_silent_is_given_up(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	uint64_t delay_ns, before_ns = 0, begun_ns;
	unsigned tries = 0;
	bool reset = false;

	put_data(w, "{\"a\":\"one\"}");
	connects(&c);
	says(&c, GET("/a"));
	expects_segment(w);
	begun_ns = w->now_ns;
	while (!reset) {
		delay_ns = w->stack->ops->delay_ns(w->stack, w->now_ns);
		assert_true(delay_ns >= before_ns && delay_ns <= 10000 * MS);
		before_ns = delay_ns;
		w->now_ns += delay_ns;
		reset = expects_segment(w).flags & TCP_RST;
		tries += !reset;
	}
	assert_int_equal(tries, 12);
	assert_true(w->now_ns - begun_ns > 60000 * MS);
	assert_int_equal(w->stack->ops->delay_ns(w->stack, w->now_ns), UINT64_MAX);
	assert_int_equal(counts(w)->connections_destroyed, 1);
}

/* A window that stays closed is probed, for as long as its owner says that it is there. */
static void a_closed_window_is_probed(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	struct tcp_segment s;
	char text[1000] = "";

	put_data(w, "{\"a\":\"one\"}");
	connects(&c);
	c.window = 0;
	says(&c, GET("/a"));
	s = expects_segment(w);
	assert_int_equal(s.len, 0);
	for (int i = 0; i < 100; i++) {
		uint64_t delay_ns = w->stack->ops->delay_ns(w->stack, w->now_ns);

		assert_true(delay_ns > 0 && delay_ns <= 10000 * MS);
		w->now_ns += delay_ns;
		s = expects_segment(w);
		assert_int_equal(s.len, 1);
		assert_int_equal(s.seq, c.ack);
		sends_segment(&c, c.seq, TCP_ACK, NULL, 0); /* still closed: the byte was not taken */
		expects_nothing(w);
	}
	c.window = 1000;
	sends_segment(&c, c.seq, TCP_ACK, NULL, 0);
	hears(&c, text, sizeof(text));
	assert_non_null(strstr(text, "one"));
}

static void what_comes_out_of_order_is_asked_for_again(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	const char *request = GET("/a");
	size_t len = strlen(request);
	char text[1000] = "";

	put_data(w, "{\"a\":\"one\"}");
	connects(&c);
	sends_segment(&c, c.seq + 4, TCP_ACK, request + 4, len - 4);
	assert_int_equal(expects_segment(w).ack, c.seq);
	sends_segment(&c, c.seq, TCP_ACK, request, 6);
	assert_int_equal(expects_segment(w).ack, c.seq + 6);
	sends_segment(&c, c.seq, TCP_ACK, request, 4); /* old */
	assert_int_equal(expects_segment(w).ack, c.seq + 6);
	sends_segment(&c, c.seq + 4, TCP_ACK, request + 4, len - 4); /* partly new */
	c.seq += len;
	hears(&c, text, sizeof(text));
	assert_non_null(strstr(text, "one"));
	/* An acknowledgement of what was never sent is no news. */
	c.ack += 1000;
	sends_segment(&c, c.seq, TCP_ACK, NULL, 0);
	assert_int_equal(expects_segment(w).ack, c.seq);
	/* Far out of the window: */
	c.ack -= 1000;
	sends_segment(&c, c.seq + 100000, TCP_ACK, "x", 1);
	assert_int_equal(expects_segment(w).ack, c.seq);
	/* A keep-alive is answered. */
	sends_segment(&c, c.seq - 1, TCP_ACK, NULL, 0);
	assert_int_equal(expects_segment(w).ack, c.seq);
}

static void a_request_without_end_is_refused(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	char junk[1024], text[2000] = "";

	memset(junk, 'x', sizeof(junk));
	connects(&c);
	for (int i = 0; i < 30 && !c.finished; i++) {
		sends_segment(&c, c.seq, TCP_ACK, junk, sizeof(junk));
		c.seq += sizeof(junk);
		hears(&c, text, sizeof(text));
	}
	assert_non_null(strstr(text, "HTTP/1.1 413 "));
	assert_true(c.finished);
}

/* The guest sends more than it may: what does not fit is not taken, and comes again. */
static void requests_ahead_fill_the_window(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	const char *request = GET("/big");
	size_t len = strlen(request), total = 400 * len, sent = 0, n = 0;
	char *ahead = malloc(total), *text = calloc(1, 400 * 200);
	struct tcp_segment s;

	put_big(w, 10);
	for (size_t i = 0; i < total; i += len)
		memcpy(ahead + i, request, len);
	connects(&c);
	while (sent < total) {
		size_t part = total - sent < 30000 ? total - sent : 30000;

		sends_segment(&c, c.seq, TCP_ACK, ahead + sent, part);
		s = expects_segment(w);
		assert_true(s.ack - c.seq <= part && s.window < 10000);
		sent += s.ack - c.seq;
		c.seq = s.ack;
		c.ack += s.len;
		n += s.len > 0;
		sends_segment(&c, c.seq, TCP_ACK, NULL, 0);
		hears(&c, text, 400 * 200);
	}
	for (const char *at = text; (at = strstr(at, "HTTP/1.1 200")); at++)
		n++;
	assert_int_equal(n, 400);
	free(ahead);
	free(text);
}

/* ---- many connections ---- */

static void connections_take_turns(void **state)
{
	struct mmds_world *w = *state;
	struct client c[4];
	bool seen[4] = {false};

	put_big(w, 40000);
	for (int i = 0; i < 4; i++) {
		c[i] = client_new(w, (uint16_t)(1000 + i));
		connects(&c[i]);
	}
	for (int i = 0; i < 4; i++)
		says(&c[i], GET("/big"));
	for (int i = 0; i < 4; i++)
		seen[expects_segment(w).port - 1000] = true;
	assert_true(seen[0] && seen[1] && seen[2] && seen[3]);
}

static void an_idle_connection_makes_room(void **state)
{
	struct mmds_world *w = *state;
	struct client c[MMDS_TCP_CONNS + 2];

	put_data(w, "{\"a\":\"one\"}");
	for (int i = 0; i < MMDS_TCP_CONNS; i++) {
		c[i] = client_new(w, (uint16_t)(1000 + i));
		connects(&c[i]);
		w->now_ns += MS;
	}
	/* All but two are in the middle of a request; one has not asked yet, the last has been answered. */
	for (int i = 0; i < MMDS_TCP_CONNS - 2; i++) {
		says(&c[i], "GET");
		assert_int_equal(expects_segment(w).ack, c[i].seq);
	}
	free(asks(&c[MMDS_TCP_CONNS - 1], GET("/a")));
	c[MMDS_TCP_CONNS] = client_new(w, 2000);
	sends_segment(&c[MMDS_TCP_CONNS], 5, TCP_SYN, NULL, 0);
	/* The idle one is told, the new one welcomed. */
	assert_true(expects_segment(w).flags & TCP_RST);
	assert_int_equal(received_segment(w).port, 1000 + MMDS_TCP_CONNS - 1);
	assert_int_equal(expects_segment(w).port, 2000);
	/* There is no more room, and nothing is said: the guest tries again. */
	c[MMDS_TCP_CONNS + 1] = client_new(w, 2001);
	sends_segment(&c[MMDS_TCP_CONNS + 1], 5, TCP_SYN, NULL, 0);
	expects_nothing(w);
	w->now_ns += 10000 * MS;
	sends_segment(&c[MMDS_TCP_CONNS + 1], 5, TCP_SYN, NULL, 0);
	assert_true(expects_segment(w).flags & (TCP_RST | TCP_SYN));
	assert_int_equal(counts(w)->connections_created, MMDS_TCP_CONNS + 2);
	assert_int_equal(counts(w)->connections_destroyed, 2);
}

/* What is under way has a limit: more than that is unavailable, not more memory. */
static void answers_have_a_limit_together(void **state)
{
	struct mmds_world *w = *state;
	unsigned served = 0, unavailable = 0;

	w->mmds->store.limit = 2 << 20;
	put_big(w, 1 << 20);
	for (int i = 0; i < MMDS_TCP_CONNS; i++) {
		struct client c = client_new(w, (uint16_t)(1000 + i));
		struct tcp_segment s;

		c.window = 1000;
		connects(&c);
		says(&c, GET("/big"));
		s = expects_segment(w);
		served += memcmp(s.data, "HTTP/1.1 200", 12) == 0;
		unavailable += memcmp(s.data, "HTTP/1.1 503", 12) == 0;
		while (receives(w))
			;
	}
	assert_int_equal(served, 4);
	assert_int_equal(served + unavailable, MMDS_TCP_CONNS);
}

static void a_reset_device_forgets_them_all(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);

	put_data(w, "{\"a\":\"one\"}");
	connects(&c);
	says(&c, GET("/a"));
	w->stack->ops->reset(w->stack);
	expects_nothing(w);
	assert_int_equal(counts(w)->connections_destroyed, 1);
	says(&c, GET("/a"));
	assert_true(expects_segment(w).flags & TCP_RST);
	answers(w, GET("/a"), 200, "one");
}

/* A million requests later, nothing is left. */
static void sequence_numbers_wrap(void **state)
{
	struct mmds_world *w = *state;
	struct client c = client_new(w, 1000);
	char *text;

	put_big(w, 50000);
	c.seq = 0xfffffff0;
	connects(&c);
	for (int i = 0; i < 20; i++) {
		text = asks(&c, GET("/big"));
		is_big(text, 50000);
		free(text);
	}
	/* And ours: connections begin a little further on each time. */
	for (int i = 0; i < 500; i++) {
		w->now_ns += 35184372088ull; /* 2^45 / 1000: the clock's part goes round */
		answers(w, GET("/x"), 404, "Resource not found: /x.");
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, mmds_setup, mmds_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(its_hardware_address_is_told),
		CASE(what_is_not_addressed_to_it_is_left_alone),
		CASE(malformed_frames_are_swallowed),
		CASE(a_checksum_may_be_left_to_the_device),
		CASE(a_request_is_answered),
		CASE(a_connection_is_used_again),
		CASE(a_request_comes_byte_by_byte),
		CASE(either_side_may_close_first),
		CASE(a_reset_ends_a_connection),
		CASE(strays_are_reset),
		CASE(a_handshake_that_goes_wrong_is_reset),
		CASE(a_long_answer_goes_in_segments_of_the_peers_size),
		CASE(options_that_lie_are_as_none),
		CASE(what_is_lost_is_sent_again),
		CASE(a_peer_that_falls_silent_is_given_up),
		CASE(a_closed_window_is_probed),
		CASE(what_comes_out_of_order_is_asked_for_again),
		CASE(a_request_without_end_is_refused),
		CASE(requests_ahead_fill_the_window),
		CASE(connections_take_turns),
		CASE(an_idle_connection_makes_room),
		CASE(answers_have_a_limit_together),
		CASE(a_reset_device_forgets_them_all),
		CASE(sequence_numbers_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
