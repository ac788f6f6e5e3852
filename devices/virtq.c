/* A split virtqueue, device side: popping chains of descriptors a hostile driver wrote, and completing them.
 *
 *	descriptor table          available ring (driver's)      used ring (ours)
 *	{addr len flags next}[n]  flags idx ring[n] used_event   flags idx {id len}[n] avail_event
 *
 * Ring indices run freely modulo 2^16; the ring's place is index % size, and size is a power of two. */
#include "devices/virtq.h"

#include "common/checked.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* x86 and virtio 1 agree on little-endian (1.4); nothing here swaps. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the rings are read without byte swapping");
_Static_assert(sizeof(struct vring_desc) == 16 && sizeof(struct vring_used_elem) == 8, "2.7.5, 2.7.8");
_Static_assert(GMEM_ALIGN >= 16, "the rings are accessed atomically where the driver aligned them");

/* Every field a driver may be writing at the same instant is loaded once, atomically. */
static uint16_t load_u16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store_u16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}

/* used_event stands behind the available ring, avail_event behind the used ring (2.7.7, 2.7.10). */
static const uint16_t *used_event(const struct virtq *vq)
{
	return &vq->avail_ring->ring[vq->size];
}

static uint16_t *avail_event(const struct virtq *vq)
{
	return (uint16_t *)&vq->used_ring->ring[vq->size];
}

void virtq_init(struct virtq *vq, const struct gmem *mem, uint16_t max_size)
{
	*vq = (struct virtq){.mem = mem, .max_size = max_size};
	virtq_reset(vq);
}

void virtq_reset(struct virtq *vq)
{
	*vq = (struct virtq){.mem = vq->mem, .max_size = vq->max_size, .size = vq->max_size};
}

/* The three areas' lengths, with room for both event fields. */

static uint64_t desc_bytes(uint64_t n)
{
	return n * sizeof(struct vring_desc);
}

static uint64_t avail_bytes(uint64_t n)
{
	return sizeof(struct vring_avail) + (n + 1) * sizeof(uint16_t);
}

static uint64_t used_bytes(uint64_t n)
{
	return sizeof(struct vring_used) + n * sizeof(struct vring_used_elem) + sizeof(uint16_t);
}

/* Finds them in guest memory, with the alignment of 2.7. */
static int map_rings(struct virtq *vq)
{
	uint64_t n = vq->size;

	if (n == 0 || n > vq->max_size || (n & (n - 1)) != 0)
		return -EINVAL;
	if (vq->desc % 16 || vq->avail % 2 || vq->used % 4)
		return -EINVAL;
	vq->desc_table = gmem_view(vq->mem, vq->desc, desc_bytes(n));
	vq->avail_ring = gmem_view(vq->mem, vq->avail, avail_bytes(n));
	vq->used_ring = gmem_span(vq->mem, vq->used, used_bytes(n));
	return vq->desc_table && vq->avail_ring && vq->used_ring ? 0 : -EINVAL;
}

int virtq_enable(struct virtq *vq)
{
	int r = map_rings(vq);

	if (r < 0)
		return r;
	vq->next_avail = vq->next_used = vq->signalled_used = 0;
	vq->signalled_used_valid = true;
	vq->ready = true;
	return 0;
}

bool virtq_overlaps(const void *a, uint64_t a_len, const void *b, uint64_t b_len)
{
	uintptr_t from = (uintptr_t)a, other = (uintptr_t)b;

	return a_len && b_len && from < other + b_len && other < from + a_len;
}

bool virtq_holds(const struct virtq *vq, const void *host, uint64_t len)
{
	return vq->ready && (virtq_overlaps(vq->desc_table, desc_bytes(vq->size), host, len) ||
				    virtq_overlaps(vq->avail_ring, avail_bytes(vq->size), host, len) ||
				    virtq_overlaps(vq->used_ring, used_bytes(vq->size), host, len));
}

bool virtq_chain_holds(const struct virtq_chain *chain, const void *host, uint64_t len)
{
	for (unsigned i = 0; i < (unsigned)chain->n_out + chain->n_in; i++)
		if (virtq_overlaps(chain->iov[i].iov_base, chain->iov[i].iov_len, host, len))
			return true;
	return false;
}

/* A cursor over one chain: which table it walks, and how many descriptors it may still visit. */
struct walk {
	const uint8_t *table;
	uint32_t table_len; /* descriptors */
	uint32_t index;
	uint32_t budget;
	bool in_indirect;
};

/* One copy, which is then all that is looked at: the fence keeps the compiler from reading the original again.
 * An indirect table has no alignment (2.7.5.3), hence bytes. */
static struct vring_desc copy_desc(const struct walk *w)
{
	struct vring_desc desc;

	memcpy(&desc, w->table + (size_t)w->index * sizeof(desc), sizeof(desc));
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return desc;
}

