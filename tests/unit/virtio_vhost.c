/* A device whose rings a vhost-user back-end works on: what it is told, what passes, what is saved. */
#include "tests/unit/vhost_world.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <poll.h>

static uint64_t capacity(struct world *w)
{
	uint64_t sectors;

	virtio_dev_enter(w->dev);
	virtio_dev_config_read(w->dev, 0, &sectors, sizeof(sectors));
	virtio_dev_leave(w->dev);
	return sectors;
}

static bool was_interrupted(void *ctx)
{
	return ((struct driver *)ctx)->interrupts[0] > 0;
}

static void a_driver_is_served_by_the_backend(void **state)
{
	struct world *w = *state;
	gpa_t far_away = FAR_REGION + 8192;
	uint8_t wanted[64];
	uint16_t head;
	uint32_t len;

	world_make_blk(w);
	assert_int_equal(w->dev->ops->device_id, VIRTIO_ID_BLOCK);
	assert_int_equal(w->b.told[VHOST_USER_SET_OWNER], 1);
	assert_int_equal(capacity(w), SECTORS);
	assert_int_equal(world_start(w, RING_EVENTS, 1), LIVE);
	/* What it accepted, and bit 30; the two regions of one file; and our addresses. */
	assert_int_equal(w->b.driver_features,
		RING_EVENTS | BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES));
	assert_int_equal(w->b.n_regions, 2);
	assert_int_equal(w->b.regions[1].gpa, FAR_REGION);
	assert_int_equal(w->b.regions[1].fd_offset, REGION);
	assert_int_equal(w->b.regions[1].user_address, (uintptr_t)w->g.ram + REGION);
	assert_int_equal(w->b.rings[0].vq.size, QSIZE);
	for (int i = 0; i < 200; i++)
		world_is_served(w, 0);
	world_ask(w, 0, far_away, sizeof(wanted));
	assert_true(driver_wait_used(&w->d, &w->q[0], &head, &len));
	memset(wanted, 0x50, sizeof(wanted));
	assert_memory_equal(w->g.ram + REGION + 8192, wanted, sizeof(wanted));
	/* A back-end that is always quicker than we are has had the loop look for none so far. */
	assert_true(driver_run_until(&w->d, was_interrupted, &w->d));
	/* A doorbell that the loop hears is one too many. */
	assert_false(w->deaf[0]);
	driver_kick(&w->d, 0);
	assert_true(w->deaf[0]);
}

static void interrupts_go_past_us_where_they_can(void **state)
{
	struct world *w = *state;
	eventfd_t count;

	w->interrupts_directly = true;
	world_make_blk(w);
	assert_int_equal(world_start(w, RING_EVENTS, 1), LIVE);
	world_ask(w, 0, guest_alloc(&w->g, 64, 16), 64);
	assert_int_equal(eventfd_read(w->call[0], &count), 0); /* waits for it */
	assert_true(driver_queue_has_used(&w->q[0]));
	driver_run_rounds(&w->d, 2);
	assert_int_equal(w->d.interrupts[0], 0);
}

static void features_are_what_all_three_can_do(void **state)
{
	struct world *w = *state;
	const uint64_t ours = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_DISCARD);

	/* A feature of the configuration space being written, one that is no blk's, and one of the ring's that is lacking. */
	w->b.features |= ours | BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(60);
	w->b.features &= ~BIT(VIRTIO_RING_F_EVENT_IDX);
	world_make_blk(w);
	assert_int_equal(virtio_dev_features(w->dev), ours | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC));
	world_drop_device(w);
	backend_stop(&w->b);
	/* Writes that are cached are not flushed where nobody asked for that. */
	world_connect(w);
	world_take(w, virtio_vhost_blk_new(w->vhost, "disk", false, w->loop, &w->g.mem, &w->err));
	assert_int_equal(virtio_dev_features(w->dev) & ours, ours & ~BIT(VIRTIO_BLK_F_FLUSH));
}

static void each_queue_is_worked_on(void **state)
{
	struct world *w = *state;
	const uint16_t many = 64;
	uint16_t n;

	w->b.features |= BIT(VIRTIO_BLK_F_MQ);
	w->b.n_queues = 3;
	memcpy(w->b.config + offsetof(struct virtio_blk_config, num_queues), &many, sizeof(many));
	world_make_blk(w);
	virtio_dev_config_read(w->dev, offsetof(struct virtio_blk_config, num_queues), &n, sizeof(n));
	assert_int_equal(n, 3);
	assert_int_equal(w->dev->ops->n_queues, 3);
	/* The driver need not use them all. */
	assert_int_equal(world_start(w, BIT(VIRTIO_BLK_F_MQ), 2), LIVE);
	assert_int_equal(w->b.told[VHOST_USER_SET_VRING_KICK], 2);
	for (int i = 0; i < 10; i++) {
		world_is_served(w, 0);
		world_is_served(w, 1);
	}
}

