/* virtio-balloon's queues that hold pages: those put into the balloon, by number, and those reported or hinted at as free, by
 * range.
 *
 * Theory of operation. Who writes a request may make it as long as the ring allows, which is terabytes, and name any page any
 * number of times. So a round discards so many ranges and so many bytes, and no more: what is left of the request is counted in
 * `progress`, the request goes back to the ring, and the loop comes back to it when others had their turn. A driver that
 * exchanges it meanwhile harms itself.
 * Pages come in any order, mostly a run of them backwards or forwards: sorted, they are few ranges. */
#include "devices/virtio_balloon_device.h"

#include "common/checked.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <stdlib.h>

/* A discard costs about a microsecond and another for each ten pages that go, with the lock held and the loop waiting. */
#define ROUND_DISCARDS 1024
#define ROUND_BYTES    (INT64_C(128) << 20)
#define PIECE_BYTES    (UINT64_C(32) << 20)

/* What may still be done; below 0 it is over. */
struct round {
	int64_t discards, bytes;
};

static bool is_over(const struct round *round)
{
	return round->discards <= 0 || round->bytes <= 0;
}

static int discard(struct virtio_balloon *balloon, struct round *round, gpa_t gpa, uint64_t len)
{
	round->discards--;
	round->bytes -= (int64_t)len;
	return balloon->discard.range(balloon->discard.ctx, gpa, len);
}

static int compare_pfns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Those that are no RAM are not held against the driver: its guest may have memory that
 * is not ours to give back. */
static void discard_pfns(struct virtio_balloon *balloon, size_t n, struct round *round)
{
	uint32_t *pfns = balloon->pfns;
	size_t first = 0;

	qsort(pfns, n, sizeof(*pfns), compare_pfns);
	for (size_t i = 1; i <= n; i++) {
		uint64_t pages;

		if (i < n && pfns[i] - pfns[i - 1] <= 1)
			continue;
		pages = (uint64_t)pfns[i - 1] - pfns[first] + 1;
		if (discard(balloon, round, (gpa_t)pfns[first] << VIRTIO_BALLOON_PFN_SHIFT,
			    pages << VIRTIO_BALLOON_PFN_SHIFT) < 0)
			metric_inc(&balloon->metrics.event_fails);
		first = i;
	}
}

/* Whether pages are to be gathered until the host can have the larger one that they are parts of. That needs a driver that says
 * what it takes out before it uses it (5.5.3): a page in use must not go with the others. */
static bool gathers(const struct virtio_balloon *balloon)
{
	return balloon->blocks.bits && virtio_dev_negotiated(&balloon->dev, VIRTIO_BALLOON_F_MUST_TELL_HOST);
}

static void gather_pfns(struct virtio_balloon *balloon, size_t n, struct round *round)
{
	uint64_t block_bytes = balloon->discard.page_bytes;

	for (size_t i = 0; i < n; i++) {
		gpa_t gpa = (gpa_t)balloon->pfns[i] << VIRTIO_BALLOON_PFN_SHIFT;

		if (balloon_blocks_put(&balloon->blocks, balloon->pfns[i]) &&
			discard(balloon, round, align_down(gpa, block_bytes), block_bytes) < 0)
			metric_inc(&balloon->metrics.event_fails);
	}
}

static void take_pfns(struct virtio_balloon *balloon, size_t n)
{
	for (size_t i = 0; i < n; i++)
		balloon_blocks_take(&balloon->blocks, balloon->pfns[i]);
}

static void deal_with_pfns(struct virtio_balloon *balloon, enum balloon_role role, size_t n, struct round *round)
{
	if (role == BALLOON_DEFLATE)
		take_pfns(balloon, n);
	else if (gathers(balloon))
		gather_pfns(balloon, n, round);
	else
		discard_pfns(balloon, n, round);
	round->discards--; /* to look through them is about as much */
}

/* 5.5.6: an array of page numbers. 1 when the request is done, 0 when more of it is left. */
static int work_list(
	struct virtio_balloon *balloon, enum balloon_role role, const struct virtq_chain *chain, struct round *round)
{
	uint64_t *progress = &balloon->progress[role];
	size_t n;

