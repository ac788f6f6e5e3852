/* Guest memory and the split virtqueue: what an honest driver gets, and what a hostile one does not. */
#include "tests/unit/virtq_driver.h"

#include <errno.h>

/* ---- guest memory ---- */

static uint8_t block_a[8192] __attribute__((aligned(4096))), block_b[8192] __attribute__((aligned(4096)));

static void memory_regions_are_disjoint_and_do_not_wrap(void **state)
{
	struct gmem mem = {0};

	(void)state;
	assert_int_equal(gmem_add(&mem, 0x10000, 8192, block_a), 0);
	assert_int_equal(gmem_add(&mem, 0x10000, 4096, block_b), -EINVAL);
	assert_int_equal(gmem_add(&mem, 0x11fff & ~15ull, 4096, block_b), -EINVAL);
	assert_int_equal(gmem_add(&mem, 0xf000, 4112, block_b), -EINVAL);
	assert_int_equal(gmem_add(&mem, UINT64_MAX - 4095, 8192, block_b), -EINVAL);
	assert_int_equal(gmem_add(&mem, 0x20000, 0, block_b), -EINVAL);
	assert_int_equal(gmem_add(&mem, 0x20001, 4096, block_b), -EINVAL); /* its host memory is aligned */
	assert_int_equal(gmem_add(&mem, 0x0, 4096, block_b), 0);
	assert_int_equal(gmem_next(&mem, NULL)->gpa, 0);
	assert_int_equal(gmem_next(&mem, gmem_next(&mem, NULL))->gpa, 0x10000);
	assert_null(gmem_next(&mem, gmem_next(&mem, gmem_next(&mem, NULL))));
	for (int i = 0; i < GMEM_REGIONS_MAX - 2; i++)
		assert_int_equal(gmem_add(&mem, 0x100000 + 0x10000 * i, 4096, block_b), 0);
	assert_int_equal(gmem_add(&mem, 0x9000000, 4096, block_b), -ENOSPC);
}

static void a_span_lies_inside_one_region(void **state)
{
	struct gmem mem = {0};

	(void)state;
	assert_int_equal(gmem_add(&mem, 0x10000, 4096, block_a), 0);
	assert_int_equal(gmem_add(&mem, 0x11000, 4096, block_b), 0);
	assert_ptr_equal(gmem_span(&mem, 0x10010, 16), block_a + 16);
	assert_ptr_equal(gmem_span(&mem, 0x10000, 4096), block_a);
	assert_null(gmem_span(&mem, 0x10000, 4097));
	assert_null(gmem_span(&mem, 0x10ff0, 32)); /* adjacent in the guest, not on the host */
	assert_null(gmem_span(&mem, 0xffff, 2));
	assert_null(gmem_span(&mem, 0x12000, 1));
	assert_null(gmem_span(&mem, 0x10010, UINT64_MAX));
	assert_null(gmem_span(&mem, UINT64_MAX, 2));
}

static void copies_cross_adjacent_regions_and_stop_at_holes(void **state)
{
	uint8_t out[32], in[32];
	struct gmem mem = {0};

	(void)state;
	assert_int_equal(gmem_add(&mem, 0x10000, 4096, block_a), 0);
	assert_int_equal(gmem_add(&mem, 0x11000, 4096, block_b), 0);
	for (unsigned i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)i;
	assert_int_equal(gmem_write(&mem, 0x10ff0, in, sizeof(in)), 0);
	assert_memory_equal(block_a + 0xff0, in, 16);
	assert_memory_equal(block_b, in + 16, 16);
	assert_int_equal(gmem_read(&mem, 0x10ff0, out, sizeof(out)), 0);
	assert_memory_equal(out, in, sizeof(in));
	assert_int_equal(gmem_read(&mem, 0x11ff0, out, sizeof(out)), -EFAULT);
	assert_int_equal(gmem_write(&mem, 0xfff0, in, sizeof(in)), -EFAULT);
	assert_int_equal(gmem_read(&mem, UINT64_MAX - 8, out, sizeof(out)), -EFAULT);
}

