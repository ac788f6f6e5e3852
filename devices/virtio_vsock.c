/* virtio-vsock: the rings and the device's life. See vsock_device.h for the whole. */
#include "devices/virtio_vsock.h"

#include "common/checked.h"
#include "devices/vsock_device.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define QUEUE_SIZE 256
/* Packets from the guest in one go, before others on the loop get their turn. */
#define TX_BUDGET 256
/* VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, 5.10.6.7. */
#define EVENT_TRANSPORT_RESET 0
/* So long a driver may take to act on it: on a busy host one second was too short, and who came then was dropped without a word. Linux's gives
 * the buffer back once it has; another's may give none. */
#define EVENT_PATIENCE_NS 10000000000ull
/* Host ports of connections from the host start here, far from those a service would choose. */
#define HOST_PORT_FIRST 0x40000000u

static struct virtio_vsock *from_dev(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_vsock, dev);
}

bool vsock_is_running(const struct virtio_vsock *v)
{
	return v->dev.active && !(v->dev.status & VIRTIO_STATUS_NEEDS_RESET) && !v->quiet &&
	       !v->reset_pending;
}

/* Connections. */

static struct vsock_conn_list *bucket_of(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port)
{
	return &v->buckets[(guest_port * 31 + host_port) % VSOCK_BUCKETS];
}

struct vsock_conn *vsock_conn_find(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn *conn;

	LIST_FOREACH(conn, bucket_of(v, guest_port, host_port), bucket)
	if (conn->guest_port == guest_port && conn->host_port == host_port)
		return conn;
	return NULL;
}

struct vsock_conn *vsock_conn_add(
        struct virtio_vsock *v, enum vsock_conn_state state, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn *conn;

	if (v->n_conns >= VSOCK_CONNS_MAX)
		return NULL;
	conn = malloc(sizeof(*conn));
	if (!conn)
		return NULL;
	vsock_conn_init(conn, state, guest_port, host_port);
	conn->vsock = v;
	conn->guest_cid = v->guest_cid;
	LIST_INSERT_HEAD(&v->all, conn, all);
	v->n_conns++;
	metric_inc(&v->metrics.conns_added);
	return conn;
}

void vsock_conn_enter(struct vsock_conn *conn)
{
	LIST_INSERT_HEAD(bucket_of(conn->vsock, conn->guest_port, conn->host_port), conn, bucket);
	conn->known = true;
}

static void leave_table(struct vsock_conn *conn)
{
	if (conn->known)
		LIST_REMOVE(conn, bucket);
	conn->known = false;
}

void vsock_conn_set_deadline(struct vsock_conn *conn, bool on)
{
	struct virtio_vsock *v = conn->vsock;

	if (conn->has_deadline)
		TAILQ_REMOVE(&v->deadlines, conn, deadline);
	conn->has_deadline = on;
	if (!on)
		return;
	/* All deadlines are equally far off, so the list stays sorted. */
	conn->deadline_ns = monotonic_ns() + v->handshake_ns;
	TAILQ_INSERT_TAIL(&v->deadlines, conn, deadline);
	if (TAILQ_FIRST(&v->deadlines) == conn)
		loop_timer_arm(v->timer, v->handshake_ns);
}

static void set_speaks(struct vsock_conn *conn, bool on)
{
	if (conn->waits_to_speak == on)
		return;
	conn->waits_to_speak = on;
	if (on)
		TAILQ_INSERT_TAIL(&conn->vsock->speak, conn, speak);
	else
		TAILQ_REMOVE(&conn->vsock->speak, conn, speak);
}

static void free_conn(struct vsock_conn *conn)
{
	struct virtio_vsock *v = conn->vsock;

	vsock_host_detach(conn);
	leave_table(conn);
	set_speaks(conn, false);
	vsock_conn_set_deadline(conn, false);
	if (conn->waits_for_ring)
		TAILQ_REMOVE(&v->ring_wait, conn, ring_wait);
	LIST_REMOVE(conn, all);
	v->n_conns--;
	metric_inc(&v->metrics.conns_removed);
	vsock_conn_done(conn);
	free(conn);
}