	if (chain->n_in > 0 || chain->out_bytes == 0 || chain->out_bytes % sizeof(uint32_t))
		return -EINVAL;
	while (*progress < chain->out_bytes) {
		if (is_over(round))
			return 0;
		n = virtq_chain_read(chain, *progress, balloon->pfns, sizeof(balloon->pfns));
		deal_with_pfns(balloon, role, n / sizeof(uint32_t), round);
		*progress += n;
	}
	return 1;
}

/* One piece of what is free. */
static void discard_free(struct virtio_balloon *balloon, enum balloon_role role, struct iovec piece, struct round *round)
{
	struct balloon_metrics *metrics = &balloon->metrics;
	bool report = role == BALLOON_REPORTING;
	gpa_t gpa = gmem_address(balloon->dev.mem, piece.iov_base);

	if (discard(balloon, round, gpa, piece.iov_len) < 0)
		metric_inc(report ? &metrics->free_page_report_fails : &metrics->free_page_hint_fails);
	else
		metric_add(report ? &metrics->free_page_report_freed : &metrics->free_page_hint_freed, piece.iov_len);
}

/* The buffers that are for us to write are what is free. Returns as work_list(). */
static int discard_buffers(
	struct virtio_balloon *balloon, enum balloon_role role, const struct virtq_chain *chain, struct round *round)
{
	struct balloon_metrics *metrics = &balloon->metrics;
	uint64_t *progress = &balloon->progress[role], skip = *progress;

	for (unsigned i = chain->n_out; i < (unsigned)chain->n_out + chain->n_in; i++) {
		struct iovec left = chain->iov[i];

		if (skip >= left.iov_len) {
			skip -= left.iov_len;
			continue;
		}
		if (skip == 0)
			metric_inc(role == BALLOON_REPORTING ? &metrics->free_page_report_count :
							       &metrics->free_page_hint_count);
		for (; skip < left.iov_len && !is_over(round); skip += PIECE_BYTES) {
			struct iovec piece = {(uint8_t *)left.iov_base + skip, left.iov_len - skip};

			if (piece.iov_len > PIECE_BYTES)
				piece.iov_len = PIECE_BYTES;
			discard_free(balloon, role, piece, round);
			*progress += piece.iov_len;
		}
		if (skip < left.iov_len)
			return 0;
		skip = 0;
	}
	return 1;
}

/* 5.5.6.5: a command, which is a number for us to read, or ranges. */
static int take_hint(struct virtio_balloon *balloon, const struct virtq_chain *chain, struct round *round)
{
	uint32_t command;

	if (chain->n_out > 0 && chain->out_bytes != sizeof(command))
		return -EINVAL;
	if (chain->n_out > 0 && balloon->progress[BALLOON_HINTING] == 0) {
		virtq_chain_read(chain, 0, &command, sizeof(command));
		balloon_hinting_heard(balloon, command);
	}
	return balloon_hinting_is_on(balloon) ? discard_buffers(balloon, BALLOON_HINTING, chain, round) : 1;
}

static int serve(struct virtio_balloon *balloon, enum balloon_role role, const struct virtq_chain *chain, struct round *round)
{
	switch (role) {
	case BALLOON_INFLATE:
		return work_list(balloon, role, chain, round);
	case BALLOON_HINTING:
		return take_hint(balloon, chain, round);
	case BALLOON_REPORTING: /* 5.5.6.7 */
		return chain->n_out > 0 ? -EINVAL : discard_buffers(balloon, role, chain, round);
	default: /* out of the balloon they come by being used: mostly there is nothing to do */
		return gathers(balloon) ? work_list(balloon, role, chain, round) : 1;
	}
}

int balloon_pages_work(struct virtio_balloon *balloon, enum balloon_role role, uint16_t q)
{
	struct virtq *vq = &balloon->dev.queues[q];
	struct round round = {ROUND_DISCARDS, ROUND_BYTES};
	struct virtq_chain chain;
	int r = 1;

	virtq_disable_doorbell(vq);
	for (unsigned budget = BALLOON_QUEUE_SIZE; budget > 0; budget--) {
		r = virtq_pop_or_arm(vq, &chain);
		if (r <= 0)
			return r;
		r = serve(balloon, role, &chain, &round);
		if (r < 0)
			return r;
		if (r == 0) {
			virtq_unpop(vq, 1);
			return 1;
		}
		balloon->progress[role] = 0;
		virtq_push(vq, chain.head, 0);
	}
	return 1;
}