/* ---- a queue with both sides ---- */

struct fixture {
	struct guest g;
	struct driver_queue dq;
	struct virtq vq;
	struct virtq_chain chain;
	gpa_t data; /* 4 KiB */
};

static void setup_queue(struct fixture *f, uint16_t size)
{
	guest_init(&f->g, 1 << 20);
	driver_queue_init(&f->dq, &f->g, size);
	virtq_init(&f->vq, &f->g.mem, VIRTQ_SIZE_MAX);
	assert_int_equal(driver_queue_attach(&f->dq, &f->vq), 0);
	f->data = guest_alloc(&f->g, 4096, 16);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	setup_queue(f, 8);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	guest_done(&f->g);
	free(f);
	return 0;
}

static int pop(struct fixture *f)
{
	return virtq_pop(&f->vq, &f->chain);
}

static void a_chain_is_popped_and_completed(void **state)
{
	struct fixture *f = *state;
	struct driver_buf bufs[] = {{f->data, 16, false}, {f->data + 16, 8, false}, {f->data + 64, 32, true}};
	uint16_t head, used_head;
	uint32_t len;
	char text[32] = {0};

	assert_int_equal(pop(f), 0);
	assert_false(virtq_has_work(&f->vq));
	memcpy(guest_ptr(&f->g, f->data), "0123456789abcdefFEDCBA98", 24);
	head = driver_add(&f->dq, bufs, 3);
	assert_true(virtq_has_work(&f->vq));
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.head, head);
	assert_int_equal(f->chain.n_out, 2);
	assert_int_equal(f->chain.n_in, 1);
	assert_int_equal(f->chain.out_bytes, 24);
	assert_int_equal(f->chain.in_bytes, 32);
	assert_int_equal(virtq_chain_read(&f->chain, 14, text, sizeof(text)), 10);
	assert_string_equal(text, "efFEDCBA98");
	assert_int_equal(virtq_chain_write(&f->chain, 30, "xyz", 3), 2);
	assert_memory_equal((char *)guest_ptr(&f->g, f->data + 64) + 30, "xy", 3);
	assert_int_equal(virtq_push(&f->vq, head, 32), 0);
	assert_true(driver_get_used(&f->dq, &used_head, &len));
	assert_int_equal(used_head, head);
	assert_int_equal(len, 32);
	assert_int_equal(pop(f), 0);
}

static void indices_run_through_their_wrap(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = {f->data, 4, true};
	uint16_t head, used_head;
	uint32_t len;

	for (uint32_t i = 0; i < 70000; i++) {
		head = driver_add(&f->dq, &buf, 1);
		assert_int_equal(pop(f), 1);
		assert_int_equal(f->chain.head, head);
		assert_int_equal(virtq_push(&f->vq, head, i), 0);
		assert_true(driver_get_used(&f->dq, &used_head, &len));
		assert_int_equal(used_head, head);
		assert_int_equal(len, i);
	}
	assert_int_equal(pop(f), 0);
}

static void a_full_ring_is_not_running_away(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = {f->data, 4, true};

	f->dq.next_avail = f->vq.next_avail = 0xfffc; /* across the wrap, too */
	for (int i = 0; i < 8; i++)
		driver_add(&f->dq, &buf, 1);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pop(f), 1);
	assert_int_equal(pop(f), 0);
}

static void unpopped_chains_come_again(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = {f->data, 4, true};
	uint16_t first = driver_add(&f->dq, &buf, 1), second = driver_add(&f->dq, &buf, 1);

	assert_int_equal(pop(f), 1);
	assert_int_equal(pop(f), 1);
	virtq_unpop(&f->vq, 2);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.head, first);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.head, second);
}

static void an_indirect_table_is_walked(void **state)
{
	struct fixture *f = *state;
	struct driver_buf bufs[20];

	f->vq.indirect = true;
	for (int i = 0; i < 20; i++)
		bufs[i] = (struct driver_buf){f->data + 16 * i, 16, i >= 5};
	driver_add_indirect(&f->dq, bufs, 20); /* longer than this ring, not than the device's largest */
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.n_out, 5);
	assert_int_equal(f->chain.n_in, 15);
}

