/* A guest as MMDS sees it: frames in and frames out, by hand, and a clock that only the test moves. */
#ifndef HULL_TESTS_UNIT_MMDS_GUEST_H
#define HULL_TESTS_UNIT_MMDS_GUEST_H

#include "tests/unit/test.h"

#include "common/checked.h"
#include "devices/mmds.h"
#include "devices/mmds_tcp.h"
#include "devices/net_backend.h"
#include "devices/net_interceptor.h"
#include "devices/net_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define GUEST_IP 0xc0a80102u
#define LIMIT	 51200

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t mmds_mac[6] = {0x06, 0x01, 0x23, 0x45, 0x67, 0x01};

struct mmds_world {
	struct mmds *mmds;
	struct net_interceptor *stack;
	uint64_t now_ns;
	uint8_t frame[NET_FRAME_MAX]; /* the last one received */
	size_t frame_len;
};

/* One connection's client side. */
struct client {
	struct mmds_world *w;
	uint32_t ip, seq, ack; /* what was sent; what was received */
	uint16_t port, window;
	bool finished; /* the server's FIN was received */
};

static inline void put_data(struct mmds_world *w, const char *json)
{
	json_t *data = json_loads(json, JSON_DECODE_ANY, NULL);

	assert_non_null(data);
	assert_int_equal(mmds_store_put(&w->mmds->store, data, NULL), 0);
	json_decref(data);
}

static inline int mmds_setup(void **state)
{
	struct mmds_world *w = calloc(1, sizeof(*w));

	w->now_ns = 12345 * MS;
	w->mmds = mmds_new("vm-1", LIMIT, NULL);
	assert_non_null(w->mmds);
	w->stack = mmds_stack_new(w->mmds);
	assert_non_null(w->stack);
	*state = w;
	return 0;
}

static inline int mmds_teardown(void **state)
{
	struct mmds_world *w = *state;

	w->stack->ops->free(w->stack);
	mmds_free(w->mmds);
	free(w);
	return 0;
}

/* Frames. */

