/* One TCP connection of MMDS.
 *
 * Theory of operation. `out` holds one answer, from its first byte that is not acknowledged; the FIN counts as one byte behind
 * it, once there is nothing more to say. While anything of both is not acknowledged a timer runs; when it is over, sending
 * begins again at the first of these bytes, even into a closed window, and the next wait is twice as long. After too many
 * without a word from the peer, the connection is reset. The next request is looked at when the answer before is acknowledged. */
#include "devices/mmds_http.h"
#include "devices/mmds_tcp.h"

#include <assert.h>
#include <string.h>

#define RESEND_MIN_NS UINT64_C(300000000)
#define RESEND_MAX_NS UINT64_C(10000000000)
#define TRIES_MAX     12 /* a minute and a bit */
#define GIVE_UP_NS    UINT64_C(60000000000)
/* 3.7.1: what a peer takes that does not say. Less than the other nobody's link carries. */
#define MSS_DEFAULT   536
#define MSS_MIN	      48

static_assert(MMDS_HTTP_REQUEST_MAX <= UINT16_MAX, "a window");

/* Sequence numbers wrap (3.4). */
static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t unacked(const struct mmds_conn *conn)
{
	return (uint32_t)(conn->out.len - conn->out_acked);
}

static bool has_fin(const struct mmds_conn *conn)
{
	return conn->closing && !conn->fin_acked;
}

/* What we take now, bytes. */
static uint16_t window(const struct mmds_conn *conn)
{
	return (uint16_t)(MMDS_HTTP_REQUEST_MAX - conn->in.len);
}

bool mmds_conn_is_idle(const struct mmds_conn *conn)
{
	return conn->answered && !conn->in.len && !unacked(conn) && !has_fin(conn);
}

void mmds_conn_open(struct mmds_conn *conn, const struct mmds_peer *peer, const struct tcp_segment *syn, uint32_t iss,
	uint64_t now_ns)
{
	uint16_t mss = syn->mss ? syn->mss : MSS_DEFAULT;

	*conn = (struct mmds_conn){
		.state = MMDS_CONN_SYN_RECEIVED,
		.peer = *peer,
		.peer_port = syn->source_port,
		.snd_una = iss,
		.snd_nxt = iss,
		.snd_max = iss,
		.rcv_nxt = syn->seq + 1,
		.mss = mss < MSS_MIN ? MSS_MIN : mss > MMDS_TCP_MSS ? MMDS_TCP_MSS : mss,
		.resend_ns = UINT64_MAX,
		.heard_ns = now_ns,
	};
	buf_init(&conn->in, MMDS_HTTP_REQUEST_MAX);
	buf_init(&conn->out, 0);
}

void mmds_conn_free(struct mmds_conn *conn)
{
	buf_done(&conn->in);
	buf_done(&conn->out);
	conn->state = MMDS_CONN_FREE;
}

/* While anything is not acknowledged, be it that the window lets nobody send it. */
static void set_timer(struct mmds_conn *conn, uint64_t now_ns)
{
	uint64_t wait_ns = RESEND_MIN_NS << conn->tries;

	if (conn->resend_ns != UINT64_MAX)
		return;
	if (conn->state == MMDS_CONN_SYN_RECEIVED || unacked(conn) || has_fin(conn))
		conn->resend_ns = now_ns + (wait_ns < RESEND_MAX_NS ? wait_ns : RESEND_MAX_NS);
}

/* Receiving, 3.10.7.4. */

/* What has been answered takes no memory. */
static void forget_answer(struct mmds_conn *conn)
{
	buf_done(&conn->out);
	buf_init(&conn->out, 0);
	conn->out_acked = 0;
}

static void take_window(struct mmds_conn *conn, const struct tcp_segment *segment)
{
	/* Not from a segment that was sent before the one it is known by. */
	if (before(segment->seq, conn->snd_wl1) || (segment->seq == conn->snd_wl1 && before(segment->ack, conn->snd_wl2)))
		return;
	if (!conn->snd_wnd && segment->window)
		conn->snd_nxt = segment->ack; /* what was sent into the closed one was not taken */
	conn->snd_wnd = segment->window;
	conn->snd_wl1 = segment->seq;
	conn->snd_wl2 = segment->ack;
}