static void an_indirect_table_may_end_a_direct_chain(void **state)
{
	struct fixture *f = *state;
	gpa_t table = guest_alloc(&f->g, 16, 16);
	struct vring_desc *entry = guest_ptr(&f->g, table);

	f->vq.indirect = true;
	*entry = (struct vring_desc){.addr = f->data + 16, .len = 8, .flags = VRING_DESC_F_WRITE};
	driver_set_desc(&f->dq, 0, f->data, 16, VRING_DESC_F_NEXT, 1);
	driver_set_desc(&f->dq, 1, table, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
	driver_publish(&f->dq, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.out_bytes, 16);
	assert_int_equal(f->chain.in_bytes, 8);
}

static void a_buffer_across_regions_is_split(void **state)
{
	struct fixture *f = *state;
	gpa_t end = GUEST_BASE + f->g.size;

	assert_int_equal(gmem_add(&f->g.mem, end, 4096, block_a), 0);
	driver_set_desc(&f->dq, 0, end - 100, 300, VRING_DESC_F_WRITE, 0);
	driver_publish(&f->dq, 0);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.n_in, 2);
	assert_int_equal(f->chain.in_bytes, 300);
	assert_ptr_equal(f->chain.iov[1].iov_base, block_a);
	assert_int_equal(f->chain.iov[1].iov_len, 200);
}

/* ---- interrupts and doorbells ---- */

static void complete_one(struct fixture *f)
{
	struct driver_buf buf = {f->data, 4, true};

	driver_add(&f->dq, &buf, 1);
	assert_int_equal(pop(f), 1);
	assert_int_equal(virtq_push(&f->vq, f->chain.head, 0), 0);
}

static void flags_suppress_interrupts_and_doorbells(void **state)
{
	struct fixture *f = *state;

	assert_false(virtq_wants_interrupt(&f->vq)); /* nothing was pushed */
	complete_one(f);
	assert_true(virtq_wants_interrupt(&f->vq));
	assert_false(virtq_wants_interrupt(&f->vq));
	f->dq.avail_ring->flags = VRING_AVAIL_F_NO_INTERRUPT;
	complete_one(f);
	assert_false(virtq_wants_interrupt(&f->vq));
	virtq_disable_doorbell(&f->vq);
	assert_int_equal(f->dq.used_ring->flags, VRING_USED_F_NO_NOTIFY);
	virtq_enable_doorbell(&f->vq);
	assert_int_equal(f->dq.used_ring->flags, 0);
}

static void event_idx_asks_for_the_interrupt_at_one_index(void **state)
{
	struct fixture *f = *state;
	uint16_t *event = &f->dq.avail_ring->ring[8], *avail_event = (uint16_t *)&f->dq.used_ring->ring[8];

	f->vq.event_idx = true;
	f->dq.avail_ring->flags = VRING_AVAIL_F_NO_INTERRUPT; /* meaningless with EVENT_IDX (2.7.7.2) */
	*event = 2; /* after the third completion */
	complete_one(f);
	assert_false(virtq_wants_interrupt(&f->vq));
	complete_one(f);
	assert_false(virtq_wants_interrupt(&f->vq));
	complete_one(f);
	assert_true(virtq_wants_interrupt(&f->vq));
	*event = 4;
	complete_one(f);
	complete_one(f);
	complete_one(f); /* passed within a batch */
	assert_true(virtq_wants_interrupt(&f->vq));
	complete_one(f);
	assert_false(virtq_wants_interrupt(&f->vq));
	virtq_enable_doorbell(&f->vq);
	assert_int_equal(*avail_event, f->vq.next_avail);
}

