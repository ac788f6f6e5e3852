/* Back-ends that lie, refuse, say nothing or die: at every step of the protocol, what is left is a device out of order and a
 * machine that goes on. */
#include "tests/unit/vhost_world.h"

#include "common/log.h"
#include "devices/net_backend.h"

enum how {
	WRONG_REQUEST,
	WRONG_VERSION,
	NO_REPLY,
	TOO_SHORT,
	TOO_LONG,
	CUT_OFF, /* in the middle of the answer */
	HANG_UP,
	SILENCE,
	REFUSAL,
	WRONG_INDEX,
	WRONG_POSITION, /* 65,536 */
	WRONG_OFFSET,
	WRONG_SIZE,
	HOWS
};

static struct {
	uint32_t request; /* 0: the truth is told */
	enum how how;
} the_lie;

static uint32_t answer_bytes(const struct backend_message *request)
{
	switch (request->header.request) {
	case VHOST_USER_GET_VRING_BASE:
	case VHOST_USER_GET_CONFIG:
		return request->header.size;
	default:
		return sizeof(uint64_t);
	}
}

static bool lie(struct backend *b, const struct backend_message *request)
{
	uint32_t type = request->header.request, flags = VHOST_USER_VERSION | VHOST_USER_IS_REPLY, size = answer_bytes(request);
	uint32_t payload[BACKEND_PAYLOAD_MAX / 4] = {0};
	struct vhost_user_header header = {type, flags, size};
	ssize_t ignored;

	if (type != the_lie.request)
		return false;
	if (type == VHOST_USER_GET_CONFIG || type == VHOST_USER_GET_VRING_BASE)
		memcpy(payload, request->payload, size);
	switch (the_lie.how) {
	case WRONG_REQUEST:
		type = VHOST_USER_SET_OWNER;
		break;
	case WRONG_VERSION:
		flags = 2 | VHOST_USER_IS_REPLY;
		break;
	case NO_REPLY:
		flags = VHOST_USER_VERSION;
		break;
	case TOO_SHORT:
		size -= 4;
		break;
	case TOO_LONG:
		size += 4;
		break;
	case CUT_OFF:
		ignored = send(b->fd, &header, sizeof(header), MSG_NOSIGNAL);
		(void)ignored;
		shutdown(b->fd, SHUT_RDWR);
		return true;
	case HANG_UP:
		shutdown(b->fd, SHUT_RDWR);
		return true;
	case SILENCE:
		return true;
	case REFUSAL:
		payload[0] = 1;
		break;
	case WRONG_INDEX:
		payload[0] = 7;
		break;
	case WRONG_POSITION:
		payload[1] = 65536;
		break;
	case WRONG_OFFSET:
		payload[0] = 4;
		break;
	case WRONG_SIZE:
		payload[1]--;
		break;
	case HOWS:
		break;
	}
	backend_send(b->fd, type, flags, payload, size);
	return true;
}

/* Whether this lie can be told in answer to that. */
static bool is_possible(uint32_t request, enum how how)
{
	switch (how) {
	case REFUSAL:
		return request != VHOST_USER_GET_FEATURES && request != VHOST_USER_GET_PROTOCOL_FEATURES &&
		       request != VHOST_USER_GET_QUEUE_NUM && request != VHOST_USER_GET_VRING_BASE &&
		       request != VHOST_USER_GET_CONFIG;
	case WRONG_INDEX:
	case WRONG_POSITION:
		return request == VHOST_USER_GET_VRING_BASE;
	case WRONG_OFFSET:
	case WRONG_SIZE:
		return request == VHOST_USER_GET_CONFIG;
	default:
		return true;
	}
}

static void make_liar(struct world *w)
{
	w->b.lie = lie;
	the_lie.request = 0;
}

/* From now on: 0 is the truth. Only who says nothing is given up soon, so that a machine that is busy is no liar. */
static void tell(struct world *w, uint32_t request, enum how how)
{
	the_lie.request = request;
	the_lie.how = how;
	w->taken->patience_ns = request && how == SILENCE ? 20000000 : w->patience_ns;
}

