/* The vhost-user protocol as it is on the wire (QEMU's "Vhost-user Protocol"), as far as this front-end speaks it. Numbers are in
 * the machine's order, nothing is padded. Payloads that are no struct of their own here: a u64, struct vhost_vring_state, struct
 * vhost_vring_addr.
 *
 *	+---------+-------+------+-------------+
 *	| request | flags | size | payload …   |	flags: version 1; 4 a reply; 8 a reply is wanted
 *	+---------+-------+------+-------------+	descriptors travel beside it (SCM_RIGHTS)
 *	   u32      u32     u32    `size` bytes */
#ifndef HULL_DEVICES_VHOST_USER_PROTOCOL_H
#define HULL_DEVICES_VHOST_USER_PROTOCOL_H

#include <linux/vhost_types.h>
#include <stdint.h>

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_RESET_DEVICE = 34,
};

/* What a back-end asks of us, on a socket of its own. */
enum vhost_user_backend_request { VHOST_USER_BACKEND_CONFIG_CHANGE = 2 };

#define VHOST_USER_VERSION	 1u
#define VHOST_USER_VERSION_MASK	 3u
#define VHOST_USER_IS_REPLY	 4u
#define VHOST_USER_NEEDS_REPLY	 8u

/* Bit of the device's features by which a back-end says that it has protocol features. */
#define VHOST_USER_F_PROTOCOL_FEATURES 30

enum vhost_user_protocol_feature {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
};

struct vhost_user_header {
	uint32_t request, flags, size;
} __attribute__((packed));

struct vhost_user_region {
	uint64_t gpa, size_bytes, user_address, fd_offset;
} __attribute__((packed));

#define VHOST_USER_REGIONS_MAX 8 /* what every back-end takes in one table */

/* Only the first `n` regions are sent, with a descriptor each. */
struct vhost_user_memory {
	uint32_t n, padding;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
} __attribute__((packed));

#define VHOST_USER_CONFIG_MAX 256

/* Only the first `size` bytes of `data` are sent. */
struct vhost_user_config {
	uint32_t offset, size, flags;
	uint8_t data[VHOST_USER_CONFIG_MAX];
} __attribute__((packed));

#endif
