/* The virtio-blk device from inside, shared by its two parts:
 *
 *	virtio_blk.c		the queue: requests taken, handed to the engine, answered; the device's life
 *	virtio_blk_request.c	one request: what the driver asks for, checked
 *
 *	readable                          writable
 *	+------+----------+--------+------+ +---------+--------+
 *	| type | reserved | sector | data | |  data   | status |   virtio 1.2, section 5.2.6; how it is cut into
 *	+------+----------+--------+------+ +---------+--------+   descriptors is the driver's choice (2.7.4.1)
 *	  le32     le32      le64    …          …        u8 */
#ifndef HULL_DEVICES_VIRTIO_BLK_DEVICE_H
#define HULL_DEVICES_VIRTIO_BLK_DEVICE_H

#include "devices/blk_io.h"
#include "devices/rate_limiter.h"
#include "devices/virtio_blk.h"

#define BLK_QUEUE_SIZE   256
#define BLK_SECTOR_BYTES 512u
#define BLK_SECTOR_SHIFT 9
#define BLK_SERIAL_BYTES 20

/* Header and status take a descriptor each. */
#define BLK_SEGMENTS_MAX      (BLK_QUEUE_SIZE - 2)
#define BLK_SEGMENT_BYTES_MAX (32u << 10)

/* One DISCARD or WRITE_ZEROES covers 2 GiB at most, so that none holds the disk for very long. */
#define BLK_RANGE_SECTORS_MAX (1u << 22)

/* Section 5.2.4, up to the last field of a feature we offer. */
struct blk_config_space {
	uint64_t capacity; /* sectors */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));

_Static_assert(sizeof(struct blk_config_space) == 60, "5.2.4: write_zeroes_may_unmap is at 56");

/* Section 5.2.6: how a request ended. */
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };

struct blk_request {
	struct blk_io io;
	uint8_t *status; /* guest memory */
	uint64_t sector; /* for messages */
	uint32_t in_bytes; /* what a success writes for the driver, the status byte included */
	uint64_t data_bytes, begun_ns;
	struct virtq_chain chain;
};

/* What is below: it can be exchanged while the driver looks on. */
struct blk_disk {
	char *path;		     /* owned, as all of it; for messages */
	int fd;			     /* -1: none */
	struct blk_backend *engine;
	struct loop_source *event; /* on engine->event_fd; NULL when all finishes at once */
};

struct virtio_blk {
	struct virtio_dev dev;
	struct loop *loop; /* borrowed */
	struct blk_disk disk;
	enum blk_engine engine_kind;
	bool read_only, flush_offered, discard_offered;
	struct blk_config_space config;
	char serial[BLK_SERIAL_BYTES];

	struct loop_source *again; /* timer: the driver keeps us busy, the kernel had no room, or a limit is reached */
	struct rate_limiter limiter;

	struct blk_request *requests; /* BLK_QUEUE_SIZE slots */
	uint16_t free_slots[BLK_QUEUE_SIZE]; /* a stack, so that few slots are touched */
	uint16_t n_free;
	uint32_t errors_logged;
	struct blk_metrics metrics;
};

/* Looks at the request whose chain was popped: 1 with req->io to be started; 0 when it is to be answered with `*ret_status`
 * at once; -EINVAL when it is none (5.2.6.1). With the device's lock. */
int blk_request_parse(struct virtio_blk *blk, struct blk_request *req, uint8_t *ret_status);

#endif