static void no_lie_while_they_meet(void **state)
{
	struct world *w = *state;
	/* What happens at first waits as long as it may: those who say nothing are for other tests. */
	static const uint32_t requests[] = {VHOST_USER_GET_FEATURES, VHOST_USER_GET_PROTOCOL_FEATURES, VHOST_USER_GET_QUEUE_NUM,
		VHOST_USER_SET_BACKEND_REQ_FD};

	make_liar(w);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		for (enum how how = 0; how < HOWS; how++) {
			if (how == SILENCE || !is_possible(requests[i], how))
				continue;
			the_lie.request = requests[i];
			the_lie.how = how;
			w->err = (struct error){0};
			world_connect(w);
			assert_null(w->vhost);
			assert_true(w->err.errnum && w->err.message[0]);
			backend_stop(&w->b);
			w->b.chosen_protocol_features = 0;
			assert_int_equal(count_entries("/proc/self/fd"), w->descriptors);
		}
}

static void legacy_backends_are_refused(void **state)
{
	struct world *w = *state;

	w->b.features &= ~BIT(VIRTIO_F_VERSION_1);
	world_connect(w);
	assert_null(w->vhost);
	assert_int_equal(w->err.errnum, ENOTSUP);
}

static void no_lie_about_the_configuration(void **state)
{
	struct world *w = *state;

	make_liar(w);
	for (enum how how = 0; how < HOWS; how++) {
		if (!is_possible(VHOST_USER_GET_CONFIG, how))
			continue;
		the_lie.how = how;
		/* When the device is made, and later. */
		for (int later = 0; later < 2; later++) {
			struct virtio_dev *dev;

			the_lie.request = later ? 0 : VHOST_USER_GET_CONFIG;
			world_connect(w);
			if (!later && how == SILENCE)
				w->vhost->patience_ns = 20000000;
			dev = virtio_vhost_blk_new(w->vhost, "disk", true, w->loop, &w->g.mem, &w->err);
			assert_true(later ? dev != NULL : dev == NULL);
			w->taken = w->vhost;
			w->vhost = NULL; /* taken over, also on failure */
			if (later) {
				world_take(w, dev);
				world_start(w, 0, 1);
				tell(w, VHOST_USER_GET_CONFIG, how);
				assert_true(virtio_vhost_reread_config(dev, &w->err) < 0);
				assert_int_equal(driver_status(&w->d), BROKEN);
				world_drop_device(w);
			}
			backend_stop(&w->b);
			w->b.chosen_protocol_features = 0;
			assert_int_equal(count_entries("/proc/self/fd"), w->descriptors);
		}
	}
}

/* Once the truth is told again: who only refused is none the worse, all others are lost. */
static void goes_on_or_not(struct world *w, bool lost)
{
	tell(w, 0, 0);
	driver_reset(&w->d);
	assert_int_equal(driver_status(&w->d), 0);
	w->g.brk = GUEST_BASE;
	assert_int_equal(world_start(w, 0, 1), lost ? BROKEN : LIVE);
	assert_int_equal(virtio_vhost_metrics(w->dev)->backend_fails, lost);
	if (!lost)
		world_is_served(w, 0);
	driver_run_rounds(&w->d, 2); /* the loop lets go of the socket */
	world_drop_device(w);
	backend_stop(&w->b);
	w->b.chosen_protocol_features = 0;
	assert_int_equal(count_entries("/proc/self/fd"), w->descriptors);
}

static void no_lie_when_the_driver_starts(void **state)
{
	struct world *w = *state;
	static const uint32_t requests[] = {VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE, VHOST_USER_SET_VRING_NUM,
		VHOST_USER_SET_VRING_BASE, VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_ERR,
		VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_ENABLE};

	make_liar(w);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		for (enum how how = 0; how < HOWS; how++) {
			if (!is_possible(requests[i], how))
				continue;
			world_make_blk(w);
			tell(w, requests[i], how);
			w->g.brk = GUEST_BASE;
			assert_int_equal(world_start(w, 0, 1), BROKEN);
			assert_int_equal(w->dev->metrics.activate_fails, 1);
			goes_on_or_not(w, how != REFUSAL);
		}
}

