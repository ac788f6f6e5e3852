/* One vsock stream connection as a protocol state machine (virtio 1.2, section 5.10.6): states, credit, shutdown, and
 * which control packets are owed to the guest. It does no I/O: virtio_vsock moves the bytes and calls this.
 *
 *	          accept()             "CONNECT P\n"             RESPONSE
 *	(host) ───────────▶ GREETING ───────────────▶ REQUESTED ─────────▶ ESTABLISHED
 *	(guest) REQUEST, connected or a sink ───────────────────────────▶ ESTABLISHED
 *	ESTABLISHED ── guest has shut both sides ──▶ CLOSING ── all flushed ──▶ CLOSED ── RST sent ──▶ gone
 *	any state ── the host side or the protocol fails ──▶ CLOSED (an RST is owed when the guest knows of it)
 *	any state ── RST from the guest ──▶ gone; from CLOSING once what it sent is flushed
 *
 *	GREETING     bytes from the host socket are the request line; unknown to the guest
 *	REQUESTED    REQUEST is owed or sent; nothing is read from the host socket
 *	ESTABLISHED  data flows; each side may have shut its half
 *	CLOSING      the guest neither sends nor receives; the queue is flushed to the host, then RST
 *	CLOSED       the host side is gone; only an RST is owed */
#ifndef HULL_DEVICES_VSOCK_CONN_H
#define HULL_DEVICES_VSOCK_CONN_H

#include "devices/vsock_packet.h"
#include "devices/vsock_queue.h"

#include "common/loop.h"

#include <stdbool.h>
#include <sys/queue.h>

/* Our receive buffer for each connection, advertised as buf_alloc. */
#define VSOCK_BUF_ALLOC (128u << 10)
/* "CONNECT 4294967294\n" and some slack for a peer that is merely wrong. */
#define VSOCK_GREETING_MAX 32

enum vsock_conn_state {
	VSOCK_CONN_GREETING,
	VSOCK_CONN_REQUESTED,
	VSOCK_CONN_ESTABLISHED,
	VSOCK_CONN_CLOSING,
	VSOCK_CONN_CLOSED,
};

/* Control packets owed to the guest: a set, so what a connection can make us owe is bounded. */
enum vsock_owed {
	VSOCK_OWED_REQUEST = 1,
	VSOCK_OWED_RESPONSE = 2,
	VSOCK_OWED_CREDIT_UPDATE = 4,
	VSOCK_OWED_CREDIT_REQUEST = 8,
	VSOCK_OWED_SHUTDOWN = 16,
	VSOCK_OWED_RST = 32,
};

/* What the device must do after a packet from the guest. */
enum vsock_verdict {
	VSOCK_VERDICT_NOTHING,
	VSOCK_VERDICT_DELIVER,  /* take the payload: vsock_conn_forwarded(), once it is passed on */
	VSOCK_VERDICT_OPENED,   /* tell the host side that the connection stands */
	VSOCK_VERDICT_SHUTDOWN, /* guest_shut has grown: pass it on once the queue is flushed */
	VSOCK_VERDICT_RESET,    /* the guest broke the protocol: vsock_conn_close() */
	VSOCK_VERDICT_FORGET,   /* the guest is done with it: flush if CLOSING, drop otherwise; no RST */
};

struct virtio_vsock;
struct vsock_sink;

struct vsock_conn {
	enum vsock_conn_state state;
	uint32_t guest_port, host_port;
	uint64_t guest_cid;
	unsigned owed; /* enum vsock_owed */
	uint8_t guest_shut,
	        host_shut; /* VSOCK_SHUTDOWN_*: what the guest told us; what we told, or owe to tell, it */
	bool forgotten;    /* the guest has reset it: only the flush remains */

	/* Guest to host: what we hold, and how many bytes we have passed on or discarded. */
	struct vsock_queue queue;
	uint32_t fwd_cnt, fwd_cnt_told;
	/* Host to guest: the guest's buffer, what it has consumed, what we have sent. Modulo 2^32. */
	uint32_t peer_buf_alloc, peer_fwd_cnt, sent_cnt;
	bool credit_requested; /* since the credit last ran out */

	/* The device's own: the host side and its place in the device's lists. */
	struct virtio_vsock *vsock;
	int fd;                     /* owned; -1 for a sink's connection, and once CLOSED */
	struct loop_source *source; /* of fd; NULL with it */
	uint32_t watched;           /* the events source is set to */
	struct vsock_sink *sink;
	bool host_eof;  /* the host socket has been read to its end */
	bool host_gone; /* nobody reads the host socket any more: what the guest sends is discarded */
	bool hung_up;   /* the host socket is shut both ways */
	bool shut_send_done, shut_receive_done; /* what of guest_shut has been passed on */
	bool known;                             /* in the hash table */
	bool waits_for_ring;                    /* in the list of those with data but no receive buffer */
	bool waits_for_sink;                    /* in its sink's list */
	bool waits_to_speak;                    /* in the list of those that owe a packet */
	bool has_deadline;                      /* in the list of those that must get on */
	uint16_t read_ahead;                    /* receive buffers to try for the next read */
	uint64_t deadline_ns;
	char greeting[VSOCK_GREETING_MAX];
	uint8_t greeting_len;
	LIST_ENTRY(vsock_conn) all, bucket;
	TAILQ_ENTRY(vsock_conn) ring_wait, sink_wait, speak, deadline;
};

/* A connection in `state`; the device's fields are zero but for fd, -1. */
void vsock_conn_init(
        struct vsock_conn *conn, enum vsock_conn_state state, uint32_t guest_port, uint32_t host_port);
void vsock_conn_done(struct vsock_conn *conn);

/* A packet for this connection arrived from the guest: updates credit and state. CLOSED ignores all but RST. */
enum vsock_verdict vsock_conn_packet(struct vsock_conn *conn, const struct vsock_header *header);

/* The host side is done for, or the guest broke the rules: CLOSED, an RST owed if the guest knows of the
 * connection. What is queued is dropped. */
void vsock_conn_close(struct vsock_conn *conn);

/* Nothing is owed and nothing is left to do: free it. */
bool vsock_conn_is_over(const struct vsock_conn *conn);

/* `len` bytes from the guest have been taken over by the host side (or discarded): counts them, and owes an
 * update of the credit when the guest's view has fallen behind. */
void vsock_conn_forwarded(struct vsock_conn *conn, uint32_t len);
/* How many bytes may be sent to the guest now. */
uint32_t vsock_conn_credit(const struct vsock_conn *conn);
/* The credit has run out: asks for news, once. */
void vsock_conn_out_of_credit(struct vsock_conn *conn);
/* The host will send no more, or take no more (VSOCK_SHUTDOWN_*): the guest is told. */
void vsock_conn_host_shut(struct vsock_conn *conn, uint8_t flags);

/* Fills `ret` with the next control packet owed and counts it as sent; false when none is. */
bool vsock_conn_next_control(struct vsock_conn *conn, struct vsock_header *ret);
/* The header of a data packet of `len` bytes (<= the credit), counted as sent. */
void vsock_conn_data_header(struct vsock_conn *conn, uint32_t len, struct vsock_header *ret);

/* Reads "CONNECT <port>" (without the newline): 0 and the port, or -EINVAL. Decimal, no sign, no leading
 * zero. */
int vsock_greeting_parse(const char *line, size_t len, uint32_t *ret_port);

#endif
