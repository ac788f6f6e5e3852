/* TCP, as far as a web server on one port needs it (RFC 9293; section numbers are its): connections are opened by the guest
 * only; what comes out of order is dropped, and asked for again; there is no congestion, since between both ends there is
 * nothing but a ring, and no option but the segment size.
 *
 * Memory is bounded: so many connections, of each a part of one request, and of all so many bytes of answers. When there are
 * more connections than that, the one that has been idle for longest since an answer makes room.
 *
 * It knows no clock (`now_ns` is the caller's) and no packets: a segment goes in and out as it lies behind an IPv4 header, its
 * checksum somebody else's. */
#ifndef HULL_DEVICES_MMDS_TCP_H
#define HULL_DEVICES_MMDS_TCP_H

#include "devices/mmds.h"

#define MMDS_TCP_PORT	     80
#define MMDS_TCP_CONNS	     32
#define MMDS_TCP_RESETS	     16
#define MMDS_TCP_MSS	     1460 /* of either direction: Ethernet's */
#define MMDS_TCP_SEGMENT_MAX (24 + MMDS_TCP_MSS) /* a header has one option at most */

/* 3.1 */
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

/* Whom a segment is from, or to. */
struct mmds_peer {
	uint8_t mac[6];
	uint32_t ip; /* the host's byte order, as all numbers here */
};

/* A received segment, checked: `data` lies in what was received. */
struct tcp_segment {
	uint16_t source_port, port, window;
	uint32_t seq, ack;
	uint8_t flags;
	uint16_t mss; /* 0: the option is not there */
	const uint8_t *data;
	uint32_t len;
};

/* 3.3.2. FREE: a slot nobody uses. SYN_RECEIVED: our SYN is to be acknowledged. OPEN: all that follows; how far each side has
 * come with closing is told by `peer_closed`, `closing` and `fin_acked`:
 *
 *	ESTABLISHED	none			CLOSE_WAIT	peer_closed
 *	FIN_WAIT_1	closing			LAST_ACK	peer_closed, closing
 *	FIN_WAIT_2	closing, fin_acked	(all three: the slot is free) */
enum mmds_conn_state { MMDS_CONN_FREE, MMDS_CONN_SYN_RECEIVED, MMDS_CONN_OPEN };

struct mmds_conn {
	enum mmds_conn_state state;
	struct mmds_peer peer;
	uint16_t peer_port;
	uint32_t snd_una, snd_nxt, snd_max; /* acknowledged; next to be sent; next that never was */
	uint32_t snd_wnd, snd_wl1, snd_wl2; /* 3.3.1 */
	uint32_t rcv_nxt;
	uint16_t mss;
	bool peer_closed; /* its FIN was received */
	bool closing;	  /* our FIN follows the last byte of `out` */
	bool fin_acked;
	bool answered; /* a request at least */
	bool ack_due; /* what was received is to be acknowledged */
	bool probing; /* one byte may go into a closed window (3.8.6.1) */
	unsigned tries; /* since the peer last made progress */
	uint64_t resend_ns; /* when, if nothing is acknowledged meanwhile; UINT64_MAX: all is */
	uint64_t heard_ns;  /* the last segment */
	struct buf in;	    /* of requests not served yet */
	struct buf out;	    /* one answer; what lies before out_acked is acknowledged, snd_una is at that byte */
	size_t out_acked;
};

/* What a segment, or time, made of a connection. */
enum mmds_conn_fate { MMDS_CONN_LIVES, MMDS_CONN_DONE, MMDS_CONN_RESETS /* and the peer is to be told */ };

struct mmds_tcp {
	struct mmds *mmds; /* borrowed */
	struct mmds_conn conns[MMDS_TCP_CONNS];
	unsigned n_conns, turn; /* not FREE; whose segment is next */
	uint32_t next_iss;
	/* Segments that belong to no connection are refused by these, oldest first. */
	struct mmds_reset {
		struct mmds_peer peer;
		uint16_t peer_port, port;
		uint32_t seq, ack;
		uint8_t flags;
	} resets[MMDS_TCP_RESETS];
	unsigned n_resets;
};

/* `seed`: where the first connection's numbers begin. */
void mmds_tcp_init(struct mmds_tcp *tcp, struct mmds *mmds, uint32_t seed);
/* Forgets all connections, without a word to their peers. */
void mmds_tcp_reset(struct mmds_tcp *tcp);

/* Takes what came. 0; -EINVAL when it is no segment. */
int mmds_tcp_receive(struct mmds_tcp *tcp, const struct mmds_peer *peer, const uint8_t *segment, size_t len, uint64_t now_ns);
/* Composes the next segment (checksum 0; room for MMDS_TCP_SEGMENT_MAX bytes), and for whom: its length; 0: there is none. */
size_t mmds_tcp_next(struct mmds_tcp *tcp, struct mmds_peer *ret_peer, uint8_t *ret, uint64_t now_ns);
/* In how many ns there is one, if nothing comes meanwhile; UINT64_MAX: never. */
uint64_t mmds_tcp_delay_ns(const struct mmds_tcp *tcp, uint64_t now_ns);

/* One connection, for mmds_tcp.c alone. */

void mmds_conn_open(struct mmds_conn *conn, const struct mmds_peer *peer, const struct tcp_segment *syn, uint32_t iss,
	uint64_t now_ns);
void mmds_conn_free(struct mmds_conn *conn);
/* Takes a segment that is no SYN. Requests that it completes are served, with `room` bytes for the answer. */
enum mmds_conn_fate mmds_conn_receive(struct mmds_conn *conn, struct mmds *mmds, const struct mmds_peer *peer,
	const struct tcp_segment *segment, size_t room, uint64_t now_ns);
/* As mmds_tcp_delay_ns(). */
uint64_t mmds_conn_delay_ns(const struct mmds_conn *conn, uint64_t now_ns);
/* As mmds_tcp_next(). `*ret_fate`: the connection may be at its end afterwards. */
size_t mmds_conn_next(struct mmds_conn *conn, uint8_t *ret, uint64_t now_ns, enum mmds_conn_fate *ret_fate);
/* It has had an answer, and nothing is under way: no request, no other answer. */
bool mmds_conn_is_idle(const struct mmds_conn *conn);

/* Writes a header of 20 bytes, its data said to begin `options_bytes` later. */
void tcp_put_header(uint8_t *ret, uint16_t port, uint16_t peer_port, uint32_t seq, uint32_t ack, uint8_t flags,
	uint16_t window, size_t options_bytes);

#endif
