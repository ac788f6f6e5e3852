/* virtio-net with several pairs of queues, each with a thread, over a real tap of as many in a network namespace of its own. */
#include "tests/unit/queues_driver.h"
#include "tests/unit/tap.h"

#include "devices/net_backend.h"
#include "devices/virtio_net.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <sched.h>

#define TAP	 "hullqueues0"
#define N	 4
#define CONTROL	 (2 * N)
#define BIT(n)	 (1ull << (n))
#define FEATURES (BIT(NET_F_MRG_RXBUF) | BIT(NET_F_MAC) | BIT(NET_F_STATUS) | BIT(NET_F_CTRL_VQ) | BIT(NET_F_MQ))
#define FRAME	 100 /* bytes */
#define RX_BYTES 2048

enum { OK, ERR, NONE = 0xee };

struct world {
	struct loop *loop;
	struct guest g;
	struct virtio_dev *dev; /* NULL: no namespaces here */
	struct queues_driver d;
	int peer;
	unsigned threads, descriptors; /* before there was a device */
};

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

static int open_queues(struct virtio_net_config *config)
{
	struct error err = {0};

	for (unsigned i = 0; i < N; i++) {
		config->fds[i] = virtio_net_open_tap(TAP, true, &err);
		if (config->fds[i] < 0)
			return config->fds[i];
	}
	return 0;
}

static bool make(struct world *w)
{
	struct virtio_net_config config = {.id = "eth0", .kind = NET_BACKEND_TAP, .n_pairs = N};
	struct error err = {0};

	memcpy(config.mac, mac, sizeof(mac));
	if (open_queues(&config) < 0)
		return false;
	w->dev = virtio_net_new(&config, w->loop, &w->g.mem, &err);
	if (!w->dev)
		fail_msg("%s: %s", err.field, err.message);
	queues_init(&w->d, w->dev, w->loop, CONTROL + 1);
	interface_up(TAP);
	w->peer = packet_socket(TAP);
	return true;
}

static void unmake(struct world *w)
{
	if (!w->dev)
		return;
	close(w->peer);
	driver_done(&w->d.d);
	virtio_dev_free(w->dev);
	w->dev = NULL;
	queues_close(&w->d);
}

static void post(struct world *w, uint16_t q, gpa_t at)
{
	driver_add(&w->d.q[q], &(struct driver_buf){at, RX_BYTES, true}, 1);
}

static void start(struct world *w, uint64_t features)
{
	queues_start(&w->d, &w->g, features);
	for (uint16_t pair = 0; pair < N; pair++)
		for (unsigned i = 0; i < 100; i++)
			if (pair == 0 || features & BIT(NET_F_MQ))
				post(w, 2 * pair, guest_alloc(&w->g, RX_BYTES, 16));
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	*state = w;
	guest_init(&w->g, 16 << 20);
	w->loop = loop_new();
	w->threads = count_entries("/proc/self/task");
	w->descriptors = count_entries("/proc/self/fd");
	/* Anything done here stays in namespaces of this process. */
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return 0;
	if (make(w))
		start(w, FEATURES);
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	unmake(w);
	assert_int_equal(count_entries("/proc/self/task"), w->threads);
	assert_int_equal(count_entries("/proc/self/fd"), w->descriptors);
	loop_free(w->loop);
	guest_done(&w->g);
	free(w);
	return 0;
}

/* ---- the control queue ---- */

static uint16_t control_queue = CONTROL;

/* Its answer, by the loop, whose the control queue is. */
static uint8_t command(struct world *w, const void *bytes, uint32_t len)
{
	const uint8_t none = NONE;
	gpa_t ack = guest_put(&w->g, &none, 1);
	struct driver_buf bufs[2] = {{guest_put(&w->g, bytes, len), len, false}, {ack, 1, true}};
	struct driver_queue *q = &w->d.q[control_queue];
	uint16_t head;
	uint32_t used;

	driver_add(q, bufs, 2);
	driver_kick(&w->d.d, control_queue);
	if (!driver_get_used(q, &head, &used))
		return NONE;
	assert_int_equal(used, 1);
	return *(uint8_t *)guest_ptr(&w->g, ack);
}

static uint8_t use_pairs(struct world *w, uint16_t pairs)
{
	return command(w, (uint8_t[]){4, 0, (uint8_t)pairs, (uint8_t)(pairs >> 8)}, 4);
}