void vsock_conn_settle(struct vsock_conn *conn)
{
	if (conn->state == VSOCK_CONN_CLOSED)
		vsock_host_detach(conn);
	if (vsock_conn_is_over(conn)) {
		free_conn(conn);
		return;
	}
	if (conn->forgotten)
		leave_table(conn); /* the guest may use the ports anew */
	if (vsock_host_lacks_credit(conn))
		vsock_conn_out_of_credit(conn);
	set_speaks(conn, conn->owed != 0);
	if (conn->has_deadline && conn->state != VSOCK_CONN_GREETING && conn->state != VSOCK_CONN_REQUESTED)
		vsock_conn_set_deadline(conn, false);
	vsock_host_watch(conn);
}

static void drop_everything(struct virtio_vsock *v)
{
	while (!LIST_EMPTY(&v->all))
		free_conn(LIST_FIRST(&v->all));
	v->n_rsts = 0;
	v->reset_pending = false;
}

void vsock_break(struct virtio_vsock *v, const char *why)
{
	virtio_dev_broken(&v->dev, why);
	/* The driver will not serve its connections any more: let the host sides know. Not here, in the midst
	 * of one. */
	v->reset_pending = true;
	loop_kick(&v->kick);
}

/* Packets from the guest. */

/* Answers `header` with an RST. The caller has made sure that there is room. */
static void refuse(struct virtio_vsock *v, const struct vsock_header *header)
{
	if (header->op == VSOCK_OP_RST)
		return; /* never one for one */
	v->rsts[(v->first_rst + v->n_rsts++) % VSOCK_RSTS_MAX] = (struct vsock_header){
	        .src_cid = header->dst_cid,
	        .dst_cid = header->src_cid,
	        .src_port = header->dst_port,
	        .dst_port = header->src_port,
	        .type = header->type,
	        .op = VSOCK_OP_RST,
	};
}

static void on_request(struct virtio_vsock *v, const struct vsock_header *header)
{
	struct vsock_conn *conn =
	        vsock_conn_add(v, VSOCK_CONN_ESTABLISHED, header->src_port, header->dst_port);

	if (!conn) {
		refuse(v, header);
		return;
	}
	conn->peer_buf_alloc = header->buf_alloc;
	conn->peer_fwd_cnt = header->fwd_cnt;
	conn->sink = vsock_sink_find(v, header->dst_port);
	if (!conn->sink && vsock_host_connect(conn, header->dst_port) < 0) {
		refuse(v, header);
		free_conn(conn);
		return;
	}
	conn->owed = VSOCK_OWED_RESPONSE;
	vsock_conn_enter(conn);
	vsock_conn_settle(conn);
}

static void on_packet(struct virtio_vsock *v, struct vsock_conn *conn, const struct vsock_header *header)
{
	switch (vsock_conn_packet(conn, header)) {
	case VSOCK_VERDICT_NOTHING:
		break;
	case VSOCK_VERDICT_DELIVER:
		vsock_host_deliver(conn, &v->chain, VSOCK_HEADER_BYTES, header->len);
		break;
	case VSOCK_VERDICT_OPENED:
		vsock_host_opened(conn);
		break;
	case VSOCK_VERDICT_SHUTDOWN:
		vsock_host_flush(conn);
		break;
	case VSOCK_VERDICT_FORGET:
		if (conn->state == VSOCK_CONN_CLOSING)
			break; /* it had said all it wanted to say; that is still being passed on */
		               /* fall through */
	case VSOCK_VERDICT_RESET:
		vsock_conn_close(conn);
		break;
	}
	vsock_conn_settle(conn);
}

/* The packet in v->chain belongs to no connection. A restore has ended all of them; what the guest had sent to a sink before it heard of that, and
 * takes for sent, still goes there. */
static void on_stray(struct virtio_vsock *v, const struct vsock_header *header)
{
	struct vsock_sink *sink = header->op == VSOCK_OP_RW ? vsock_sink_find(v, header->dst_port) : NULL;
	struct iovec iov[VIRTQ_IOV_MAX];

	if (sink)
		vsock_sink_write(sink, iov, virtq_chain_slice(&v->chain, VSOCK_HEADER_BYTES, header->len, iov));
	refuse(v, header);
}