/* Adds the buffer, in pieces where it crosses from one memory region into the next. */
static int add_buffer(const struct virtq *vq, struct virtq_chain *chain, const struct vring_desc *desc)
{
	bool writable = desc->flags & VRING_DESC_F_WRITE;
	uint64_t gpa = desc->addr, left = desc->len, n;

	/* 2.7.4.2: all that the device reads comes before all that it writes. */
	if (!writable && chain->n_in > 0)
		return -EINVAL;
	for (; left > 0; gpa += n, left -= n) {
		const void *host = writable ? gmem_span_start(vq->mem, gpa, left, &n)
					    : gmem_view_start(vq->mem, gpa, left, &n);
		unsigned at = chain->n_out + chain->n_in;

		if (!host)
			return -EFAULT;
		if (at == VIRTQ_IOV_MAX)
			return -E2BIG;
		chain->iov[at] = (struct iovec){.iov_base = (void *)(uintptr_t)host, .iov_len = n};
		if (writable)
			chain->n_in++;
		else
			chain->n_out++;
	}
	if (writable)
		chain->in_bytes += desc->len;
	else
		chain->out_bytes += desc->len;
	return 0;
}

/* 2.7.5.3: a descriptor that stands for a table of descriptors, the last of its chain. */
static int enter_indirect(const struct virtq *vq, struct walk *w, const struct vring_desc *desc)
{
	uint32_t n = desc->len / sizeof(*desc);

	if (!vq->indirect || w->in_indirect || (desc->flags & VRING_DESC_F_NEXT))
		return -EINVAL;
	/* 2.7.5.3.1: no chain is longer than the device's queue size, which is max_size: Linux fills tables up to the
	 * limits a device states, whatever ring size it chose. */
	if (n == 0 || n > vq->max_size || desc->len % sizeof(*desc))
		return -EINVAL;
	w->table = gmem_view(vq->mem, desc->addr, desc->len);
	if (!w->table)
		return -EFAULT;
	w->table_len = n;
	w->index = 0;
	w->budget = n;
	w->in_indirect = true;
	return 0;
}

/* Visits no table entry twice: the budget is the table's length, so a chain that loops runs out of it. */
static int walk_chain(const struct virtq *vq, uint16_t head, struct virtq_chain *ret)
{
	struct walk w = {.table = (const uint8_t *)vq->desc_table, vq->size, head, vq->size, false};
	struct vring_desc desc;
	int r;

	for (;;) {
		if (w.index >= w.table_len || w.budget-- == 0)
			return -EINVAL;
		desc = copy_desc(&w);
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			r = enter_indirect(vq, &w, &desc);
			if (r < 0)
				return r;
			continue;
		}
		r = add_buffer(vq, ret, &desc);
		if (r < 0)
			return r;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return 0;
		w.index = desc.next;
	}
}

/* Entries the driver has made available and we have not popped; more than `size` means it broke the rules. */
static uint16_t available(const struct virtq *vq)
{
	/* Acquire: what the driver wrote before it moved idx is seen by the loads that follow (2.7.13.3). */
	uint16_t idx = __atomic_load_n(&vq->avail_ring->idx, __ATOMIC_ACQUIRE);

	return (uint16_t)(idx - vq->next_avail);
}

int virtq_pop(struct virtq *vq, struct virtq_chain *ret)
{
	uint16_t n, head;
	int r;

	if (!vq->ready)
		return 0;
	n = available(vq);
	if (n == 0)
		return 0;
	if (n > vq->size)
		return -EINVAL;
	head = load_u16(&vq->avail_ring->ring[vq->next_avail & (vq->size - 1)]);
	if (head >= vq->size)
		return -EINVAL;
	ret->head = head;
	ret->n_out = ret->n_in = 0;
	ret->out_bytes = ret->in_bytes = 0;
	r = walk_chain(vq, head, ret);
	if (r < 0)
		return r;
	vq->next_avail++;
	return 1;
}

bool virtq_has_work(const struct virtq *vq)
{
	return vq->ready && available(vq) != 0;
}

void virtq_unpop(struct virtq *vq, uint16_t count)
{
	vq->next_avail -= count;
}

int virtq_stage(struct virtq *vq, uint16_t head, uint32_t written)
{
	struct vring_used_elem *elem;

	if (!vq->ready)
		return -EFAULT;
	elem = &vq->used_ring->ring[vq->next_used & (vq->size - 1)];
	elem->id = head;
	elem->len = written;
	vq->next_used++;
	/* 65,536 completions since the last interrupt: the distance no longer tells how many there were. */
	if (vq->next_used == vq->signalled_used)
		vq->signalled_used_valid = false;
	return 0;
}