static void the_driver_says_how_many_pairs_it_uses(void **state)
{
	struct world *w = *state;
	uint16_t max;

	if (!w->dev)
		skip();
	virtio_dev_enter(w->dev);
	virtio_dev_config_read(w->dev, 8, &max, sizeof(max));
	assert_true((virtio_dev_features(w->dev) & FEATURES) == FEATURES);
	virtio_dev_leave(w->dev);
	assert_int_equal(max, N);
	assert_int_equal(count_entries("/proc/self/task"), w->threads + N);
	for (uint16_t pairs = 1; pairs <= N; pairs++)
		assert_int_equal(use_pairs(w, pairs), OK);
	assert_int_equal(use_pairs(w, 2), OK);
	assert_int_equal(use_pairs(w, 0), ERR);
	assert_int_equal(use_pairs(w, N + 1), ERR);
	assert_int_equal(use_pairs(w, 0x8001), ERR);
	assert_int_equal(command(w, (uint8_t[]){4, 1, 2, 0}, 4), ERR);	  /* 5.1.6.5.6: RSS is not offered */
	assert_int_equal(command(w, (uint8_t[]){0, 0, 1, 0}, 4), ERR);	  /* nor what else a control queue has */
	assert_int_equal(command(w, (uint8_t[]){4, 0, 2}, 3), ERR);
	assert_int_equal(command(w, (uint8_t[]){4, 0, 2, 0, 0}, 5), ERR);
	assert_int_equal(command(w, (uint8_t[]){4}, 1), ERR);
	assert_int_equal(use_pairs(w, N), OK);
	assert_false(queues_needs_reset(&w->d.d));
	/* Where there is no room for an answer, it is no command. */
	driver_add(&w->d.q[CONTROL], &(struct driver_buf){guest_alloc(&w->g, 4, 1), 4, false}, 1);
	driver_kick(&w->d.d, CONTROL);
	assert_true(queues_needs_reset(&w->d.d));
}

/* 5.1.2: for a driver that knows of one pair only, it is the third queue; which then is nobody else's. */
static void without_several_pairs_the_control_queue_is_the_third(void **state)
{
	struct world *w = *state;

	if (!w->dev)
		skip();
	assert_int_equal(use_pairs(w, N), OK);
	queues_kick(&w->d, 2); /* the second pair's thread has heard its doorbell */
	driver_run_rounds(&w->d.d, 2);
	assert_true(w->d.deaf[2] && !w->d.deaf[CONTROL]);
	driver_reset(&w->d.d);
	start(w, FEATURES & ~BIT(NET_F_MQ));
	driver_run_rounds(&w->d.d, 2);
	assert_true(!w->d.deaf[2] && w->d.deaf[CONTROL]);
	control_queue = 2;
	assert_int_equal(use_pairs(w, 1), ERR); /* 5.1.6.5.5: not negotiated */
	control_queue = CONTROL;
	assert_false(queues_needs_reset(&w->d.d));
}

/* ---- frames ---- */

static void fill_frame(uint8_t *frame, uint8_t seed)
{
	memset(frame, seed, FRAME);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, mac, 6);
	frame[12] = 0x88; /* an experimental EtherType */
	frame[13] = 0xb5;
}

/* Not rung for. */
static void add_frame(struct world *w, uint16_t pair, uint8_t seed)
{
	gpa_t at = guest_alloc(&w->g, NET_HEADER_BYTES + FRAME, 16);

	memset(guest_ptr(&w->g, at), 0, NET_HEADER_BYTES);
	fill_frame((uint8_t *)guest_ptr(&w->g, at) + NET_HEADER_BYTES, seed);
	driver_add(&w->d.q[2 * pair + 1], &(struct driver_buf){at, NET_HEADER_BYTES + FRAME, false}, 1);
}

static void wait_sent(struct world *w, uint16_t pair, unsigned n)
{
	uint16_t head;
	uint32_t len;

	while (n--)
		assert_true(queues_wait_used(&w->d, 2 * pair + 1, &head, &len));
}

