/* The virtio-vsock device from inside, shared by its three parts:
 *
 *	virtio_vsock.c	the rings: packets in, packets out, the device's life
 *	vsock_host.c	the Unix sockets: listening, the CONNECT line, connecting, moving bytes
 *	vsock_sink.c	ports that end in a descriptor of the monitor
 *
 * Theory of operation. All work is done on the loop thread under the device's lock; what arrives on a vCPU thread (a
 * reset, a doorbell that came as an exit) only leaves a flag and a kick. Every entry from the loop does its own bit,
 * calls vsock_conn_settle() on each connection it touched, and ends with vsock_service(), which moves the rings on and
 * interrupts once.
 * What a guest can make us hold is bounded: VSOCK_CONNS_MAX connections, each with one queue and a set of owed packets,
 * and VSOCK_RSTS_MAX refusals for connections that never were. When those are used up, the transmit ring rests until
 * the guest has taken some (5.10.6.1.2). */
#ifndef HULL_DEVICES_VSOCK_DEVICE_H
#define HULL_DEVICES_VSOCK_DEVICE_H

#include "common/bounded_file.h"
#include "devices/loop_kick.h"
#include "devices/virtio_vsock.h"
#include "devices/virtq_batch.h"
#include "devices/vsock_conn.h"

#include <sys/stat.h>

#define VSOCK_CONNS_MAX 1024
#define VSOCK_RSTS_MAX  64
#define VSOCK_BUCKETS   256
/* For the CONNECT line, and again for the guest's answer. */
#define VSOCK_HANDSHAKE_NS 10000000000ull

enum { VSOCK_QUEUE_RX, VSOCK_QUEUE_TX, VSOCK_QUEUE_EVENT, VSOCK_QUEUES };

LIST_HEAD(vsock_conn_list, vsock_conn);
TAILQ_HEAD(vsock_conn_queue, vsock_conn);

struct vsock_sink {
	struct virtio_vsock *vsock;
	uint32_t port;
	int fd;                          /* borrowed */
	struct bounded_file limit;       /* of what `fd` may grow to */
	bool always_writable;            /* a regular file: it cannot be waited for and need not be */
	bool nonblocking, failed;        /* failed: what comes is discarded */
	struct loop_source *source;      /* NULL when always_writable */
	struct vsock_conn_queue waiting; /* connections with something queued, in turn */
};

struct virtio_vsock {
	struct virtio_dev dev;
	struct loop *loop;
	struct loop_kick kick;
	uint64_t guest_cid;
	bool quiet;         /* between quiesce() and resume() */
	bool parked;        /* sources were parked while nothing could move */
	bool reset_pending; /* connections are of a driver that is gone: drop them first of all */
	bool event_owed;    /* TRANSPORT_RESET, after a restore (5.10.6.7) */
	bool event_unheard; /* it was sent, and the driver has given no buffer since */
	uint16_t event_index; /* how far it had, then */
	uint64_t event_sent_ns;
	bool rx_used, tx_used, event_used; /* pushed to since the last interrupt */
	struct vsock_metrics metrics;

	/* Host side. */
	char *uds_path; /* owned; NULL until the socket is ours to remove */
	dev_t uds_dev;
	ino_t uds_ino;
	int listen_fd;
	struct loop_source *listen_source;
	struct loop_source *accept_timer; /* the end of a pause in accepting */
	struct loop_source *timer;        /* the first deadline */
	uint64_t handshake_ns;
	uint32_t next_host_port;
	struct vsock_sink *sinks;
	size_t n_sinks;

	unsigned n_conns;
	struct vsock_conn_list all;
	struct vsock_conn_list buckets[VSOCK_BUCKETS];
	struct vsock_conn_queue speak, ring_wait, deadlines;

	struct vsock_header rsts[VSOCK_RSTS_MAX]; /* a ring */
	unsigned first_rst, n_rsts;

	struct virtq_chain chain;
	struct virtq_batch batch;
};

/* virtio_vsock.c */

/* Whether the rings may be used now. */
bool vsock_is_running(const struct virtio_vsock *v);
/* Whether the driver is still to drop its connections of before a restore: it drops those that come meanwhile, too, and tells nobody. */
bool vsock_drops_connections(struct virtio_vsock *v);
/* Ends every entry from the loop: moves the rings on, interrupts. */
void vsock_service(struct virtio_vsock *v);
/* A new connection in the device's lists; NULL at the limit or without memory. */
struct vsock_conn *vsock_conn_add(
        struct virtio_vsock *v, enum vsock_conn_state state, uint32_t guest_port, uint32_t host_port);
struct vsock_conn *vsock_conn_find(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port);
/* Puts a connection whose ports are known where vsock_conn_find() finds it. */
void vsock_conn_enter(struct vsock_conn *conn);
/* After any change to `conn`: queues it for what it owes, sets what its socket is watched for, frees it when
 * it is over: the caller must not use it any more. */
void vsock_conn_settle(struct vsock_conn *conn);
/* Marks the connection as one that must get on within handshake_ns; false ends that. */
void vsock_conn_set_deadline(struct vsock_conn *conn, bool on);
/* The driver broke the rules of the rings. */
void vsock_break(struct virtio_vsock *v, const char *why);

/* vsock_host.c */

int vsock_host_listen(struct virtio_vsock *v, const char *path, struct error *err);
void vsock_host_close(struct virtio_vsock *v);
/* Connects to "<uds_path>_<port>". 0 or -errno. */
int vsock_host_connect(struct vsock_conn *conn, uint32_t port);
/* The guest accepted: "OK <host port>\n". */
void vsock_host_opened(struct vsock_conn *conn);
/* Takes `len` bytes, `offset` bytes into the readable part of `chain`: to the host, else into the queue. */
void vsock_host_deliver(
        struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t offset, uint32_t len);
/* Writes what is queued; passes on the guest's shutdown once nothing is. */
void vsock_host_flush(struct vsock_conn *conn);
/* What the connection's socket is to be watched for in its present state. */
void vsock_host_watch(struct vsock_conn *conn);
/* It would read from its socket, and the guest has no room. */
bool vsock_host_lacks_credit(const struct vsock_conn *conn);
/* The device runs again: sets all watches anew. */
void vsock_host_unpark(struct virtio_vsock *v);
/* Forgets and closes the host side. */
void vsock_host_detach(struct vsock_conn *conn);

/* vsock_sink.c */

int vsock_sinks_open(
        struct virtio_vsock *v, const struct virtio_vsock_sink *sinks, size_t n, struct error *err);
void vsock_sinks_close(struct virtio_vsock *v);
struct vsock_sink *vsock_sink_find(struct virtio_vsock *v, uint32_t port);
/* Bytes taken, 0 when the sink is full for now. A sink that fails swallows everything. */
size_t vsock_sink_write(struct vsock_sink *sink, const struct iovec *iov, int n);
/* Whether `conn` has something queued for its sink. */
void vsock_sink_wait(struct vsock_conn *conn, bool waits);

#endif