static void take_ack(struct mmds_conn *conn, const struct tcp_segment *segment)
{
	uint32_t acked = segment->ack - conn->snd_una, n = smaller(acked, unacked(conn));

	if (before(segment->ack, conn->snd_una))
		return;
	if (acked > conn->snd_max - conn->snd_una) {
		conn->ack_due = true; /* of what was never sent */
		return;
	}
	take_window(conn, segment);
	if (!acked)
		return;
	conn->out_acked += n;
	if (acked > n)
		conn->fin_acked = true;
	if (!unacked(conn))
		forget_answer(conn);
	conn->snd_una = segment->ack;
	if (before(conn->snd_nxt, conn->snd_una))
		conn->snd_nxt = conn->snd_una;
	conn->tries = 0;
	conn->resend_ns = UINT64_MAX;
}

/* What is new of the segment, as far as there is room. */
static void take_data(struct mmds_conn *conn, const struct tcp_segment *segment)
{
	uint32_t known = conn->rcv_nxt - segment->seq, len;
	bool fin = segment->flags & TCP_FIN;

	if (segment->len || fin)
		conn->ack_due = true;
	if (before(conn->rcv_nxt, segment->seq) || known > segment->len || conn->peer_closed)
		return; /* something before it is missing; or all of it was here, even the FIN */
	len = smaller(segment->len - known, window(conn));
	/* When our side is closed, nobody reads any more. */
	if (len && !conn->closing && buf_append(&conn->in, segment->data + known, len) < 0)
		return; /* no memory: as if it were lost */
	conn->rcv_nxt += len;
	if (fin && known + len == segment->len) {
		conn->rcv_nxt++;
		conn->peer_closed = true;
	}
}

/* Answers the request that is there, unless an answer is on its way. */
static void serve(struct mmds_conn *conn, struct mmds *mmds, size_t room, uint64_t now_ns)
{
	enum mmds_served served;
	size_t used = 0;

	if (unacked(conn) || conn->closing)
		return;
	buf_init(&conn->out, room);
	served = mmds_http_serve(mmds, conn->in.data, conn->in.len, now_ns, &conn->out, &used);
	if (used)
		buf_consume(&conn->in, used);
	if (served != MMDS_INCOMPLETE)
		conn->answered = true;
	if (served == MMDS_ANSWERED_LAST || (served == MMDS_INCOMPLETE && conn->peer_closed))
		conn->closing = true;
	if (!conn->in.len || conn->closing) {
		buf_done(&conn->in);
		buf_init(&conn->in, MMDS_HTTP_REQUEST_MAX);
	}
}

static enum mmds_conn_fate establish(struct mmds_conn *conn, const struct tcp_segment *segment)
{
	if (segment->ack != conn->snd_una + 1 || conn->snd_max == conn->snd_una)
		return MMDS_CONN_RESETS;
	conn->state = MMDS_CONN_OPEN;
	conn->snd_una = conn->snd_nxt = segment->ack;
	conn->snd_wl1 = segment->seq;
	conn->snd_wl2 = segment->ack;
	conn->snd_wnd = segment->window;
	conn->tries = 0;
	conn->resend_ns = UINT64_MAX;
	return MMDS_CONN_LIVES;
}

/* Whether any of the segment could be meant for now: else it is old, or not from this peer. */
static bool is_acceptable(const struct mmds_conn *conn, const struct tcp_segment *segment)
{
	uint32_t end = segment->seq + segment->len + !!(segment->flags & TCP_FIN);

	return !before(end, conn->rcv_nxt) && !before(conn->rcv_nxt + window(conn), segment->seq);
}

enum mmds_conn_fate mmds_conn_receive(struct mmds_conn *conn, struct mmds *mmds, const struct mmds_peer *peer,
	const struct tcp_segment *segment, size_t room, uint64_t now_ns)
{
	bool acceptable = is_acceptable(conn, segment);

	conn->heard_ns = now_ns;
	if ((segment->flags & TCP_RST) && segment->seq == conn->rcv_nxt)
		return MMDS_CONN_DONE;
	if (segment->flags & TCP_RST || !acceptable) {
		/* Somebody's mistake (RFC 5961, 3): whoever is there may say it again, better. */
		conn->ack_due |= acceptable || !(segment->flags & TCP_RST);
		return MMDS_CONN_LIVES;
	}
	if (!(segment->flags & TCP_ACK))
		return MMDS_CONN_LIVES;
	if (conn->state == MMDS_CONN_SYN_RECEIVED && establish(conn, segment) == MMDS_CONN_RESETS)
		return MMDS_CONN_RESETS;
	conn->peer = *peer;
	take_ack(conn, segment);
	take_data(conn, segment);
	serve(conn, mmds, room, now_ns);
	set_timer(conn, now_ns);
	return conn->fin_acked && conn->peer_closed && !conn->ack_due ? MMDS_CONN_DONE : MMDS_CONN_LIVES;
}