/* How many frames with each seed the host has had; waits until there are `n`. */
static void peer_receives(struct world *w, unsigned n, unsigned ret[256])
{
	struct pollfd fd = {.fd = w->peer, .events = POLLIN};
	uint8_t frame[2000];

	memset(ret, 0, 256 * sizeof(*ret));
	while (n) {
		assert_int_equal(poll(&fd, 1, DRIVER_DEADLINE_NS / 1000000), 1);
		if (recv(w->peer, frame, sizeof(frame), 0) == FRAME) {
			ret[frame[50]]++;
			n--;
		}
	}
}

/* Waits until the host has a frame with this seed, whatever comes before. */
static void peer_hears(struct world *w, uint8_t seed)
{
	unsigned seen[256];

	do
		peer_receives(w, 1, seen);
	while (!seen[seed]);
}

static void each_pair_sends(void **state)
{
	struct world *w = *state;
	const struct net_metrics *metrics;
	unsigned seen[256];

	if (!w->dev)
		skip();
	metrics = virtio_net_metrics(w->dev);
	assert_int_equal(use_pairs(w, N), OK);
	for (unsigned round = 0; round < 10; round++) {
		for (uint16_t pair = 0; pair < N; pair++)
			for (unsigned i = 0; i < 50; i++)
				add_frame(w, pair, (uint8_t)(pair + 1));
		for (uint16_t pair = 0; pair < N; pair++)
			queues_kick(&w->d, 2 * pair + 1);
		for (uint16_t pair = 0; pair < N; pair++)
			wait_sent(w, pair, 50);
		peer_receives(w, 50 * N, seen);
		for (uint16_t pair = 0; pair < N; pair++)
			assert_int_equal(seen[pair + 1], 50);
	}
	assert_int_equal(metric_read(&metrics->tx_packets_count), 50 * N * 10);
	/* What comes by a pair that is not used any more goes nowhere, and is not kept. */
	assert_int_equal(use_pairs(w, 1), OK);
	add_frame(w, 2, 99);
	queues_kick(&w->d, 2 * 2 + 1);
	wait_sent(w, 2, 1);
	assert_int_equal(metric_read(&metrics->tx_fails), 1);
	add_frame(w, 0, 7);
	queues_kick(&w->d, 1);
	peer_receives(w, 1, seen);
	assert_int_equal(seen[7], 1);
}

/* UDP of many flows: the kernel spreads them over the queues there are. */
static void send_flows(struct world *w, unsigned n)
{
	uint8_t frame[FRAME] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0, 0, FRAME - 14, 0, 0, 0, 0, 64, 17, 0, 0,
		10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 9, 0, FRAME - 34};
	/* The socket is bound to another protocol, by which the kernel would take them for one flow. */
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htobe16(0x0800), .sll_ifindex = (int)if_nametoindex(TAP)};

	for (unsigned i = 0; i < n; i++) {
		frame[34] = (uint8_t)(0x80 | i >> 8);
		frame[35] = (uint8_t)i;
		assert_int_equal(sendto(w->peer, frame, sizeof(frame), 0, (struct sockaddr *)&to, sizeof(to)), FRAME);
	}
}

/* Ours among what queue `q` was given so far, as the host's stack has something to say of its own. */
static unsigned received(struct world *w, uint16_t q)
{
	struct driver_queue *queue = &w->d.q[q];
	unsigned n = 0;
	uint16_t head;
	uint32_t len;

	while (driver_get_used(queue, &head, &len)) {
		const uint8_t *frame = (uint8_t *)guest_ptr(&w->g, queue->desc_table[head].addr) + NET_HEADER_BYTES;

		n += len == NET_HEADER_BYTES + FRAME && frame[12] == 0x08 && frame[23] == 17;
		post(w, q, queue->desc_table[head].addr);
	}
	queues_kick(&w->d, q);
	return n;
}

static void receive_all(struct world *w, unsigned n, unsigned ret[N])
{
	uint64_t until = monotonic_ns() + DRIVER_DEADLINE_NS;

	memset(ret, 0, N * sizeof(*ret));
	for (unsigned total = 0; total < n;) {
		struct pollfd fds[N];
		eventfd_t count;

		total = 0;
		for (uint16_t pair = 0; pair < N; pair++) {
			fds[pair] = (struct pollfd){.fd = w->d.call[2 * pair], .events = POLLIN};
			ret[pair] += received(w, 2 * pair);
			total += ret[pair];
		}
		assert_true(monotonic_ns() < until);
		if (total < n && poll(fds, N, 100) > 0)
			for (uint16_t pair = 0; pair < N; pair++)
				eventfd_read(w->d.call[2 * pair], &count);
	}
}

