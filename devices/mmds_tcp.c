/* The connections of one interface with MMDS: which one a segment is for, which one is next, and which makes room. */
#include "devices/mmds_tcp.h"

#include "common/checked.h"
#include "devices/mmds_http.h"
#include "devices/net_order.h"

#include <errno.h>
#include <string.h>

#define HEADER_BYTES  20
#define OPTION_END    0
#define OPTION_NOP    1
#define OPTION_MSS    2
/* Silent for so long in the middle of something, a connection may have to make room for another. */
#define SILENT_NS     UINT64_C(10000000000)
/* Of all answers that are under way. A large document is given out to two at a time at least. */
#define ANSWERS_BYTES (2u << 20)
#define ANSWER_HEAD   512

void mmds_tcp_init(struct mmds_tcp *tcp, struct mmds *mmds, uint32_t seed)
{
	*tcp = (struct mmds_tcp){.mmds = mmds, .next_iss = seed};
}

static void end_conn(struct mmds_tcp *tcp, struct mmds_conn *conn)
{
	mmds_conn_free(conn);
	tcp->n_conns--;
	metric_inc(&tcp->mmds->metrics.connections_destroyed);
}

void mmds_tcp_reset(struct mmds_tcp *tcp)
{
	for (size_t i = 0; i < MMDS_TCP_CONNS; i++)
		if (tcp->conns[i].state != MMDS_CONN_FREE)
			end_conn(tcp, &tcp->conns[i]);
	tcp->n_resets = 0;
}

/* Segments, 3.1. */

void tcp_put_header(uint8_t *ret, uint16_t port, uint16_t peer_port, uint32_t seq, uint32_t ack, uint8_t flags,
	uint16_t window, size_t options_bytes)
{
	memset(ret, 0, HEADER_BYTES);
	net_put_16(ret, port);
	net_put_16(ret + 2, peer_port);
	net_put_32(ret + 4, seq);
	net_put_32(ret + 8, ack);
	ret[12] = (uint8_t)((HEADER_BYTES + options_bytes) / 4 << 4);
	ret[13] = flags;
	net_put_16(ret + 14, window);
}

/* The segment size among the options, 3.2. 0 when it is not there. */
static uint16_t find_mss(const uint8_t *options, size_t len)
{
	size_t i = 0;

	while (i < len && options[i] != OPTION_END) {
		if (options[i] == OPTION_NOP) {
			i++;
			continue;
		}
		if (i + 1 >= len || options[i + 1] < 2 || options[i + 1] > len - i)
			return 0;
		if (options[i] == OPTION_MSS && options[i + 1] == 4)
			return net_get_16(options + i + 2);
		i += options[i + 1];
	}
	return 0;
}

static int parse(const uint8_t *data, size_t len, struct tcp_segment *ret)
{
	size_t header_bytes;

	if (len < HEADER_BYTES || len > UINT16_MAX)
		return -EINVAL;
	header_bytes = (size_t)(data[12] >> 4) * 4;
	if (header_bytes < HEADER_BYTES || header_bytes > len)
		return -EINVAL;
	*ret = (struct tcp_segment){
		.source_port = net_get_16(data),
		.port = net_get_16(data + 2),
		.seq = net_get_32(data + 4),
		.ack = net_get_32(data + 8),
		.flags = data[13] & (TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_ACK),
		.window = net_get_16(data + 14),
		.mss = find_mss(data + HEADER_BYTES, header_bytes - HEADER_BYTES),
		.data = data + header_bytes,
		.len = (uint32_t)(len - header_bytes),
	};
	return ret->source_port ? 0 : -EINVAL;
}

/* Refusals. */

static void add_reset(struct mmds_tcp *tcp, struct mmds_reset reset)
{
	if (tcp->n_resets < MMDS_TCP_RESETS)
		tcp->resets[tcp->n_resets++] = reset;
}

