/* The header of a virtio-vsock packet between numbers and bytes. */
#include "devices/vsock_packet.h"

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <string.h>

/* As it lies on the ring, little-endian. */
struct wire_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static_assert(sizeof(struct wire_header) == VSOCK_HEADER_BYTES, "virtio 1.2, 5.10.6");
static_assert(offsetof(struct wire_header, fwd_cnt) == 40, "virtio 1.2, 5.10.6");

void vsock_header_encode(const struct vsock_header *header, uint8_t ret[VSOCK_HEADER_BYTES])
{
	struct wire_header wire = {
	        .src_cid = htole64(header->src_cid),
	        .dst_cid = htole64(header->dst_cid),
	        .src_port = htole32(header->src_port),
	        .dst_port = htole32(header->dst_port),
	        .len = htole32(header->len),
	        .type = htole16(header->type),
	        .op = htole16(header->op),
	        .flags = htole32(header->flags),
	        .buf_alloc = htole32(header->buf_alloc),
	        .fwd_cnt = htole32(header->fwd_cnt),
	};

	memcpy(ret, &wire, sizeof(wire));
}

void vsock_header_decode(struct vsock_header *ret, const uint8_t bytes[VSOCK_HEADER_BYTES])
{
	struct wire_header wire;

	memcpy(&wire, bytes, sizeof(wire));
	*ret = (struct vsock_header){
	        .src_cid = le64toh(wire.src_cid),
	        .dst_cid = le64toh(wire.dst_cid),
	        .src_port = le32toh(wire.src_port),
	        .dst_port = le32toh(wire.dst_port),
	        .len = le32toh(wire.len),
	        .type = le16toh(wire.type),
	        .op = le16toh(wire.op),
	        .flags = le32toh(wire.flags),
	        .buf_alloc = le32toh(wire.buf_alloc),
	        .fwd_cnt = le32toh(wire.fwd_cnt),
	};
}