static void frames_come_by_the_pairs_that_are_used(void **state)
{
	struct world *w = *state;
	unsigned got[N], used;

	if (!w->dev)
		skip();
	send_flows(w, 64);
	receive_all(w, 64, got);
	assert_int_equal(got[0], 64);
	assert_int_equal(use_pairs(w, N), OK);
	for (unsigned round = 0; round < 8; round++) {
		send_flows(w, 64);
		receive_all(w, 64, got);
	}
	used = !!got[0] + !!got[1] + !!got[2] + !!got[3];
	assert_true(used > 1);
	assert_int_equal(use_pairs(w, 1), OK);
	send_flows(w, 64);
	receive_all(w, 64, got);
	assert_int_equal(got[0], 64);
}

/* ---- in mid-operation ---- */

/* From the moment the status reads 0, guest memory stands still, whatever the threads were at. */
static void a_vcpu_resets_while_frames_come(void **state)
{
	struct world *w = *state;
	uint8_t *snapshot = malloc(w->g.size);
	unsigned got[N];

	if (!w->dev) {
		free(snapshot);
		skip();
	}
	for (unsigned round = 0; round < 20; round++) {
		assert_int_equal(use_pairs(w, N), OK);
		for (uint16_t pair = 0; pair < N; pair++) {
			add_frame(w, pair, 1);
			queues_kick(&w->d, 2 * pair + 1);
		}
		send_flows(w, 32);
		driver_reset(&w->d.d);
		memcpy(snapshot, w->g.ram, w->g.size);
		send_flows(w, 32);
		driver_run_rounds(&w->d.d, 2);
		assert_memory_equal(snapshot, w->g.ram, w->g.size);
		w->g.brk = GUEST_BASE;
		memset(w->g.ram, 0, w->g.size);
		start(w, FEATURES);
	}
	send_flows(w, 10); /* behind what was left in the tap by then */
	receive_all(w, 10, got);
	assert_int_equal(got[1] + got[2] + got[3], 0); /* a driver begins with one pair */
	free(snapshot);
}

static void a_save_has_all_pairs_at_rest(void **state)
{
	struct world *w = *state;
	struct queues_driver before;
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};
	unsigned got[N];

	if (!w->dev)
		skip();
	assert_int_equal(use_pairs(w, N), OK);
	for (uint16_t pair = 0; pair < N; pair++) {
		for (unsigned i = 0; i < 50; i++)
			add_frame(w, pair, 5);
		queues_kick(&w->d, 2 * pair + 1);
	}
	virtio_dev_quiesce(w->dev); /* wherever they are */
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	before = w->d;
	unmake(w);

	assert_true(make(w)); /* with the interface that went with the last one's descriptors */
	memcpy(w->d.q, before.q, sizeof(before.q));
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	if (virtio_dev_load(w->dev, &reader, &err) < 0)
		fail_msg("%s", err.message);
	virtio_dev_resume(w->dev);
	for (uint16_t pair = 0; pair < N; pair++)
		wait_sent(w, pair, 50); /* each of them once */
	for (unsigned round = 0; round < 8; round++) {
		send_flows(w, 64);
		receive_all(w, 64, got);
	}
	assert_true(!!got[0] + !!got[1] + !!got[2] + !!got[3] > 1);
	add_frame(w, 3, 8);
	queues_kick(&w->d, 7);
	peer_hears(w, 8);
	state_writer_done(&writer);
}

static void one_pair_breaks_the_rules_while_the_others_work(void **state)
{
	struct world *w = *state;

	if (!w->dev)
		skip();
	assert_int_equal(use_pairs(w, N), OK);
	for (uint16_t pair = 0; pair < N; pair++) {
		add_frame(w, pair, 1);
		if (pair == 2)
			driver_publish(&w->d.q[5], 1000); /* no such descriptor */
		queues_kick(&w->d, 2 * pair + 1);
	}
	assert_true(driver_run_until(&w->d.d, queues_needs_reset, &w->d.d));
	assert_int_equal(w->dev->times_broken, 1);
	driver_reset(&w->d.d);
	start(w, FEATURES);
	assert_int_equal(use_pairs(w, N), OK);
	add_frame(w, 2, 9);
	queues_kick(&w->d, 5);
	peer_hears(w, 9);
}