/* v->chain holds a packet: 0, or -EINVAL when it is not even one. */
static int receive_packet(struct virtio_vsock *v)
{
	uint8_t bytes[VSOCK_HEADER_BYTES];
	struct vsock_header header;
	struct vsock_conn *conn;

	if (virtq_chain_read(&v->chain, 0, bytes, sizeof(bytes)) < sizeof(bytes))
		return -EINVAL;
	vsock_header_decode(&header, bytes);
	metric_inc(&v->metrics.tx_packets_count);
	if (header.len > v->chain.out_bytes - VSOCK_HEADER_BYTES)
		return -EINVAL;
	if (header.src_cid != v->guest_cid)
		return 0; /* forged, or from before a restore: nobody to answer (5.10.6.4.1) */
	if (header.dst_cid != VSOCK_CID_HOST || header.type != VSOCK_TYPE_STREAM) {
		refuse(v, &header);
		return 0;
	}
	conn = vsock_conn_find(v, header.src_port, header.dst_port);
	if (conn)
		on_packet(v, conn, &header);
	else if (header.op == VSOCK_OP_REQUEST)
		on_request(v, &header);
	else
		on_stray(v, &header);
	return 0;
}

/* Takes what the guest has sent, as far as the budget and the room for refusals go. */
static void drain_tx(struct virtio_vsock *v)
{
	struct virtq *tx = &v->dev.queues[VSOCK_QUEUE_TX];
	int budget = TX_BUDGET, r;

	if (!tx->ready)
		return;
	virtq_disable_doorbell(tx);
	while (v->n_rsts < VSOCK_RSTS_MAX) {
		if (!budget--) {
			loop_kick(&v->kick);
			return;
		}
		r = virtq_pop_or_arm(tx, &v->chain);
		if (r == 0)
			return;
		if (r < 0 || receive_packet(v) < 0 || virtq_push(tx, v->chain.head, 0) < 0) {
			vsock_break(v, "malformed packet in the transmit queue");
			return;
		}
		v->tx_used = true;
	}
}

/* Packets to the guest. */

static bool next_control(struct virtio_vsock *v, struct vsock_header *ret)
{
	struct vsock_conn *conn;

	if (v->n_rsts) {
		*ret = v->rsts[v->first_rst];
		v->first_rst = (v->first_rst + 1) % VSOCK_RSTS_MAX;
		v->n_rsts--;
		return true;
	}
	while ((conn = TAILQ_FIRST(&v->speak))) {
		bool any = vsock_conn_next_control(conn, ret);

		/* To the end of the line, should it owe more. */
		set_speaks(conn, false);
		vsock_conn_settle(conn);
		if (any)
			return true;
	}
	return false;
}

static bool owes_packets(const struct virtio_vsock *v)
{
	return v->n_rsts || !TAILQ_EMPTY(&v->speak);
}

static void speak(struct virtio_vsock *v)
{
	struct virtq *rx = &v->dev.queues[VSOCK_QUEUE_RX];
	uint8_t bytes[VSOCK_HEADER_BYTES];
	struct vsock_header header;

	while (owes_packets(v)) {
		int r = rx->ready ? virtq_pop(rx, &v->chain) : 0;

		if (r == 0)
			return;
		if (r < 0 || v->chain.in_bytes < VSOCK_HEADER_BYTES) {
			vsock_break(v, "malformed buffer in the receive queue");
			return;
		}
		if (!next_control(v, &header)) {
			virtq_unpop(rx, 1);
			return;
		}
		vsock_header_encode(&header, bytes);
		virtq_chain_write(&v->chain, 0, bytes, sizeof(bytes));
		if (virtq_push(rx, v->chain.head, sizeof(bytes)) < 0) {
			vsock_break(v, "receive queue outside memory");
			return;
		}
		metric_inc(&v->metrics.rx_packets_count);
		v->rx_used = true;
	}
}

/* Lets those that had data but no buffer look at their sockets again. */
static void wake_ring_waiters(struct virtio_vsock *v)
{
	struct vsock_conn *conn;

	while ((conn = TAILQ_FIRST(&v->ring_wait))) {
		TAILQ_REMOVE(&v->ring_wait, conn, ring_wait);
		conn->waits_for_ring = false;
		vsock_host_watch(conn);
	}
}

