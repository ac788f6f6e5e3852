/* Several writable chains of a virtqueue as one scatter list, so that one readv() fills many receive buffers.
 *
 * Theory of operation. virtq_batch_fill() pops chains and lays their writable parts end to end in `iov`;
 * where each chain is to begin with a header, those first bytes are kept apart in `head_iov`. The device
 * reads into iov, then takes the chains it has filled from the front; virtq_batch_return() gives the rest
 * back to the ring. A batch lives no longer than the device's lock is held. */
#ifndef HULL_DEVICES_VIRTQ_BATCH_H
#define HULL_DEVICES_VIRTQ_BATCH_H

#include "devices/virtq.h"

#define VIRTQ_BATCH_CHAINS_MAX 64
#define VIRTQ_BATCH_IOV_MAX    1000 /* room for one more beside it in a readv() of IOV_MAX */
#define VIRTQ_BATCH_HEAD_MAX   128

struct virtq_batch_chain {
	uint16_t head;
	uint16_t first_iov, n_iov;           /* of iov */
	uint16_t first_head_iov, n_head_iov; /* of head_iov */
	uint32_t bytes;                      /* in iov */
};

struct virtq_batch {
	struct virtq *vq;
	uint32_t head_bytes; /* kept apart at the start of each chain */
	uint16_t n, taken;   /* chains popped; of those, filled and given to the driver */
	uint16_t n_iov, n_head_iov;
	uint64_t bytes; /* capacity of all chains not taken */
	struct virtq_batch_chain chains[VIRTQ_BATCH_CHAINS_MAX];
	struct iovec
	        iov[VIRTQ_BATCH_IOV_MAX + 1]; /* the last one is the device's own, for what does not fit */
	struct iovec head_iov[VIRTQ_BATCH_HEAD_MAX];
	struct virtq_chain chain; /* the one being popped */
};

void virtq_batch_begin(struct virtq_batch *batch, struct virtq *vq, uint32_t head_bytes);
/* Pops until `chains` chains or `bytes` bytes are at hand, or the ring or the room ends. 0, or -errno when
 * the driver broke the rules: a malformed chain, or one that does not hold the header and a byte. Then
 * nothing is given back. */
int virtq_batch_fill(struct virtq_batch *batch, uint16_t chains, uint64_t bytes);
/* Where the chains not taken begin, and how many pieces they have. */
struct iovec *virtq_batch_iov(struct virtq_batch *batch, uint16_t *ret_n);
/* Writes the header of the i-th chain (`len` <= head_bytes), or overwrites the start of its data if
 * head_bytes is 0. */
void virtq_batch_write_head(
        struct virtq_batch *batch, uint16_t i, uint32_t offset, const void *data, uint32_t len);
/* Completes the first chain not taken, `data_bytes` of its iov filled. `more`: the driver is to see it only
 * together with the next one. 0 or -EFAULT. */
int virtq_batch_take(struct virtq_batch *batch, uint32_t data_bytes, bool more);
/* Gives back what was not taken. */
void virtq_batch_return(struct virtq_batch *batch);

/* The bytes [offset, offset + len) of a chain's readable part as pieces, at most VIRTQ_IOV_MAX: how many. */
int virtq_chain_slice(const struct virtq_chain *chain, uint64_t offset, uint64_t len, struct iovec *ret);

#endif