static void the_doorbell_is_armed_when_the_ring_is_empty(void **state)
{
	struct fixture *f = *state;
	uint16_t *avail_event = (uint16_t *)&f->dq.used_ring->ring[8];
	struct driver_buf buf = {f->data, 1, false};

	driver_add(&f->dq, &buf, 1);
	virtq_disable_doorbell(&f->vq);
	assert_int_equal(virtq_pop_or_arm(&f->vq, &f->chain), 1);
	assert_int_equal(f->dq.used_ring->flags, VRING_USED_F_NO_NOTIFY);
	assert_int_equal(virtq_pop_or_arm(&f->vq, &f->chain), 0);
	assert_int_equal(f->dq.used_ring->flags, 0);
	f->vq.event_idx = true;
	assert_int_equal(virtq_pop_or_arm(&f->vq, &f->chain), 0);
	assert_int_equal(*avail_event, 1);
}

/* ---- what a driver may not do ---- */

static void expect_refused(struct fixture *f, int error)
{
	assert_int_equal(pop(f), error);
	assert_int_equal(f->vq.next_avail, 0);
}

static void a_cyclic_chain_is_refused(void **state)
{
	struct fixture *f = *state;

	driver_set_desc(&f->dq, 0, f->data, 1, VRING_DESC_F_NEXT, 1);
	driver_set_desc(&f->dq, 1, f->data, 1, VRING_DESC_F_NEXT, 0);
	driver_publish(&f->dq, 0);
	expect_refused(f, -EINVAL);
	/* And one that adds no byte on its round. */
	driver_set_desc(&f->dq, 0, f->data, 0, VRING_DESC_F_NEXT, 0);
	expect_refused(f, -EINVAL);
}

static void a_cyclic_indirect_table_is_refused(void **state)
{
	struct fixture *f = *state;
	struct driver_buf bufs[3] = {{f->data, 1, false}, {f->data, 1, false}, {f->data, 1, false}};
	struct vring_desc *table;

	f->vq.indirect = true;
	driver_add_indirect(&f->dq, bufs, 3);
	table = guest_ptr(&f->g, f->dq.desc_table[0].addr);
	table[2].flags = VRING_DESC_F_NEXT;
	table[2].next = 0;
	expect_refused(f, -EINVAL);
	table[2].next = 3; /* beyond the table */
	expect_refused(f, -EINVAL);
}

static void indices_out_of_range_are_refused(void **state)
{
	struct fixture *f = *state;

	driver_publish(&f->dq, 8);
	expect_refused(f, -EINVAL);
	f->dq.avail_ring->ring[0] = 0xffff;
	expect_refused(f, -EINVAL);
	f->dq.avail_ring->ring[0] = 0;
	driver_set_desc(&f->dq, 0, f->data, 1, VRING_DESC_F_NEXT, 8);
	expect_refused(f, -EINVAL);
}

static void an_available_index_that_runs_away_is_refused(void **state)
{
	struct fixture *f = *state;

	f->dq.avail_ring->idx = 9;
	expect_refused(f, -EINVAL);
	f->dq.avail_ring->idx = 0xffff; /* one behind */
	expect_refused(f, -EINVAL);
	assert_true(virtq_has_work(&f->vq)); /* so that somebody pops and finds out */
}

static void buffers_outside_memory_are_refused(void **state)
{
	struct fixture *f = *state;
	gpa_t end = GUEST_BASE + f->g.size;
	const struct {
		gpa_t gpa;
		uint32_t len;
	} bad[] = {{0, 16}, {end, 1}, {end - 8, 16}, {GUEST_BASE - 8, 16}, {UINT64_MAX - 8, 16},
		{UINT64_MAX, 1}, {f->data, UINT32_MAX}};

	driver_publish(&f->dq, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_set_desc(&f->dq, 0, bad[i].gpa, bad[i].len, 0, 0);
		expect_refused(f, -EFAULT);
		driver_set_desc(&f->dq, 0, bad[i].gpa, bad[i].len, VRING_DESC_F_WRITE, 0);
		expect_refused(f, -EFAULT);
	}
}

static void a_buffer_over_a_hole_is_refused(void **state)
{
	struct fixture *f = *state;
	gpa_t end = GUEST_BASE + f->g.size;

	assert_int_equal(gmem_add(&f->g.mem, end + 4096, 4096, block_a), 0);
	driver_set_desc(&f->dq, 0, end - 16, 4096 + 32, 0, 0);
	driver_publish(&f->dq, 0);
	expect_refused(f, -EFAULT);
}