/* Whether the driver is to ring when it adds receive buffers: only while somebody waits for them. */
static void serve_rx(struct virtio_vsock *v)
{
	struct virtq *rx = &v->dev.queues[VSOCK_QUEUE_RX];

	if (!rx->ready)
		return;
	do {
		speak(v);
		if (!vsock_is_running(v))
			return;
		if (!owes_packets(v) && TAILQ_EMPTY(&v->ring_wait)) {
			virtq_disable_doorbell(rx);
			return;
		}
		/* With EVENT_IDX it is on for one index only: once that is taken, to be set again. */
		virtq_enable_doorbell(rx);
	} while (owes_packets(v) && virtq_has_work(rx));
	if (virtq_has_work(rx))
		wake_ring_waiters(v);
}

static void send_event(struct virtio_vsock *v)
{
	struct virtq *events = &v->dev.queues[VSOCK_QUEUE_EVENT];
	uint32_t id = htole32(EVENT_TRANSPORT_RESET);
	int r;

	if (!v->event_owed || !events->ready)
		return;
	r = virtq_pop_or_arm(events, &v->chain);
	if (r == 0)
		return;
	if (r < 0 || virtq_chain_write(&v->chain, 0, &id, sizeof(id)) < sizeof(id) ||
	        virtq_push(events, v->chain.head, sizeof(id)) < 0) {
		vsock_break(v, "malformed buffer in the event queue");
		return;
	}
	v->event_owed = false;
	v->event_used = true;
	v->event_unheard = true;
	v->event_index = virtq_driver_index(events);
	v->event_sent_ns = monotonic_ns();
}

bool vsock_drops_connections(struct virtio_vsock *v)
{
	const struct virtq *events = &v->dev.queues[VSOCK_QUEUE_EVENT];

	if (v->event_unheard && (!events->ready || virtq_driver_index(events) != v->event_index ||
	                                monotonic_ns() - v->event_sent_ns > EVENT_PATIENCE_NS))
		v->event_unheard = false;
	return v->event_unheard;
}

static void interrupt(struct virtio_vsock *v)
{
	if (v->rx_used)
		virtio_dev_notify(&v->dev, VSOCK_QUEUE_RX);
	if (v->tx_used)
		virtio_dev_notify(&v->dev, VSOCK_QUEUE_TX);
	if (v->event_used)
		virtio_dev_notify(&v->dev, VSOCK_QUEUE_EVENT);
	v->rx_used = v->tx_used = v->event_used = false;
}

void vsock_service(struct virtio_vsock *v)
{
	if (v->reset_pending)
		drop_everything(v);
	if (!vsock_is_running(v))
		return;
	if (v->parked)
		vsock_host_unpark(v);
	send_event(v);
	/* Room for refusals first; then what the guest sent; then the answers to that. */
	serve_rx(v);
	if (vsock_is_running(v))
		drain_tx(v);
	if (vsock_is_running(v))
		serve_rx(v);
	/* The transmit ring rested for want of room, and there is some now. */
	if (vsock_is_running(v) && v->n_rsts < VSOCK_RSTS_MAX &&
	        virtq_has_work(&v->dev.queues[VSOCK_QUEUE_TX]))
		loop_kick(&v->kick);
	interrupt(v);
}

static void on_kick(void *ctx)
{
	struct virtio_vsock *v = ctx;

	virtio_dev_enter(&v->dev);
	vsock_service(v);
	virtio_dev_leave(&v->dev);
}

/* The device as the core sees it. */

static uint64_t vsock_features(struct virtio_dev *dev)
{
	(void)dev;
	return 0; /* stream sockets are implied (5.10.3) */
}

static void vsock_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	uint64_t cid = htole64(from_dev(dev)->guest_cid);

	memcpy(ret, (const char *)&cid + offset, len);
}

static int vsock_activate(struct virtio_dev *dev)
{
	loop_kick(&from_dev(dev)->kick); /* buffers may be there already */
	return 0;
}

/* Possibly on a vCPU thread, where sockets must not be touched: they go when the loop thread comes by. */
static void vsock_reset(struct virtio_dev *dev)
{
	struct virtio_vsock *v = from_dev(dev);

	v->reset_pending = true;
	v->event_owed = v->event_unheard = false;
	v->quiet = false;
	v->rx_used = v->tx_used = v->event_used = false;
	loop_kick(&v->kick);
}

