/* The protocol state of one vsock connection. See vsock_conn.h for the states. */
#include "devices/vsock_conn.h"

#include <errno.h>
#include <string.h>

/* The guest's view of our buffer may be behind by this much before it is told. A quarter keeps a sender that
 * fills the buffer going without an update for every packet. */
#define CREDIT_NEWS_BYTES (VSOCK_BUF_ALLOC / 4)

void vsock_conn_init(
        struct vsock_conn *conn, enum vsock_conn_state state, uint32_t guest_port, uint32_t host_port)
{
	*conn = (struct vsock_conn){
	        .state = state, .guest_port = guest_port, .host_port = host_port, .fd = -1, .read_ahead = 1};
	vsock_queue_init(&conn->queue, VSOCK_BUF_ALLOC);
}

void vsock_conn_done(struct vsock_conn *conn)
{
	vsock_queue_done(&conn->queue);
}

static enum vsock_verdict on_rw(struct vsock_conn *conn, const struct vsock_header *header)
{
	if (conn->state != VSOCK_CONN_ESTABLISHED || conn->guest_shut & VSOCK_SHUTDOWN_SEND)
		return VSOCK_VERDICT_RESET;
	/* What we hold is what it has sent beyond fwd_cnt: more than this was never offered (5.10.6.3). */
	if (header->len > VSOCK_BUF_ALLOC - conn->queue.len)
		return VSOCK_VERDICT_RESET;
	return header->len ? VSOCK_VERDICT_DELIVER : VSOCK_VERDICT_NOTHING;
}

static enum vsock_verdict on_shutdown(struct vsock_conn *conn, const struct vsock_header *header)
{
	if (conn->state == VSOCK_CONN_CLOSING)
		return VSOCK_VERDICT_NOTHING;
	if (conn->state != VSOCK_CONN_ESTABLISHED)
		return VSOCK_VERDICT_RESET;
	conn->guest_shut |= header->flags & VSOCK_SHUTDOWN_BOTH;
	if (conn->guest_shut == VSOCK_SHUTDOWN_BOTH)
		conn->state = VSOCK_CONN_CLOSING;
	return VSOCK_VERDICT_SHUTDOWN;
}

enum vsock_verdict vsock_conn_packet(struct vsock_conn *conn, const struct vsock_header *header)
{
	if (header->op == VSOCK_OP_RST) {
		conn->owed = 0;
		conn->forgotten = true;
		return VSOCK_VERDICT_FORGET;
	}
	if (conn->state == VSOCK_CONN_CLOSED)
		return VSOCK_VERDICT_NOTHING; /* its RST is on the way */

	conn->peer_buf_alloc = header->buf_alloc;
	conn->peer_fwd_cnt = header->fwd_cnt;
	if (vsock_conn_credit(conn))
		conn->credit_requested = false;

	switch (header->op) {
	case VSOCK_OP_RESPONSE:
		if (conn->state != VSOCK_CONN_REQUESTED || conn->owed & VSOCK_OWED_REQUEST)
			return VSOCK_VERDICT_RESET;
		conn->state = VSOCK_CONN_ESTABLISHED;
		return VSOCK_VERDICT_OPENED;
	case VSOCK_OP_RW:
		return on_rw(conn, header);
	case VSOCK_OP_SHUTDOWN:
		return on_shutdown(conn, header);
	case VSOCK_OP_CREDIT_UPDATE:
		return VSOCK_VERDICT_NOTHING;
	case VSOCK_OP_CREDIT_REQUEST:
		if (conn->state == VSOCK_CONN_ESTABLISHED)
			conn->owed |= VSOCK_OWED_CREDIT_UPDATE;
		return VSOCK_VERDICT_NOTHING;
	default: /* a second REQUEST, or an operation nobody defined */
		return VSOCK_VERDICT_RESET;
	}
}

void vsock_conn_close(struct vsock_conn *conn)
{
	bool guest_knows = conn->state != VSOCK_CONN_GREETING && conn->state != VSOCK_CONN_CLOSED &&
	                   !(conn->owed & VSOCK_OWED_REQUEST) && !conn->forgotten;

	if (guest_knows)
		conn->owed = VSOCK_OWED_RST;
	else if (conn->state != VSOCK_CONN_CLOSED)
		conn->owed = 0;
	conn->state = VSOCK_CONN_CLOSED;
	vsock_queue_done(&conn->queue);
}

bool vsock_conn_is_over(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_CONN_CLOSED && !conn->owed;
}