static bool config_has_changed(void *ctx)
{
	return ((struct driver *)ctx)->config_interrupts > 0;
}

static void a_changed_configuration_is_read_again(void **state)
{
	struct world *w = *state;
	uint64_t sectors = SECTORS + 1;

	world_make_blk(w);
	world_start(w, 0, 1);
	/* The back-end tells. */
	memcpy(w->b.config, &sectors, sizeof(sectors));
	backend_send(w->b.request_fd, VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION, NULL, 0);
	assert_true(driver_run_until(&w->d, config_has_changed, &w->d));
	assert_int_equal(capacity(w), SECTORS + 1);
	assert_int_equal(w->dev->config_generation, 1);
	/* The user tells. */
	sectors++;
	memcpy(w->b.config, &sectors, sizeof(sectors));
	assert_int_equal(virtio_vhost_reread_config(w->dev, &w->err), 0);
	assert_int_equal(capacity(w), SECTORS + 2);
	assert_int_equal(w->d.config_interrupts, 2);
	world_is_served(w, 0);
}

static void requests_of_the_backend_are_answered(void **state)
{
	struct world *w = *state;
	struct vhost_user_header header;
	uint64_t result;
	struct {
		uint32_t request, size;
		uint64_t result;
	} cases[] = {{VHOST_USER_BACKEND_CONFIG_CHANGE, 0, 0}, {VHOST_USER_BACKEND_CONFIG_CHANGE, 4, 1}, {3, 24, 1}, {77, 64, 1}};
	uint8_t payload[64] = {0};

	world_make_blk(w);
	world_start(w, 0, 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		backend_send(w->b.request_fd, cases[i].request, VHOST_USER_VERSION | VHOST_USER_NEEDS_REPLY, payload,
			cases[i].size);
		driver_run_rounds(&w->d, 2);
		assert_int_equal(recv(w->b.request_fd, &header, sizeof(header), MSG_DONTWAIT), sizeof(header));
		assert_int_equal(header.request, cases[i].request);
		assert_int_equal(header.flags, VHOST_USER_VERSION | VHOST_USER_IS_REPLY);
		assert_int_equal(header.size, sizeof(result));
		assert_int_equal(recv(w->b.request_fd, &result, sizeof(result), MSG_DONTWAIT), sizeof(result));
		assert_int_equal(result, cases[i].result);
	}
	assert_int_equal(driver_status(&w->d), LIVE);
}

static void a_simple_backend_will_do(void **state)
{
	struct world *w = *state;

	/* No acknowledgements, no reset; then no protocol features at all. */
	w->b.protocol_features = BIT(VHOST_USER_PROTOCOL_F_CONFIG);
	world_make_blk(w);
	assert_int_equal(world_start(w, 0, 1), LIVE);
	world_is_served(w, 0);
	world_drop_device(w);
	backend_stop(&w->b);
	w->b.features &= ~BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	world_connect(w);
	assert_null(virtio_vhost_blk_new(w->vhost, "disk", true, w->loop, &w->g.mem, &w->err));
	w->vhost = NULL;
	assert_non_null(strstr(w->err.message, "no configuration space"));
	backend_stop(&w->b);
	world_connect(w);
	world_take(w, virtio_vhost_fs_new(w->vhost, "share", "share", 1, w->loop, &w->g.mem, &w->err));
	assert_int_equal(world_start(w, 0, 2), LIVE);
	world_is_served(w, 1);
}

static void a_reset_takes_the_rings_back(void **state)
{
	struct world *w = *state;

	world_make_blk(w);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(world_start(w, 0, 1), LIVE);
		world_is_served(w, 0);
		driver_reset(&w->d);
		assert_int_equal(w->b.told[VHOST_USER_GET_VRING_BASE], i);
		assert_int_equal(w->b.told[VHOST_USER_RESET_DEVICE], i);
		assert_false(w->b.rings[0].started);
		world_kick(w, 0); /* nobody is there */
	}
	assert_int_equal(driver_status(&w->d), 0);
}

/* Some time later, the back-end serves what it holds. */
static void *release(void *ctx)
{
	struct world *w = ctx;

	while (!__atomic_load_n(&w->b.told[VHOST_USER_SET_VRING_KICK], __ATOMIC_SEQ_CST))
		poll(NULL, 0, 1);
	__atomic_store_n(&w->held, false, __ATOMIC_SEQ_CST);
	world_kick(w, 0);
	return NULL;
}