/* 3.10.7.1: the answer to a segment that nobody is there for. */
static void refuse(struct mmds_tcp *tcp, const struct mmds_peer *peer, const struct tcp_segment *segment)
{
	struct mmds_reset reset = {.peer = *peer, .peer_port = segment->source_port, .port = segment->port};

	metric_inc(&tcp->mmds->metrics.rx_accepted_unusual);
	if (segment->flags & TCP_RST)
		return;
	reset.flags = TCP_RST;
	if (segment->flags & TCP_ACK) {
		reset.seq = segment->ack;
	} else {
		reset.flags |= TCP_ACK;
		reset.ack = segment->seq + segment->len + !!(segment->flags & TCP_SYN) + !!(segment->flags & TCP_FIN);
	}
	add_reset(tcp, reset);
}

/* Ends it, and tells its peer. */
static void reset_conn(struct mmds_tcp *tcp, struct mmds_conn *conn)
{
	add_reset(tcp, (struct mmds_reset){.peer = conn->peer, .peer_port = conn->peer_port, .port = MMDS_TCP_PORT,
			       .seq = conn->snd_nxt, .ack = conn->rcv_nxt, .flags = TCP_RST | TCP_ACK});
	end_conn(tcp, conn);
}

/* Connections. */

static struct mmds_conn *find_conn(struct mmds_tcp *tcp, const struct mmds_peer *peer, uint16_t peer_port)
{
	for (size_t i = 0; i < MMDS_TCP_CONNS && tcp->n_conns; i++) {
		struct mmds_conn *conn = &tcp->conns[i];

		if (conn->state != MMDS_CONN_FREE && conn->peer_port == peer_port && conn->peer.ip == peer->ip)
			return conn;
	}
	return NULL;
}

/* The one that has been silent for longest, of those that are idle or have been silent for too long. May be NULL. */
static struct mmds_conn *find_evictable(struct mmds_tcp *tcp, uint64_t now_ns)
{
	struct mmds_conn *found = NULL;

	for (size_t i = 0; i < MMDS_TCP_CONNS; i++) {
		struct mmds_conn *conn = &tcp->conns[i];

		if (!mmds_conn_is_idle(conn) && now_ns - conn->heard_ns < SILENT_NS)
			continue;
		if (!found || conn->heard_ns < found->heard_ns)
			found = conn;
	}
	return found;
}

/* A slot for one more; NULL: all are busy. */
static struct mmds_conn *make_room(struct mmds_tcp *tcp, uint64_t now_ns)
{
	struct mmds_conn *conn;

	for (size_t i = 0; i < MMDS_TCP_CONNS; i++)
		if (tcp->conns[i].state == MMDS_CONN_FREE)
			return &tcp->conns[i];
	conn = find_evictable(tcp, now_ns);
	if (conn)
		reset_conn(tcp, conn);
	return conn;
}

/* When there is no room it says nothing: the peer asks again in a second, and there may be some then. */
static void open_conn(
	struct mmds_tcp *tcp, const struct mmds_peer *peer, const struct tcp_segment *syn, uint64_t now_ns)
{
	struct mmds_conn *conn = make_room(tcp, now_ns);

	if (!conn) {
		metric_inc(&tcp->mmds->metrics.rx_accepted_unusual);
		return;
	}
	/* 3.4.1: numbers of connections that follow one another are not taken for each other's. */
	mmds_conn_open(conn, peer, syn, tcp->next_iss + (uint32_t)(now_ns >> 12), now_ns);
	tcp->next_iss += 0x10001;
	tcp->n_conns++;
	metric_inc(&tcp->mmds->metrics.connections_created);
}

/* A SYN for a connection that there is: the first one again, or a guest that has begun anew and knows of nothing. */
static void take_syn(struct mmds_tcp *tcp, struct mmds_conn *conn, const struct mmds_peer *peer,
	const struct tcp_segment *syn, uint64_t now_ns)
{
	if (syn->flags & (TCP_ACK | TCP_RST | TCP_FIN)) {
		metric_inc(&tcp->mmds->metrics.rx_accepted_unusual);
	} else if (conn->state == MMDS_CONN_SYN_RECEIVED && conn->rcv_nxt == syn->seq + 1) {
		conn->snd_nxt = conn->snd_una;
	} else {
		end_conn(tcp, conn);
		open_conn(tcp, peer, syn, now_ns);
	}
}

