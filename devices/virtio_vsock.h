/* virtio-vsock (virtio 1.2, section 5.10), stream sockets, with Firecracker's "hybrid" Unix-socket back-end:
 *
 *	host → guest: connect to uds_path, write "CONNECT <port>\n", read "OK <host port>\n", then the stream
 *	guest → host: a connection to port P of CID 2 is a connection to the Unix socket "<uds_path>_<P>"
 *
 * A guest connection to a port given a sink ends in the monitor itself: the bytes go to that descriptor. */
#ifndef HULL_DEVICES_VIRTIO_VSOCK_H
#define HULL_DEVICES_VIRTIO_VSOCK_H

#include "common/loop.h"
#include "devices/virtio.h"

struct virtio_vsock_sink {
	uint32_t port;
	int fd; /* borrowed; a file or pipe; written with blocking semantics bounded by the connection's credit */
	uint64_t limit_bytes; /* a file keeps so many, the newest; 0: all */
};

struct virtio_vsock_config {
	uint32_t guest_cid;   /* >= 3 */
	const char *uds_path; /* the socket is created here and removed at the end; copied */
	const struct virtio_vsock_sink *sinks; /* copied */
	size_t n_sinks;
};

/* As Firecracker counts: rx is towards the guest. */
struct vsock_metrics {
	uint64_t rx_queue_event_count, tx_queue_event_count; /* doorbells */
	uint64_t rx_packets_count, tx_packets_count;
	uint64_t rx_bytes_count, tx_bytes_count; /* of the streams, headers not counted */
	uint64_t conns_added, conns_removed;
	uint64_t conns_killed; /* removed as their opening took too long */
	uint64_t rx_read_fails, tx_write_fails; /* the host's socket, or a sink */
};

/* NULL with `err` set ("uds_path" taken by a living socket, too long, …). */
struct virtio_dev *virtio_vsock_new(
	const struct virtio_vsock_config *config, struct loop *loop, const struct gmem *mem, struct error *err);

const struct vsock_metrics *virtio_vsock_metrics(const struct virtio_dev *dev);

#endif