static void no_lie_when_the_driver_resets(void **state)
{
	struct world *w = *state;
	static const uint32_t requests[] = {VHOST_USER_GET_VRING_BASE, VHOST_USER_RESET_DEVICE};

	make_liar(w);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		for (enum how how = 0; how < HOWS; how++) {
			if (!is_possible(requests[i], how))
				continue;
			world_make_blk(w);
			w->g.brk = GUEST_BASE;
			assert_int_equal(world_start(w, 0, 1), LIVE);
			tell(w, requests[i], how);
			driver_reset(&w->d);
			assert_int_equal(driver_status(&w->d), 0);
			goes_on_or_not(w, how != REFUSAL);
		}
}

static void a_backend_that_dies_is_noticed(void **state)
{
	struct world *w = *state;

	world_make_blk(w);
	world_start(w, 0, 1);
	world_is_served(w, 0);
	w->held = true;
	world_ask(w, 0, guest_alloc(&w->g, 64, 16), 64); /* and this is never answered */
	backend_stop(&w->b);
	world_breaks(w);
	assert_int_equal(w->d.config_interrupts, 1);
	driver_reset(&w->d);
	assert_int_equal(world_start(w, 0, 1), BROKEN);
	virtio_dev_quiesce(w->dev);
	virtio_dev_resume(w->dev);
	assert_true(virtio_vhost_reread_config(w->dev, &w->err) < 0);
}

static void a_backend_that_dies_before_there_is_a_driver_is_noticed(void **state)
{
	struct world *w = *state;

	world_make_blk(w);
	backend_stop(&w->b);
	driver_run_rounds(&w->d, 2); /* there is nobody yet to be interrupted */
	assert_int_equal(virtio_vhost_metrics(w->dev)->backend_fails, 1);
	assert_int_equal(world_start(w, 0, 1), BROKEN);
}

static void answers_to_nothing_are_no_answers(void **state)
{
	struct world *w = *state;

	world_make_blk(w);
	world_start(w, 0, 1);
	backend_answer(&w->b, VHOST_USER_GET_FEATURES, &(uint64_t){0}, sizeof(uint64_t));
	world_breaks(w);
}

static void malformed_requests_of_a_backend(void **state)
{
	struct world *w = *state;
	static const struct vhost_user_header bad[] = {
		{VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION, 65},
		{VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION, UINT32_MAX},
		{VHOST_USER_BACKEND_CONFIG_CHANGE, 0, 0},
		{VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION | VHOST_USER_IS_REPLY, 0},
	};

	for (size_t i = 0; i <= ARRAY_SIZE(bad); i++) {
		world_make_blk(w);
		world_start(w, 0, 1);
		if (i < ARRAY_SIZE(bad))
			assert_int_equal(send(w->b.request_fd, &bad[i], sizeof(bad[i]), 0), sizeof(bad[i]));
		else
			shutdown(w->b.request_fd, SHUT_RDWR);
		world_breaks(w);
		world_drop_device(w);
		backend_stop(&w->b);
		w->b.chosen_protocol_features = 0;
	}
}

