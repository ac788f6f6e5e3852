/* The virtio-blk device from inside, shared by its three parts:
 *
 *	virtio_blk.c		the device's life, and its disk's
 *	virtio_blk_queue.c	a queue: requests taken, handed to the engine, answered
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
#include "devices/queue_group.h"
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

/* A queue's own way to the disk. */
struct blk_port {
	struct blk_backend *engine;
	struct loop_source *event; /* on engine->event_fd, in the group's loop; NULL when all finishes at once */
};

/* All of it is guarded by the group's lock. */
struct blk_queue {
	struct virtio_blk *blk;
	uint16_t index;
	struct queue_group group;
	struct blk_port port;
	struct loop_source *again; /* timer: the driver keeps us busy, the kernel had no room, or a limit is reached */
	struct blk_request *requests; /* BLK_QUEUE_SIZE slots */
	uint16_t free_slots[BLK_QUEUE_SIZE]; /* a stack, so that few slots are touched */
	uint16_t n_free;
};

struct virtio_blk {
	struct virtio_dev dev;
	struct virtio_ops ops; /* of its own: how many queues it has is not the kind's to say */
	struct loop *loop; /* borrowed */
	uint16_t n_queues;
	struct blk_queue *queues;
	bool read_only, flush_offered, discard_offered;
	enum blk_engine engine_kind;
	char serial[BLK_SERIAL_BYTES];

	/* These change, and those of each queue with them, with the locks of the device and of all queues. */
	char *path; /* owned; for messages */
	int fd;	    /* owned; -1: none yet */
	struct blk_config_space config;

	pthread_mutex_t limiter_lock; /* for those who have a queue's lock, and only where a limit is on; a leaf */
	struct rate_limiter limiter;
	uint32_t errors_logged; /* atomic */
	struct blk_metrics metrics;
};

/* A queue of its own thread, if `thread_name` is given. 0 or -errno; to be ended by blk_queue_done() either way. Loop thread,
 * without locks, as what follows. */
int blk_queue_init(struct blk_queue *q, struct virtio_blk *blk, uint16_t index, const char *thread_name);
/* Nothing is under way any more. */
void blk_queue_done(struct blk_queue *q);
/* Something else than the ring has changed. */
void blk_queue_look_again(struct blk_queue *q);
/* An engine on `fd` that is listened to for `q`. 0 or -errno; to be closed either way. */
int blk_port_open(struct blk_queue *q, int fd, const char *path, struct blk_port *ret);
void blk_port_close(struct blk_queue *q, struct blk_port *port);

/* As queue_group_fn; `ctx` is the queue. */
void blk_queue_work(void *ctx, uint16_t index, bool rang);

/* With the group's lock, on any thread: waits for what was begun, and answers it, or forgets it. */
void blk_queue_finish(struct blk_queue *q);
void blk_queue_forget(struct blk_queue *q);
bool blk_queue_holds(const struct blk_queue *q, const void *host, uint64_t len);

/* Looks at the request whose chain was popped: 1 with req->io to be started; 0 when it is to be answered with `*ret_status`
 * at once; -EINVAL when it is none (5.2.6.1). With the lock of its queue. */
int blk_request_parse(struct virtio_blk *blk, struct blk_request *req, uint8_t *ret_status);

#endif
