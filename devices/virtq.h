/* A split virtqueue, device side (virtio 1.2, section 2.7), with indirect descriptors and EVENT_IDX.
 *
 * The rings are the driver's: each entry is copied once and validated on the copy. Anything a driver may not do (an
 * index out of range, a chain that loops or is too long, a buffer outside guest memory, a readable descriptor after a
 * writable one) makes virtq_pop() return an error, upon which the device must be marked NEEDS_RESET.
 * Used by one thread at a time: the device's lock, or that of the queue's group (devices/queue_group.h). */
#ifndef HULL_DEVICES_VIRTQ_H
#define HULL_DEVICES_VIRTQ_H

#include "devices/gmem.h"
#include "devices/state.h"

#include <stdbool.h>
#include <sys/uio.h>

#define VIRTQ_SIZE_MAX	256
#define VIRTQ_IOV_MAX	(VIRTQ_SIZE_MAX + 4) /* a buffer counts once more where it crosses memory regions */

struct vring_desc;
struct vring_avail;
struct vring_used;

struct virtq {
	/* Set once by the owner. */
	const struct gmem *mem;
	uint16_t max_size;
	/* Written by the driver through the transport while !ready. */
	uint16_t size; /* a power of two, 1..max_size once ready */
	gpa_t desc, avail, used;
	bool ready;
	/* Negotiated. */
	bool event_idx, indirect;
	/* Ours. */
	uint16_t next_avail; /* the next avail ring entry to pop */
	uint16_t next_used;  /* the next used ring entry to fill */
	uint16_t signalled_used; /* next_used when the driver was last interrupted */
	bool signalled_used_valid;
	/* The three areas in host memory, found and checked by virtq_enable(). */
	const struct vring_desc *desc_table;
	const struct vring_avail *avail_ring;
	struct vring_used *used_ring;
};

/* One request: the driver's readable buffers first, then the writable ones, as host memory. */
struct virtq_chain {
	uint16_t head;
	uint16_t n_out, n_in; /* iov[0..n_out) is readable, iov[n_out..n_out+n_in) is for us to write */
	uint64_t out_bytes, in_bytes;
	struct iovec iov[VIRTQ_IOV_MAX];
};

void virtq_init(struct virtq *vq, const struct gmem *mem, uint16_t max_size);
/* Back to after init: size max_size; ring addresses, indices, ready and what was negotiated cleared. */
void virtq_reset(struct virtq *vq);
/* Validates size and the three ring areas as the driver enables the queue. 0 or -EINVAL. */
int virtq_enable(struct virtq *vq);

/* Next request into `ret`: 1 when there is one, 0 when the ring is empty, -errno when the driver broke the rules. */
int virtq_pop(struct virtq *vq, struct virtq_chain *ret);
/* The same for a device that has turned the doorbell off to work the ring empty: 0 with the doorbell on again, once
 * nothing has come in between; else it stays off. */
int virtq_pop_or_arm(struct virtq *vq, struct virtq_chain *ret);
/* True when the avail ring holds something (or is broken: pop will say). */
bool virtq_has_work(const struct virtq *vq);
/* Gives back the last popped chains: the next pop returns them again. For a device that cannot serve them yet. */
void virtq_unpop(struct virtq *vq, uint16_t count);
/* Completes `head`, `written` bytes of its writable part filled. 0 or -EFAULT. */
int virtq_push(struct virtq *vq, uint16_t head, uint32_t written);
/* The same, but the driver sees it only together with the next virtq_push(): for one thing that spans several chains,
 * as a frame in merged receive buffers does (5.1.6.4). */
int virtq_stage(struct virtq *vq, uint16_t head, uint32_t written);
/* Whether what was pushed since the last call wants an interrupt (2.7.7.2). */
bool virtq_wants_interrupt(struct virtq *vq);
/* Tells the driver whether it should ring the doorbell (2.7.10). After enabling, look for work once more. */
void virtq_enable_doorbell(struct virtq *vq);
void virtq_disable_doorbell(struct virtq *vq);

/* For a device whose rings somebody else works on, while they are ready. How far the driver has made chains available, and
 * how far they were completed, both modulo 2^16. */
uint16_t virtq_driver_index(const struct virtq *vq);
uint16_t virtq_device_index(const struct virtq *vq);
/* Whoever worked on it has stopped, before the chain `next_avail`: that is where it goes on. */
void virtq_take_over(struct virtq *vq, uint16_t next_avail);

/* Copies between a chain and flat memory, `offset` bytes into its readable or writable part. Bytes copied: short when
 * the chain ends. */
size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset, void *dst, size_t len);
size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset, const void *src, size_t len);

/* Whether a ready queue's rings, or a chain's buffers, lie in these bytes of host memory, in part. */
bool virtq_holds(const struct virtq *vq, const void *host, uint64_t len);
bool virtq_chain_holds(const struct virtq_chain *chain, const void *host, uint64_t len);
/* Whether two ranges of host memory have a byte in common; one without a byte has none. */
bool virtq_overlaps(const void *a, uint64_t a_len, const void *b, uint64_t b_len);

void virtq_save(const struct virtq *vq, struct state_writer *w);
/* 0 or -EINVAL: validated as virtq_enable() does. */
int virtq_load(struct virtq *vq, struct state_reader *r);

#endif