/* One who asks and asks, and never reads what it is answered. */
static void a_flood_of_requests_ends(void **state)
{
	struct world *w = *state;
	struct vhost_user_header header = {77, VHOST_USER_VERSION | VHOST_USER_NEEDS_REPLY, 0};

	world_make_blk(w);
	world_start(w, 0, 1);
	while (!world_is_broken(w)) {
		if (send(w->b.request_fd, &header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			driver_run_rounds(&w->d, 1);
	}
	assert_int_equal(virtio_vhost_metrics(w->dev)->backend_fails, 1);
}

static void requests_in_pieces_are_one(void **state)
{
	struct world *w = *state;
	struct vhost_user_header header = {VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION, 0};
	unsigned asked;

	world_make_blk(w);
	world_start(w, 0, 1);
	asked = w->b.told[VHOST_USER_GET_CONFIG];
	for (size_t i = 0; i < sizeof(header); i++) {
		assert_int_equal(send(w->b.request_fd, (char *)&header + i, 1, 0), 1);
		driver_run_rounds(&w->d, 3);
	}
	assert_int_equal(w->b.told[VHOST_USER_GET_CONFIG], asked + 1);
	assert_int_equal(driver_status(&w->d), LIVE);
}

static void a_broken_ring_needs_a_reset_only(void **state)
{
	struct world *w = *state;

	world_make_blk(w);
	world_start(w, 0, 1);
	eventfd_write(w->b.rings[0].error_fd, 1);
	assert_true(driver_run_until(&w->d, world_is_broken, w));
	assert_int_equal(virtio_vhost_metrics(w->dev)->backend_fails, 0);
	assert_int_equal(world_start(w, 0, 1), LIVE);
	world_is_served(w, 0);
}

static uint16_t link_status(struct world *w)
{
	uint16_t status;

	virtio_dev_enter(w->dev);
	virtio_dev_config_read(w->dev, 6, &status, sizeof(status));
	virtio_dev_leave(w->dev);
	return status;
}

static void a_network_without_its_backend_has_no_link(void **state)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
	struct world *w = *state;
	uint8_t space[12];

	w->b.features |= BIT(NET_F_MRG_RXBUF) | BIT(NET_F_CSUM) | BIT(17) /* CTRL_VQ */;
	w->b.n_queues = 1; /* pairs */
	world_connect(w);
	world_take(w, virtio_vhost_net_new(w->vhost, "eth0", mac, 1400, w->loop, &w->g.mem, &w->err));
	assert_int_equal(virtio_dev_features(w->dev) & 0xffffff,
		BIT(NET_F_MRG_RXBUF) | BIT(NET_F_CSUM) | BIT(NET_F_MAC) | BIT(NET_F_STATUS) | BIT(NET_F_MTU));
	virtio_dev_config_read(w->dev, 0, space, sizeof(space));
	assert_memory_equal(space, mac, 6);
	assert_int_equal(space[10] | space[11] << 8, 1400);
	world_start(w, BIT(NET_F_MAC) | BIT(NET_F_MRG_RXBUF) | BIT(NET_F_STATUS), 2);
	assert_int_equal(w->b.driver_features & 0xffffff, BIT(NET_F_MRG_RXBUF)); /* the rest is ours */
	assert_int_equal(link_status(w), 1);
	w->held = true;
	world_ask(w, 0, guest_alloc(&w->g, 2048, 16), 2048);
	virtio_dev_quiesce(w->dev); /* buffers that wait for frames are not waited for */
	assert_int_equal(driver_status(&w->d), LIVE);
	virtio_dev_resume(w->dev);
	w->held = false;
	world_is_served(w, 1);
	backend_stop(&w->b);
	world_breaks(w);
	assert_int_equal(link_status(w), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_lie_while_they_meet),
		TEST(legacy_backends_are_refused),
		TEST(no_lie_about_the_configuration),
		TEST(no_lie_when_the_driver_starts),
		TEST(no_lie_when_the_driver_resets),
		TEST(a_backend_that_dies_is_noticed),
		TEST(a_backend_that_dies_before_there_is_a_driver_is_noticed),
		TEST(answers_to_nothing_are_no_answers),
		TEST(malformed_requests_of_a_backend),
		TEST(a_flood_of_requests_ends),
		TEST(requests_in_pieces_are_one),
		TEST(a_broken_ring_needs_a_reset_only),
		TEST(a_network_without_its_backend_has_no_link),
	};

	log_open("test", LOG_LEVEL_ERROR, 2);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
