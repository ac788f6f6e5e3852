/* The header of a virtio-vsock packet (virtio 1.2, section 5.10.6), as numbers and as the bytes on the ring.
 *
 *	 0        8        16       20       24    28     30   32      36          40        44
 *	+--------+--------+--------+--------+-----+------+----+-------+-----------+---------+----------
 *	| src_cid| dst_cid|src_port|dst_port| len | type | op | flags | buf_alloc | fwd_cnt | len bytes
 *	+--------+--------+--------+--------+-----+------+----+-------+-----------+---------+---------- */
#ifndef HULL_DEVICES_VSOCK_PACKET_H
#define HULL_DEVICES_VSOCK_PACKET_H

#include <stdint.h>

#define VSOCK_HEADER_BYTES  44
#define VSOCK_CID_HOST      2
#define VSOCK_CID_GUEST_MIN 3
#define VSOCK_PORT_ANY      UINT32_MAX
#define VSOCK_TYPE_STREAM   1

enum vsock_op {
	VSOCK_OP_INVALID = 0,
	VSOCK_OP_REQUEST = 1,
	VSOCK_OP_RESPONSE = 2,
	VSOCK_OP_RST = 3,
	VSOCK_OP_SHUTDOWN = 4,
	VSOCK_OP_RW = 5,
	VSOCK_OP_CREDIT_UPDATE = 6,
	VSOCK_OP_CREDIT_REQUEST = 7,
};

/* Flags of VSOCK_OP_SHUTDOWN: the sender will not receive, will not send, any more. */
#define VSOCK_SHUTDOWN_RECEIVE 1u
#define VSOCK_SHUTDOWN_SEND    2u
#define VSOCK_SHUTDOWN_BOTH    3u

struct vsock_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len; /* of the payload, bytes */
	uint16_t type;
	uint16_t op; /* enum vsock_op, or what a guest made up */
	uint32_t flags;
	uint32_t buf_alloc,
	        fwd_cnt; /* the sender's receive buffer, and how much it has consumed in all; mod 2^32 */
};

void vsock_header_encode(const struct vsock_header *header, uint8_t ret[VSOCK_HEADER_BYTES]);
void vsock_header_decode(struct vsock_header *ret, const uint8_t bytes[VSOCK_HEADER_BYTES]);

#endif