void vsock_conn_forwarded(struct vsock_conn *conn, uint32_t len)
{
	conn->fwd_cnt += len;
	if (conn->state == VSOCK_CONN_ESTABLISHED && !(conn->guest_shut & VSOCK_SHUTDOWN_SEND) &&
	        conn->fwd_cnt - conn->fwd_cnt_told >= CREDIT_NEWS_BYTES)
		conn->owed |= VSOCK_OWED_CREDIT_UPDATE;
}

uint32_t vsock_conn_credit(const struct vsock_conn *conn)
{
	uint32_t in_flight = conn->sent_cnt - conn->peer_fwd_cnt;

	/* A guest that claims to have consumed what was never sent gets a huge in_flight, hence nothing. */
	return in_flight < conn->peer_buf_alloc ? conn->peer_buf_alloc - in_flight : 0;
}

void vsock_conn_out_of_credit(struct vsock_conn *conn)
{
	if (conn->credit_requested)
		return;
	conn->credit_requested = true;
	conn->owed |= VSOCK_OWED_CREDIT_REQUEST;
}

void vsock_conn_host_shut(struct vsock_conn *conn, uint8_t flags)
{
	if (conn->state != VSOCK_CONN_ESTABLISHED || (conn->host_shut | flags) == conn->host_shut)
		return;
	conn->host_shut |= flags;
	conn->owed |= VSOCK_OWED_SHUTDOWN;
}

static void fill_header(struct vsock_conn *conn, uint16_t op, struct vsock_header *ret)
{
	*ret = (struct vsock_header){
	        .src_cid = VSOCK_CID_HOST,
	        .dst_cid = conn->guest_cid,
	        .src_port = conn->host_port,
	        .dst_port = conn->guest_port,
	        .type = VSOCK_TYPE_STREAM,
	        .op = op,
	        .buf_alloc = VSOCK_BUF_ALLOC,
	        .fwd_cnt = conn->fwd_cnt,
	};
	/* Every header tells the credit, so an update that was owed is paid by any packet. */
	conn->fwd_cnt_told = conn->fwd_cnt;
}

bool vsock_conn_next_control(struct vsock_conn *conn, struct vsock_header *ret)
{
	/* In the order in which a peer must see them. */
	static const struct {
		unsigned owed;
		uint16_t op;
	} order[] = {
	        {VSOCK_OWED_RST, VSOCK_OP_RST},
	        {VSOCK_OWED_REQUEST, VSOCK_OP_REQUEST},
	        {VSOCK_OWED_RESPONSE, VSOCK_OP_RESPONSE},
	        {VSOCK_OWED_CREDIT_UPDATE, VSOCK_OP_CREDIT_UPDATE},
	        {VSOCK_OWED_CREDIT_REQUEST, VSOCK_OP_CREDIT_REQUEST},
	        {VSOCK_OWED_SHUTDOWN, VSOCK_OP_SHUTDOWN},
	};

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		if (!(conn->owed & order[i].owed))
			continue;
		fill_header(conn, order[i].op, ret);
		conn->owed &= ~(order[i].owed | VSOCK_OWED_CREDIT_UPDATE);
		if (order[i].op == VSOCK_OP_SHUTDOWN)
			ret->flags = conn->host_shut;
		return true;
	}
	return false;
}

void vsock_conn_data_header(struct vsock_conn *conn, uint32_t len, struct vsock_header *ret)
{
	fill_header(conn, VSOCK_OP_RW, ret);
	ret->len = len;
	conn->sent_cnt += len;
	conn->owed &= ~(unsigned)VSOCK_OWED_CREDIT_UPDATE;
}

int vsock_greeting_parse(const char *line, size_t len, uint32_t *ret_port)
{
	static const char verb[] = "CONNECT ";
	const size_t verb_len = sizeof(verb) - 1;
	uint64_t port = 0;

	if (len <= verb_len || len > verb_len + 10 || memcmp(line, verb, verb_len) != 0)
		return -EINVAL;
	if (line[verb_len] == '0' && len > verb_len + 1)
		return -EINVAL;
	for (size_t i = verb_len; i < len; i++) {
		if (line[i] < '0' || line[i] > '9')
			return -EINVAL;
		port = port * 10 + (uint64_t)(line[i] - '0');
	}
	if (port >= VSOCK_PORT_ANY)
		return -EINVAL;
	*ret_port = (uint32_t)port;
	return 0;
}