static void a_readable_buffer_after_a_writable_one_is_refused(void **state)
{
	struct fixture *f = *state;

	driver_set_desc(&f->dq, 0, f->data, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	driver_set_desc(&f->dq, 1, f->data, 1, 0, 0);
	driver_publish(&f->dq, 0);
	expect_refused(f, -EINVAL);
}

static void indirect_descriptors_have_rules(void **state)
{
	struct fixture *f = *state;
	struct driver_buf bufs[2] = {{f->data, 1, false}, {f->data, 1, false}};
	struct vring_desc *table, *d = &f->dq.desc_table[0], good;

	driver_add_indirect(&f->dq, bufs, 2);
	expect_refused(f, -EINVAL); /* not negotiated */
	f->vq.indirect = true;
	good = *d;
	table = guest_ptr(&f->g, d->addr);
	table[1].flags = VRING_DESC_F_INDIRECT; /* nested */
	table[1].len = 16;
	expect_refused(f, -EINVAL);
	table[1].flags = 0;
	d->flags = VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT;
	expect_refused(f, -EINVAL);
	*d = good;
	d->len = 0;
	expect_refused(f, -EINVAL);
	d->len = 31;
	expect_refused(f, -EINVAL);
	d->len = 16 * (VIRTQ_SIZE_MAX + 1);
	expect_refused(f, -EINVAL);
	*d = good;
	d->addr = 0;
	expect_refused(f, -EFAULT);
	*d = good;
	assert_int_equal(pop(f), 1);
}

static void a_chain_with_too_many_pieces_is_refused(void **state)
{
	struct fixture *f = *state;
	struct driver_buf bufs[VIRTQ_SIZE_MAX];

	/* The longest direct chain, and the longest table behind it: bounded by the iovec array. */
	f->vq.indirect = true;
	for (int i = 0; i < VIRTQ_SIZE_MAX; i++)
		bufs[i] = (struct driver_buf){f->data, 1, false};
	driver_add_indirect(&f->dq, bufs, VIRTQ_SIZE_MAX);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.n_out, VIRTQ_SIZE_MAX);
	virtq_unpop(&f->vq, 1);
	f->dq.desc_table[7] = f->dq.desc_table[0];
	for (uint16_t i = 0; i < 7; i++)
		driver_set_desc(&f->dq, i, f->data, 1, VRING_DESC_F_NEXT, i + 1);
	expect_refused(f, -E2BIG);
}

static void a_queue_that_cannot_be_is_not_enabled(void **state)
{
	struct fixture *f = *state;
	struct virtq vq, good;

	virtq_init(&vq, &f->g.mem, 128);
	vq.size = 8;
	vq.desc = f->dq.desc;
	vq.avail = f->dq.avail;
	vq.used = f->dq.used;
	good = vq;
	assert_int_equal(virtq_enable(&vq), 0);
#define REFUSED(field, value)                                                                                \
	do {                                                                                                 \
		vq = good;                                                                                   \
		vq.field = (value);                                                                          \
		assert_int_equal(virtq_enable(&vq), -EINVAL);                                                \
		assert_false(vq.ready);                                                                      \
	} while (0)
	REFUSED(size, 0);
	REFUSED(size, 6);
	REFUSED(size, 256);
	REFUSED(desc, good.desc + 8);
	REFUSED(avail, good.avail + 1);
	REFUSED(used, good.used + 2);
	REFUSED(desc, 0);
	REFUSED(desc, UINT64_MAX - 15);
	REFUSED(avail, GUEST_BASE + f->g.size - 20);
	REFUSED(used, GUEST_BASE + f->g.size - 64);
#undef REFUSED
}

static void a_queue_that_is_not_ready_does_nothing(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = {f->data, 4, true};

	driver_add(&f->dq, &buf, 1);
	virtq_reset(&f->vq);
	assert_false(virtq_has_work(&f->vq));
	assert_int_equal(pop(f), 0);
	assert_int_equal(virtq_push(&f->vq, 0, 0), -EFAULT);
	assert_false(virtq_wants_interrupt(&f->vq));
	virtq_enable_doorbell(&f->vq);
	virtq_disable_doorbell(&f->vq);
	assert_int_equal(f->dq.used_ring->idx, 0);
}