static void what_is_in_flight_comes_to_rest_first(void **state)
{
	struct world *w = *state;
	pthread_t thread;

	world_make_blk(w);
	w->held = true;
	world_start(w, 0, 1);
	for (int i = 0; i < 5; i++)
		world_ask(w, 0, guest_alloc(&w->g, 64, 16), 64);
	assert_int_equal(pthread_create(&thread, NULL, release, w), 0);
	virtio_dev_quiesce(w->dev);
	pthread_join(thread, NULL);
	assert_int_equal(w->q[0].used_ring->idx, 5);
	assert_int_equal(w->dev->queues[0].next_avail, 5);
	assert_int_equal(driver_status(&w->d), LIVE);
	virtio_dev_resume(w->dev);
	w->q[0].last_used = 5;
	world_is_served(w, 0);
}

static void what_does_not_come_to_rest_is_said(void **state)
{
	struct world *w = *state;

	w->patience_ns = 1000000000; /* its answers have that, too, on a machine with much else to do */
	world_make_blk(w);
	w->held = true;
	world_start(w, 0, 1);
	world_ask(w, 0, guest_alloc(&w->g, 64, 16), 64);
	virtio_dev_quiesce(w->dev);
	assert_int_equal(driver_status(&w->d), BROKEN);
	/* Who is slow with the disk is not lost. */
	assert_int_equal(virtio_vhost_metrics(w->dev)->backend_fails, 0);
	w->held = false;
	assert_int_equal(world_start(w, 0, 1), LIVE);
	assert_int_equal(virtio_vhost_metrics(w->dev)->backend_fails, 0);
}

/* A section saved by the device, loaded by one with another back-end. */
static int move(struct world *w, struct virtio_dev *(*make)(struct world *w))
{
	struct state_writer writer;
	struct state_reader reader;
	int r;

	virtio_dev_quiesce(w->dev);
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	world_drop_device(w);
	backend_stop(&w->b);
	w->b.chosen_protocol_features = 0;
	world_connect(w);
	world_take(w, make(w));
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	r = virtio_dev_load(w->dev, &reader, &w->err);
	state_writer_done(&writer);
	return r;
}

static struct virtio_dev *make_blk(struct world *w)
{
	return virtio_vhost_blk_new(w->vhost, "disk", true, w->loop, &w->g.mem, &w->err);
}

static struct virtio_dev *make_fs(struct world *w)
{
	return virtio_vhost_fs_new(w->vhost, "share", "share", 1, w->loop, &w->g.mem, &w->err);
}

static void a_disk_goes_on_at_another_backend(void **state)
{
	struct world *w = *state;
	uint16_t head;
	uint32_t len;

	world_make_blk(w);
	world_start(w, RING_EVENTS, 1);
	for (int i = 0; i < 70; i++) /* more than the ring has places */
		world_is_served(w, 0);
	virtio_dev_quiesce(w->dev);
	world_ask(w, 0, guest_alloc(&w->g, 64, 16), 64); /* its doorbell is lost */
	assert_int_equal(eventfd_read(w->kick[0], &(eventfd_t){0}), 0);
	assert_int_equal(move(w, make_blk), 0);
	virtio_dev_resume(w->dev);
	assert_int_equal(w->b.rings[0].base, 70);
	assert_true(driver_wait_used(&w->d, &w->q[0], &head, &len));
	assert_int_equal(w->d.interrupts[0] > 0, 1);
	world_is_served(w, 0);
}

static void a_disk_of_another_size_is_refused(void **state)
{
	struct world *w = *state;
	const uint64_t other = SECTORS - 1;

	world_make_blk(w);
	world_start(w, 0, 1);
	memcpy(w->b.config, &other, sizeof(other));
	assert_int_equal(move(w, make_blk), -EINVAL);
	assert_non_null(strstr(w->err.message, "not as it was"));
	assert_int_equal(driver_status(&w->d), 0);
	assert_int_equal(world_start(w, 0, 1), LIVE); /* as new */
}

static void a_shared_folder_in_use_cannot_move(void **state)
{
	struct world *w = *state;

	world_connect(w);
	world_take(w, make_fs(w));
	assert_int_equal(move(w, make_fs), 0); /* before it is used */
	assert_int_equal(world_start(w, 0, 2), LIVE);
	world_is_served(w, 1);
	assert_int_equal(move(w, make_fs), -ENOTSUP);
	assert_non_null(strstr(w->err.message, "was in use"));
}

