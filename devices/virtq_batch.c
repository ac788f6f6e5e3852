/* Several writable chains of a virtqueue as one scatter list. */
#include "devices/virtq_batch.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void virtq_batch_begin(struct virtq_batch *batch, struct virtq *vq, uint32_t head_bytes)
{
	assert(head_bytes <= VIRTQ_BATCH_HEAD_MAX); /* even in pieces of one byte the first header fits */
	batch->vq = vq;
	batch->head_bytes = head_bytes;
	batch->n = batch->taken = batch->n_iov = batch->n_head_iov = 0;
	batch->bytes = 0;
}

/* Appends the writable part of batch->chain. False when there is no room: the chain is then not in the batch. */
static bool append(struct virtq_batch *batch)
{
	const struct virtq_chain *chain = &batch->chain;
	struct virtq_batch_chain *item = &batch->chains[batch->n];
	uint32_t head_left = batch->head_bytes;
	uint16_t n_iov = batch->n_iov, n_head_iov = batch->n_head_iov;

	for (uint16_t i = chain->n_out; i < chain->n_out + chain->n_in; i++) {
		struct iovec piece = chain->iov[i];

		if (head_left && piece.iov_len) {
			size_t part = piece.iov_len < head_left ? piece.iov_len : head_left;

			if (n_head_iov == VIRTQ_BATCH_HEAD_MAX)
				return false;
			batch->head_iov[n_head_iov++] = (struct iovec){piece.iov_base, part};
			piece.iov_base = (char *)piece.iov_base + part;
			piece.iov_len -= part;
			head_left -= (uint32_t)part;
		}
		if (!piece.iov_len)
			continue;
		if (n_iov == VIRTQ_BATCH_IOV_MAX)
			return false;
		batch->iov[n_iov++] = piece;
	}
	*item = (struct virtq_batch_chain){
	        .head = chain->head,
	        .first_iov = batch->n_iov,
	        .n_iov = n_iov - batch->n_iov,
	        .first_head_iov = batch->n_head_iov,
	        .n_head_iov = n_head_iov - batch->n_head_iov,
	        .bytes = (uint32_t)(chain->in_bytes - batch->head_bytes),
	};
	batch->n_iov = n_iov;
	batch->n_head_iov = n_head_iov;
	batch->bytes += item->bytes;
	batch->n++;
	return true;
}

static_assert(VIRTQ_BATCH_IOV_MAX >= VIRTQ_IOV_MAX, "one chain always fits");

int virtq_batch_fill(struct virtq_batch *batch, uint16_t chains, uint64_t bytes)
{
	if (chains > VIRTQ_BATCH_CHAINS_MAX)
		chains = VIRTQ_BATCH_CHAINS_MAX;
	while (batch->n < VIRTQ_BATCH_CHAINS_MAX && batch->n - batch->taken < chains &&
	        batch->bytes < bytes) {
		int r = virtq_pop(batch->vq, &batch->chain);

		if (r <= 0)
			return r;
		/* Lengths are 32 bits in a used element; no sane buffer comes near. */
		if (batch->chain.in_bytes <= batch->head_bytes || batch->chain.in_bytes > UINT32_MAX)
			return -EINVAL;
		if (!append(batch)) {
			virtq_unpop(batch->vq, 1);
			return 0; /* into a new batch any chain fits: see the assertion below */
		}
	}
	return 0;
}

struct iovec *virtq_batch_iov(struct virtq_batch *batch, uint16_t *ret_n)
{
	uint16_t first = batch->taken < batch->n ? batch->chains[batch->taken].first_iov : batch->n_iov;

	*ret_n = batch->n_iov - first;
	return &batch->iov[first];
}

void virtq_batch_write_head(
        struct virtq_batch *batch, uint16_t i, uint32_t offset, const void *data, uint32_t len)
{
	const struct virtq_batch_chain *item = &batch->chains[i];
	const struct iovec *piece =
	        batch->head_bytes ? &batch->head_iov[item->first_head_iov] : &batch->iov[item->first_iov];
	const struct iovec *end = piece + (batch->head_bytes ? item->n_head_iov : item->n_iov);

	for (; len && piece < end; piece++) {
		size_t part;

		if (offset >= piece->iov_len) {
			offset -= (uint32_t)piece->iov_len;
			continue;
		}
		part = piece->iov_len - offset < len ? piece->iov_len - offset : len;
		memcpy((char *)piece->iov_base + offset, data, part);
		data = (const char *)data + part;
		len -= (uint32_t)part;
		offset = 0;
	}
}

int virtq_batch_take(struct virtq_batch *batch, uint32_t data_bytes, bool more)
{
	const struct virtq_batch_chain *item = &batch->chains[batch->taken];

	assert(batch->taken < batch->n && data_bytes <= item->bytes);
	batch->bytes -= item->bytes;
	batch->taken++;
	return (more ? virtq_stage : virtq_push)(batch->vq, item->head, batch->head_bytes + data_bytes);
}

void virtq_batch_return(struct virtq_batch *batch)
{
	if (batch->n > batch->taken)
		virtq_unpop(batch->vq, batch->n - batch->taken);
	batch->n = batch->taken;
	batch->bytes = 0;
}

int virtq_chain_slice(const struct virtq_chain *chain, uint64_t offset, uint64_t len, struct iovec *ret)
{
	int n = 0;

	for (uint16_t i = 0; i < chain->n_out && len; i++) {
		struct iovec piece = chain->iov[i];

		if (offset >= piece.iov_len) {
			offset -= piece.iov_len;
			continue;
		}
		piece.iov_base = (char *)piece.iov_base + offset;
		piece.iov_len -= offset;
		offset = 0;
		if (piece.iov_len > len)
			piece.iov_len = len;
		len -= piece.iov_len;
		ret[n++] = piece;
	}
	return n;
}