static void vsock_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_vsock *v = from_dev(dev);

	if (q != VSOCK_QUEUE_EVENT)
		metric_inc(q == VSOCK_QUEUE_RX ? &v->metrics.rx_queue_event_count
					       : &v->metrics.tx_queue_event_count);
	if (loop_kick_is_loop_thread(&v->kick))
		vsock_service(v);
	else
		loop_kick(&v->kick);
}

static void vsock_quiesce(struct virtio_dev *dev)
{
	from_dev(dev)->quiet = true; /* every packet is dealt with whole: nothing is in flight */
}

static void vsock_resume(struct virtio_dev *dev)
{
	from_dev(dev)->quiet = false;
	loop_kick(&from_dev(dev)->kick);
}

/* Connections are not saved: their other ends are sockets of this host. The guest is told (5.10.6.7). */
static void vsock_save(struct virtio_dev *dev, struct state_writer *w)
{
	struct virtio_vsock *v = from_dev(dev);

	state_put_u64(w, v->guest_cid);
	state_put_u32(w, v->next_host_port);
}

static int vsock_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	struct virtio_vsock *v = from_dev(dev);
	uint64_t guest_cid = state_get_u64(r);
	uint32_t next_host_port = state_get_u32(r);

	if (r->failed || guest_cid < VSOCK_CID_GUEST_MIN || guest_cid >= UINT32_MAX)
		return error_set(err, EINVAL, "saved virtio-vsock has an impossible guest_cid");
	if (next_host_port < HOST_PORT_FIRST || next_host_port >= 2 * HOST_PORT_FIRST)
		return error_set(err, EINVAL, "saved virtio-vsock has an impossible host port");
	v->guest_cid = guest_cid;
	v->next_host_port = next_host_port;
	v->event_owed = true;
	return 0;
}

static void vsock_free(struct virtio_dev *dev)
{
	struct virtio_vsock *v = from_dev(dev);

	drop_everything(v);
	vsock_host_close(v);
	vsock_sinks_close(v);
	loop_kick_done(&v->kick);
	free(v);
}

static const struct virtio_ops vsock_ops = {
        .name = "virtio-vsock",
        .device_id = 19,
        .n_queues = VSOCK_QUEUES,
        .queue_size = QUEUE_SIZE,
        .features = vsock_features,
        .config_size = sizeof(uint64_t),
        .config_read = vsock_config_read,
        .activate = vsock_activate,
        .reset = vsock_reset,
        .doorbell = vsock_doorbell,
        .quiesce = vsock_quiesce,
        .resume = vsock_resume,
        .save = vsock_save,
        .load = vsock_load,
        .free = vsock_free,
};

const struct vsock_metrics *virtio_vsock_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_vsock, dev)->metrics;
}

struct virtio_dev *virtio_vsock_new(const struct virtio_vsock_config *config, struct loop *loop,
        const struct gmem *mem, struct error *err)
{
	struct virtio_vsock *v;
	int r;

	if (config->guest_cid < VSOCK_CID_GUEST_MIN || config->guest_cid == UINT32_MAX) {
		error_set_field(err, EINVAL, "guest_cid", "must be at least 3 and below 4294967295");
		return NULL;
	}
	v = calloc(1, sizeof(*v));
	if (!v) {
		error_set_errno(err, ENOMEM, "cannot make a vsock device");
		return NULL;
	}
	virtio_dev_init(&v->dev, &vsock_ops, mem);
	v->loop = loop;
	v->guest_cid = config->guest_cid;
	v->listen_fd = -1;
	v->handshake_ns = VSOCK_HANDSHAKE_NS;
	v->next_host_port = HOST_PORT_FIRST;
	TAILQ_INIT(&v->speak);
	TAILQ_INIT(&v->ring_wait);
	TAILQ_INIT(&v->deadlines);
	r = loop_kick_init(&v->kick, loop, on_kick, v);
	if (r < 0)
		error_set_errno(err, -r, "cannot watch a vsock device");
	else
		r = vsock_sinks_open(v, config->sinks, config->n_sinks, err);
	if (r == 0)
		r = vsock_host_listen(v, config->uds_path, err);
	if (r < 0) {
		virtio_dev_free(&v->dev);
		return NULL;
	}
	return &v->dev;
}