static inline uint16_t sum_of(uint64_t sum, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += (uint64_t)data[i] << (i & 1 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static inline uint64_t pseudo_of(const uint8_t *ip, size_t len)
{
	return sum_of(0, ip + 12, 8) + 6 + len;
}

/* Hands a frame over, if it is wanted; whether it was. */
static inline bool sends(struct mmds_world *w, const uint8_t *frame, size_t len, bool checksum_due)
{
	uint8_t *exact = malloc(len ? len : 1); /* so that a byte too far is seen */
	bool wanted;

	memcpy(exact, frame, len);
	wanted = w->stack->ops->wants(
		w->stack, exact, len < NET_INTERCEPTOR_HEAD_BYTES ? len : NET_INTERCEPTOR_HEAD_BYTES);
	if (wanted)
		w->stack->ops->take(w->stack, exact, len, checksum_due, w->now_ns);
	free(exact);
	return wanted;
}

/* The next frame from MMDS: its length, and it is in w->frame. That the stack has said so before is checked. */
static inline size_t receives(struct mmds_world *w)
{
	uint64_t delay_ns = w->stack->ops->delay_ns(w->stack, w->now_ns);

	w->frame_len = w->stack->ops->next(w->stack, w->frame, w->now_ns);
	assert_int_equal(delay_ns == 0, w->frame_len != 0);
	return w->frame_len;
}

static inline size_t make_packet(uint8_t *frame, uint32_t source, uint8_t protocol, const uint8_t *payload, size_t len)
{
	uint8_t *ip = frame + 14;

	memset(frame, 0, 34);
	memcpy(frame, mmds_mac, 6);
	memcpy(frame + 6, guest_mac, 6);
	net_put_16(frame + 12, 0x0800);
	ip[0] = 0x45;
	net_put_16(ip + 2, (uint16_t)(20 + len));
	ip[8] = 64;
	ip[9] = protocol;
	net_put_32(ip + 12, source);
	net_put_32(ip + 16, MMDS_ADDRESS_DEFAULT);
	net_put_16(ip + 10, (uint16_t)~sum_of(0, ip, 20));
	memcpy(ip + 20, payload, len);
	return 34 + len;
}

/* A whole frame with a TCP segment: its length. */
static inline size_t make_segment(uint8_t *frame, const struct client *c, uint32_t seq, uint8_t flags, const void *data, size_t len)
{
	uint8_t segment[NET_FRAME_MAX] = {0};

	tcp_put_header(segment, c->port, MMDS_TCP_PORT, seq, flags & TCP_ACK ? c->ack : 0, flags, c->window, 0);
	if (len)
		memcpy(segment + 20, data, len);
	len = make_packet(frame, c->ip, 6, segment, 20 + len) - 34;
	net_put_16(frame + 34 + 16, (uint16_t)~sum_of(pseudo_of(frame + 14, len), frame + 34, len));
	return 34 + len;
}

static inline void sends_segment(struct client *c, uint32_t seq, uint8_t flags, const void *data, size_t len)
{
	uint8_t frame[NET_FRAME_MAX];

	len = make_segment(frame, c, seq, flags, data, len);
	assert_true(sends(c->w, frame, len, false));
}

/* What was received, with every checksum and length checked. */
static inline struct tcp_segment received_segment(struct mmds_world *w)
{
	const uint8_t *ip = w->frame + 14, *tcp = ip + 20;
	size_t len = w->frame_len - 34;
	struct tcp_segment s;

	assert_true(w->frame_len >= 54);
	assert_memory_equal(w->frame, guest_mac, 6);
	assert_memory_equal(w->frame + 6, mmds_mac, 6);
	assert_int_equal(net_get_16(w->frame + 12), 0x0800);
	assert_int_equal(ip[0], 0x45);
	assert_int_equal(net_get_16(ip + 2), 20 + len);
	assert_int_equal(sum_of(0, ip, 20), 0xffff);
	assert_int_equal(net_get_32(ip + 12), MMDS_ADDRESS_DEFAULT);
	assert_int_equal(ip[9], 6);
	assert_int_equal(sum_of(pseudo_of(ip, len), tcp, len), 0xffff);
	s = (struct tcp_segment){.source_port = net_get_16(tcp), .port = net_get_16(tcp + 2), .seq = net_get_32(tcp + 4),
		.ack = net_get_32(tcp + 8), .flags = tcp[13], .window = net_get_16(tcp + 14)};
	s.data = tcp + (tcp[12] >> 4) * 4;
	s.len = (uint32_t)(w->frame + w->frame_len - s.data);
	return s;
}

static inline struct tcp_segment expects_segment(struct mmds_world *w)
{
	assert_true(receives(w));
	return received_segment(w);
}

static inline void expects_nothing(struct mmds_world *w)
{
	assert_int_equal(receives(w), 0);
}

/* Connections. */

static inline struct client client_new(struct mmds_world *w, uint16_t port)
{
	return (struct client){.w = w, .ip = GUEST_IP, .port = port, .seq = 1000u * port, .window = 65535};
}

static inline void connects(struct client *c)
{
	struct tcp_segment s;

	sends_segment(c, c->seq++, TCP_SYN, NULL, 0);
	s = expects_segment(c->w);
	assert_int_equal(s.flags, TCP_SYN | TCP_ACK);
	assert_int_equal(s.port, c->port);
	assert_int_equal(s.ack, c->seq);
	c->ack = s.seq + 1;
	sends_segment(c, c->seq, TCP_ACK, NULL, 0);
}

static inline void says(struct client *c, const char *text)
{
	size_t len = strlen(text);

	sends_segment(c, c->seq, TCP_ACK | TCP_PSH, text, len);
	c->seq += (uint32_t)len;
}

/* All that is sent now, acknowledged segment by segment; added to `text`. */
static inline void hears(struct client *c, char *text, size_t size)
{
	size_t len = strlen(text);

	while (!c->finished && receives(c->w)) {
		struct tcp_segment s = received_segment(c->w);

		assert_int_equal(s.source_port, MMDS_TCP_PORT);
		assert_int_equal(s.port, c->port);
		assert_false(s.flags & TCP_RST);
		assert_int_equal(s.seq, c->ack);
		assert_true(len + s.len < size);
		memcpy(text + len, s.data, s.len);
		len += s.len;
		text[len] = '\0';
		c->finished = s.flags & TCP_FIN;
		c->ack += s.len + c->finished;
		if (s.len || c->finished)
			sends_segment(c, c->seq, TCP_ACK, NULL, 0);
	}
}

/* A request on the connection, and its whole answer; to be freed. */
static inline char *asks(struct client *c, const char *request)
{
	char *text = calloc(1, 4 * LIMIT);

	says(c, request);
	hears(c, text, 4 * LIMIT);
	return text;
}

/* The same on a connection of its own. */
static inline char *asks_once(struct mmds_world *w, const char *request)
{
	static uint16_t port = 20000;
	struct client c = client_new(w, ++port);
	char *text;

	connects(&c);
	text = asks(&c, request);
	if (!c.finished)
		sends_segment(&c, c.seq, TCP_RST, NULL, 0);
	else
		sends_segment(&c, c.seq, TCP_FIN | TCP_ACK, NULL, 0);
	while (receives(w))
		;
	return text;
}

/* The answer to `request` begins with that status and ends with that body. */
static inline void answers(struct mmds_world *w, const char *request, int status, const char *body)
{
	char *text = asks_once(w, request), *got = strstr(text, "\r\n\r\n"), line[16];

	snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
	if (strncmp(text, line, strlen(line)) != 0 || !got)
		fail_msg("%s: %s", request, text);
	assert_string_equal(got + 4, body);
	free(text);
}

#endif