/* What an answer may take, bytes: always enough for a refusal. */
static size_t answer_room(const struct mmds_tcp *tcp)
{
	size_t all = 2 * (tcp->mmds->store.limit + ANSWER_HEAD), used = 0;

	if (all < ANSWERS_BYTES)
		all = ANSWERS_BYTES;
	for (size_t i = 0; i < MMDS_TCP_CONNS; i++)
		if (tcp->conns[i].state != MMDS_CONN_FREE)
			used += tcp->conns[i].out.len;
	return (used < all ? all - used : 0) + ANSWER_HEAD;
}

int mmds_tcp_receive(struct mmds_tcp *tcp, const struct mmds_peer *peer, const uint8_t *data, size_t len, uint64_t now_ns)
{
	struct tcp_segment segment;
	struct mmds_conn *conn;
	int r = parse(data, len, &segment);

	if (r < 0)
		return r;
	metric_inc(&tcp->mmds->metrics.rx_count);
	conn = segment.port == MMDS_TCP_PORT ? find_conn(tcp, peer, segment.source_port) : NULL;
	if (!conn) {
		if (segment.port == MMDS_TCP_PORT &&
			(segment.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN)
			open_conn(tcp, peer, &segment, now_ns);
		else
			refuse(tcp, peer, &segment);
		return 0;
	}
	if (segment.flags & TCP_SYN) {
		take_syn(tcp, conn, peer, &segment, now_ns);
		return 0;
	}
	switch (mmds_conn_receive(conn, tcp->mmds, peer, &segment, answer_room(tcp), now_ns)) {
	case MMDS_CONN_LIVES:
		break;
	case MMDS_CONN_DONE:
		end_conn(tcp, conn);
		break;
	case MMDS_CONN_RESETS:
		refuse(tcp, peer, &segment);
		end_conn(tcp, conn);
		break;
	}
	return 0;
}

/* Sending. */

static size_t next_reset(struct mmds_tcp *tcp, struct mmds_peer *ret_peer, uint8_t *ret)
{
	const struct mmds_reset *reset = &tcp->resets[0];

	*ret_peer = reset->peer;
	tcp_put_header(ret, reset->port, reset->peer_port, reset->seq, reset->ack, reset->flags, 0, 0);
	memmove(tcp->resets, tcp->resets + 1, --tcp->n_resets * sizeof(*reset));
	return HEADER_BYTES;
}

/* The connection's next segment, as mmds_tcp_next(). */
static size_t next_of(struct mmds_tcp *tcp, struct mmds_conn *conn, struct mmds_peer *ret_peer, uint8_t *ret, uint64_t now_ns)
{
	enum mmds_conn_fate fate;
	size_t len = mmds_conn_next(conn, ret, now_ns, &fate);

	*ret_peer = conn->peer;
	if (fate == MMDS_CONN_DONE)
		end_conn(tcp, conn);
	else if (fate == MMDS_CONN_RESETS)
		reset_conn(tcp, conn);
	return len;
}

size_t mmds_tcp_next(struct mmds_tcp *tcp, struct mmds_peer *ret_peer, uint8_t *ret, uint64_t now_ns)
{
	/* In turns, so that a long answer holds up no other. */
	for (size_t i = 0; i < MMDS_TCP_CONNS && tcp->n_conns && !tcp->n_resets; i++) {
		struct mmds_conn *conn = &tcp->conns[tcp->turn++ % MMDS_TCP_CONNS];
		size_t len = conn->state == MMDS_CONN_FREE ? 0 : next_of(tcp, conn, ret_peer, ret, now_ns);

		if (len)
			return len;
	}
	return tcp->n_resets ? next_reset(tcp, ret_peer, ret) : 0;
}

uint64_t mmds_tcp_delay_ns(const struct mmds_tcp *tcp, uint64_t now_ns)
{
	uint64_t delay_ns = tcp->n_resets ? 0 : UINT64_MAX;

	for (size_t i = 0; i < MMDS_TCP_CONNS && tcp->n_conns && delay_ns; i++) {
		const struct mmds_conn *conn = &tcp->conns[i];
		uint64_t own_ns = conn->state == MMDS_CONN_FREE ? UINT64_MAX : mmds_conn_delay_ns(conn, now_ns);

		if (own_ns < delay_ns)
			delay_ns = own_ns;
	}
	return delay_ns;
}