static void a_folder_has_its_tag_and_queues(void **state)
{
	struct world *w = *state;
	struct {
		char tag[36];
		uint32_t queues;
	} __attribute__((packed)) space;
	char full[37] = "a_tag_of_thirty_six_bytes_fills_it__";

	world_connect(w);
	world_take(w, virtio_vhost_fs_new(w->vhost, "share", full, 3, w->loop, &w->g.mem, &w->err));
	virtio_dev_config_read(w->dev, 0, &space, sizeof(space));
	assert_memory_equal(space.tag, full, 36);
	assert_int_equal(space.queues, 3);
	assert_int_equal(w->dev->ops->n_queues, 4);
	assert_int_equal(virtio_vhost_reread_config(w->dev, &w->err), -ENOTSUP);
	world_drop_device(w);
	backend_stop(&w->b);
	w->b.n_queues = 3;
	world_connect(w);
	assert_null(virtio_vhost_fs_new(w->vhost, "share", "x", 3, w->loop, &w->g.mem, &w->err));
	w->vhost = NULL;
	assert_non_null(strstr(w->err.message, "works on 3 queues, and 4 are needed"));
}

/* A file that is plugged, and taken out again, while the rings are worked on. */
static void memory_comes_and_goes(void **state)
{
	struct world *w = *state;
	struct gmem_region plugged = {.gpa = FAR_REGION + 4 * REGION,
		.size_bytes = REGION,
		.host = w->g.ram + REGION, /* seen a second time */
		.kind = GMEM_DEVICE,
		.fd = w->ram_fd,
		.fd_offset = REGION};

	world_make_blk(w);
	world_start(w, 0, 1);
	world_is_served(w, 0);
	assert_int_equal(gmem_add_region(&w->g.mem, &plugged), 0);
	virtio_dev_memory_changed(w->dev);
	assert_int_equal(w->b.n_regions, 3);
	world_is_served(w, 0);
	gmem_hide(&w->g.mem, plugged.gpa);
	virtio_dev_enter(w->dev);
	assert_false(virtio_dev_holds(w->dev, plugged.host, REGION));
	assert_int_equal(w->b.n_regions, 2);
	assert_true(virtio_dev_holds(w->dev, w->g.ram, REGION)); /* its rings are there */
	virtio_dev_leave(w->dev);
	gmem_remove(&w->g.mem, plugged.gpa);
	assert_int_equal(gmem_add_region(&w->g.mem, &plugged), 0);
	virtio_dev_memory_changed(w->dev);
	assert_int_equal(w->b.n_regions, 3);
	world_is_served(w, 0);
	assert_int_equal(w->b.told[VHOST_USER_SET_VRING_KICK], 1);
	/* What is nobody else's, or only to be read, is not told of. */
	plugged.gpa += 4 * REGION;
	plugged.fd = -1;
	assert_int_equal(gmem_add_region(&w->g.mem, &plugged), 0);
	plugged.gpa += 4 * REGION;
	plugged.fd = w->ram_fd;
	plugged.read_only = true;
	assert_int_equal(gmem_add_region(&w->g.mem, &plugged), 0);
	virtio_dev_memory_changed(w->dev);
	assert_int_equal(w->b.n_regions, 3);
}

static void memory_of_our_own_cannot_be_worked_on(void **state)
{
	struct world *w = *state;
	struct gmem mem = {0};

	assert_int_equal(gmem_add(&mem, GUEST_BASE, REGION, w->g.ram), 0);
	world_connect(w);
	assert_null(virtio_vhost_blk_new(w->vhost, "disk", true, w->loop, &mem, &w->err));
	w->vhost = NULL;
	assert_int_equal(w->err.errnum, ENOTSUP);
	assert_non_null(strstr(w->err.message, "guest memory is this process's own"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_driver_is_served_by_the_backend),
		TEST(interrupts_go_past_us_where_they_can),
		TEST(features_are_what_all_three_can_do),
		TEST(each_queue_is_worked_on),
		TEST(a_changed_configuration_is_read_again),
		TEST(requests_of_the_backend_are_answered),
		TEST(a_simple_backend_will_do),
		TEST(a_reset_takes_the_rings_back),
		TEST(what_is_in_flight_comes_to_rest_first),
		TEST(what_does_not_come_to_rest_is_said),
		TEST(a_disk_goes_on_at_another_backend),
		TEST(a_disk_of_another_size_is_refused),
		TEST(a_shared_folder_in_use_cannot_move),
		TEST(a_folder_has_its_tag_and_queues),
		TEST(memory_comes_and_goes),
		TEST(memory_of_our_own_cannot_be_worked_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