/* ---- save and load ---- */

/* Saves the queue, as it is, and loads that into `copy`. What the load says. */
static int save_and_load(struct fixture *f, struct virtq *copy)
{
	struct state_writer w;
	struct state_reader r;
	int result;

	state_writer_init(&w);
	state_begin(&w, "queue", 1);
	virtq_save(&f->vq, &w);
	state_end(&w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	virtq_init(copy, &f->g.mem, VIRTQ_SIZE_MAX);
	assert_int_equal(state_begin_section(&r, "queue", 1, NULL), 1);
	result = virtq_load(copy, &r);
	assert_int_equal(state_end_section(&r, NULL), 0);
	state_writer_done(&w);
	return result;
}

static void a_queue_goes_on_where_it_was_saved(void **state)
{
	struct fixture *f = *state;
	struct driver_buf buf = {f->data, 4, true};
	struct virtq copy;
	uint16_t head;

	f->vq.event_idx = f->vq.indirect = true;
	for (int i = 0; i < 5; i++)
		complete_one(f);
	head = driver_add(&f->dq, &buf, 1);
	assert_int_equal(save_and_load(f, &copy), 0);
	assert_true(copy.event_idx && copy.indirect);
	assert_int_equal(copy.signalled_used, f->vq.signalled_used);
	assert_int_equal(virtq_pop(&copy, &f->chain), 1);
	assert_int_equal(f->chain.head, head);
	assert_int_equal(virtq_push(&copy, head, 0), 0);
	assert_int_equal(f->dq.used_ring->idx, 6);
}

static void a_saved_queue_outside_memory_is_refused(void **state)
{
	struct fixture *f = *state;
	struct virtq copy;

	f->vq.used = GUEST_BASE + f->g.size;
	assert_int_equal(save_and_load(f, &copy), -EINVAL);
	assert_false(copy.ready);
}

#define QUEUE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_regions_are_disjoint_and_do_not_wrap),
		cmocka_unit_test(a_span_lies_inside_one_region),
		cmocka_unit_test(copies_cross_adjacent_regions_and_stop_at_holes),
		QUEUE_TEST(a_chain_is_popped_and_completed),
		QUEUE_TEST(indices_run_through_their_wrap),
		QUEUE_TEST(a_full_ring_is_not_running_away),
		QUEUE_TEST(unpopped_chains_come_again),
		QUEUE_TEST(an_indirect_table_is_walked),
		QUEUE_TEST(an_indirect_table_may_end_a_direct_chain),
		QUEUE_TEST(a_buffer_across_regions_is_split),
		QUEUE_TEST(flags_suppress_interrupts_and_doorbells),
		QUEUE_TEST(event_idx_asks_for_the_interrupt_at_one_index),
		QUEUE_TEST(the_doorbell_is_armed_when_the_ring_is_empty),
		QUEUE_TEST(a_cyclic_chain_is_refused),
		QUEUE_TEST(a_cyclic_indirect_table_is_refused),
		QUEUE_TEST(indices_out_of_range_are_refused),
		QUEUE_TEST(an_available_index_that_runs_away_is_refused),
		QUEUE_TEST(buffers_outside_memory_are_refused),
		QUEUE_TEST(a_buffer_over_a_hole_is_refused),
		QUEUE_TEST(a_readable_buffer_after_a_writable_one_is_refused),
		QUEUE_TEST(indirect_descriptors_have_rules),
		QUEUE_TEST(a_chain_with_too_many_pieces_is_refused),
		QUEUE_TEST(a_queue_that_cannot_be_is_not_enabled),
		QUEUE_TEST(a_queue_that_is_not_ready_does_nothing),
		QUEUE_TEST(a_queue_goes_on_where_it_was_saved),
		QUEUE_TEST(a_saved_queue_outside_memory_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