int virtq_push(struct virtq *vq, uint16_t head, uint32_t written)
{
	int r = virtq_stage(vq, head, written);

	if (r < 0)
		return r;
	/* Release: the element, and the data before it, are seen by a driver that sees idx (2.7.8.2). */
	__atomic_store_n(&vq->used_ring->idx, vq->next_used, __ATOMIC_RELEASE);
	return 0;
}

bool virtq_wants_interrupt(struct virtq *vq)
{
	uint16_t old = vq->signalled_used;
	bool valid = vq->signalled_used_valid;

	if (!vq->ready || (valid && old == vq->next_used))
		return false;
	vq->signalled_used = vq->next_used;
	vq->signalled_used_valid = true;
	/* Full barrier: our store of used.idx against our load of what the driver wants. The driver does the reverse,
	 * so at least one of us sees the other's store. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return !(load_u16(&vq->avail_ring->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return !valid || vring_need_event(load_u16(used_event(vq)), vq->next_used, old);
}

void virtq_enable_doorbell(struct virtq *vq)
{
	if (!vq->ready)
		return;
	if (vq->event_idx)
		store_u16(avail_event(vq), vq->next_avail);
	else
		store_u16(&vq->used_ring->flags, 0);
	/* Full barrier: this store against the load of avail.idx by which the caller looks for work once more. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void virtq_disable_doorbell(struct virtq *vq)
{
	/* With EVENT_IDX, avail_event simply stays behind: the driver rings only when it passes that index. */
	if (vq->ready && !vq->event_idx)
		store_u16(&vq->used_ring->flags, VRING_USED_F_NO_NOTIFY);
}

int virtq_pop_or_arm(struct virtq *vq, struct virtq_chain *ret)
{
	int r = virtq_pop(vq, ret);

	if (r != 0)
		return r;
	virtq_enable_doorbell(vq);
	r = virtq_pop(vq, ret);
	if (r != 0)
		virtq_disable_doorbell(vq);
	return r;
}

uint16_t virtq_driver_index(const struct virtq *vq)
{
	return __atomic_load_n(&vq->avail_ring->idx, __ATOMIC_ACQUIRE);
}

uint16_t virtq_device_index(const struct virtq *vq)
{
	return __atomic_load_n(&vq->used_ring->idx, __ATOMIC_ACQUIRE);
}

void virtq_take_over(struct virtq *vq, uint16_t next_avail)
{
	vq->next_avail = next_avail;
	vq->next_used = virtq_device_index(vq);
	vq->signalled_used_valid = false; /* nobody knows when the driver was last interrupted */
}

/* Copies between flat memory and `n` buffers, from `offset` bytes into them. */
static size_t copy_iov(const struct iovec *iov, size_t n, size_t offset, void *flat, size_t len, bool to_iov)
{
	size_t done = 0;

	for (size_t i = 0; i < n && done < len; i++) {
		size_t piece = iov[i].iov_len;
		uint8_t *at = iov[i].iov_base;

		if (offset >= piece) {
			offset -= piece;
			continue;
		}
		at += offset;
		piece -= offset;
		offset = 0;
		if (piece > len - done)
			piece = len - done;
		if (to_iov)
			memcpy(at, (uint8_t *)flat + done, piece);
		else
			memcpy((uint8_t *)flat + done, at, piece);
		done += piece;
	}
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* as in gmem_read() */
	return done;
}

size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset, void *dst, size_t len)
{
	return copy_iov(chain->iov, chain->n_out, offset, dst, len, false);
}

size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset, const void *src, size_t len)
{
	return copy_iov(chain->iov + chain->n_out, chain->n_in, offset, (void *)(uintptr_t)src, len, true);
}

void virtq_save(const struct virtq *vq, struct state_writer *w)
{
	state_put_u16(w, vq->size);
	state_put_u64(w, vq->desc);
	state_put_u64(w, vq->avail);
	state_put_u64(w, vq->used);
	state_put_u8(w, vq->ready);
	state_put_u8(w, vq->event_idx);
	state_put_u8(w, vq->indirect);
	state_put_u16(w, vq->next_avail);
	state_put_u16(w, vq->next_used);
	state_put_u16(w, vq->signalled_used);
	state_put_u8(w, vq->signalled_used_valid);
}

int virtq_load(struct virtq *vq, struct state_reader *r)
{
	virtq_reset(vq);
	vq->size = state_get_u16(r);
	vq->desc = state_get_u64(r);
	vq->avail = state_get_u64(r);
	vq->used = state_get_u64(r);
	vq->ready = state_get_u8(r);
	vq->event_idx = state_get_u8(r);
	vq->indirect = state_get_u8(r);
	vq->next_avail = state_get_u16(r);
	vq->next_used = state_get_u16(r);
	vq->signalled_used = state_get_u16(r);
	vq->signalled_used_valid = state_get_u8(r);
	if (!r->failed && (!vq->ready || map_rings(vq) == 0))
		return 0;
	virtq_reset(vq);
	return -EINVAL;
}