/* Sending. */

/* What the next segment is to be: false when there is none. */
static bool plan(const struct mmds_conn *conn, uint32_t *ret_len, uint8_t *ret_flags)
{
	uint32_t in_flight = conn->snd_nxt - conn->snd_una, left = unacked(conn);
	uint32_t may = conn->probing && !conn->snd_wnd ? 1 : conn->snd_wnd;

	*ret_len = 0;
	*ret_flags = TCP_ACK;
	if (conn->state == MMDS_CONN_SYN_RECEIVED) {
		*ret_flags |= TCP_SYN;
		return in_flight == 0;
	}
	if (in_flight < smaller(left, may))
		*ret_len = smaller(smaller(left, may) - in_flight, conn->mss);
	if (*ret_len && in_flight + *ret_len == left)
		*ret_flags |= TCP_PSH;
	if (has_fin(conn) && in_flight + *ret_len == left && left < may)
		*ret_flags |= TCP_FIN;
	return *ret_len || *ret_flags & TCP_FIN || conn->ack_due;
}

uint64_t mmds_conn_delay_ns(const struct mmds_conn *conn, uint64_t now_ns)
{
	uint32_t len;
	uint8_t flags;

	if (plan(conn, &len, &flags) || conn->resend_ns <= now_ns)
		return 0;
	return conn->resend_ns == UINT64_MAX ? UINT64_MAX : conn->resend_ns - now_ns;
}

/* Time is over for what was sent. False when it has been too often, and nobody is there who asks us to wait (3.8.6.1). */
static bool begin_again(struct mmds_conn *conn, uint64_t now_ns)
{
	conn->resend_ns = UINT64_MAX;
	if (conn->tries < TRIES_MAX)
		conn->tries++;
	else if (now_ns - conn->heard_ns >= GIVE_UP_NS)
		return false;
	conn->snd_nxt = conn->snd_una;
	conn->probing = true;
	set_timer(conn, now_ns);
	return true;
}

static size_t put_segment(struct mmds_conn *conn, uint32_t len, uint8_t flags, uint8_t *ret)
{
	static const uint8_t mss_option[] = {2, 4, MMDS_TCP_MSS >> 8, MMDS_TCP_MSS & 0xff}; /* 3.2 */
	size_t at = conn->snd_nxt - conn->snd_una, options = flags & TCP_SYN ? sizeof(mss_option) : 0;

	tcp_put_header(
		ret, MMDS_TCP_PORT, conn->peer_port, conn->snd_nxt, conn->rcv_nxt, flags, window(conn), options);
	memcpy(ret + 20, mss_option, options);
	if (len)
		memcpy(ret + 20 + options, conn->out.data + conn->out_acked + at, len);
	return 20 + options + len;
}

size_t mmds_conn_next(struct mmds_conn *conn, uint8_t *ret, uint64_t now_ns, enum mmds_conn_fate *ret_fate)
{
	uint32_t len;
	uint8_t flags;
	size_t size;

	*ret_fate = MMDS_CONN_LIVES;
	if (conn->resend_ns <= now_ns && !begin_again(conn, now_ns)) {
		*ret_fate = MMDS_CONN_RESETS;
		return 0;
	}
	if (!plan(conn, &len, &flags))
		return 0;
	size = put_segment(conn, len, flags, ret);
	conn->snd_nxt += len + !!(flags & TCP_SYN) + !!(flags & TCP_FIN);
	if (before(conn->snd_max, conn->snd_nxt))
		conn->snd_max = conn->snd_nxt;
	conn->ack_due = conn->probing = false;
	set_timer(conn, now_ns);
	if (conn->fin_acked && conn->peer_closed)
		*ret_fate = MMDS_CONN_DONE;
	return size;
}