static void a_limit_is_shared_and_can_be_changed(void **state)
{
	struct world *w = *state;
	struct token_bucket_config ops = {.size = 10, .refill_time = 100}, none = {0};
	struct rate_limiter_config limiter = {.ops = &ops};
	uint64_t begun_ns = monotonic_ns();

	if (!w->dev)
		skip();
	assert_int_equal(use_pairs(w, N), OK);
	virtio_net_set_limiters(w->dev, NULL, &limiter);
	for (uint16_t pair = 0; pair < N; pair++) {
		for (unsigned i = 0; i < 10; i++)
			add_frame(w, pair, 1);
		queues_kick(&w->d, 2 * pair + 1);
	}
	for (uint16_t pair = 0; pair < N; pair++)
		wait_sent(w, pair, 10);
	assert_true(monotonic_ns() - begun_ns >= 250000000); /* 10 at once, then 100 a second */
	ops = (struct token_bucket_config){.size = 1, .refill_time = 1000000};
	virtio_net_set_limiters(w->dev, NULL, &limiter);
	for (unsigned i = 0; i < 10; i++)
		add_frame(w, 3, 1);
	queues_kick(&w->d, 7);
	limiter.ops = &none;
	virtio_net_set_limiters(w->dev, NULL, &limiter);
	wait_sent(w, 3, 10);
}

/* ---- the interface goes ---- */

static void delete_interface(const char *name)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {{sizeof(request), RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
		{.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex(name)}};
	char answer[256];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	assert_int_equal(send(fd, &request, sizeof(request), 0), sizeof(request));
	assert_true(recv(fd, answer, sizeof(answer), 0) > 0);
	close(fd);
}

static bool link_is_down(void *ctx)
{
	struct virtio_dev *dev = ctx;
	uint16_t status;

	virtio_dev_enter(dev);
	virtio_dev_config_read(dev, 6, &status, sizeof(status));
	virtio_dev_leave(dev);
	return !status;
}

static void a_tap_that_goes_takes_the_link_down_once(void **state)
{
	struct world *w = *state;

	if (!w->dev)
		skip();
	assert_int_equal(use_pairs(w, N), OK);
	assert_false(link_is_down(w->dev));
	delete_interface(TAP);
	for (uint16_t pair = 0; pair < N; pair++) {
		add_frame(w, pair, 1);
		queues_kick(&w->d, 2 * pair + 1);
	}
	for (uint16_t pair = 0; pair < N; pair++)
		wait_sent(w, pair, 1); /* dropped */
	assert_true(driver_run_until(&w->d.d, link_is_down, w->dev));
	driver_run_rounds(&w->d.d, 4);
	assert_int_equal(w->d.d.config_interrupts, 1);
	driver_reset(&w->d.d);
	start(w, FEATURES);
	assert_false(queues_needs_reset(&w->d.d));
}

static void a_tap_of_one_queue_is_refused(void **state)
{
	struct world *w = *state;
	struct error err = {0};
	int fd;

	if (!w->dev)
		skip();
	assert_int_equal(virtio_net_open_tap(TAP, false, &err), -EINVAL);
	assert_non_null(strstr(err.message, "is not a tap interface with one queue"));
	fd = virtio_net_open_tap("hullsingle0", false, &err);
	assert_true(fd >= 0);
	assert_int_equal(virtio_net_open_tap("hullsingle0", true, &err), -EINVAL);
	assert_string_equal(err.field, "host_dev_name");
	assert_non_null(strstr(err.message, "with several queues (multi_queue)"));
	close(fd);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_driver_says_how_many_pairs_it_uses),
		CASE(without_several_pairs_the_control_queue_is_the_third),
		CASE(each_pair_sends),
		CASE(frames_come_by_the_pairs_that_are_used),
		CASE(a_vcpu_resets_while_frames_come),
		CASE(a_save_has_all_pairs_at_rest),
		CASE(one_pair_breaks_the_rules_while_the_others_work),
		CASE(a_limit_is_shared_and_can_be_changed),
		CASE(a_tap_that_goes_takes_the_link_down_once),
		CASE(a_tap_of_one_queue_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
