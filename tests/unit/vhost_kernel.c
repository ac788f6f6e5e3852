/* The kernel's vhost-net on a tap, in a network namespace of its own. Without /dev/vhost-net there is nothing to be seen:
 * tests/system/test_vhost.py runs this on a host that has one. */
#include "tests/unit/tap.h"
#include "tests/unit/vhost_world.h"

#include "devices/net_backend.h"
#include "devices/virtio_net.h"

#include <sched.h>

enum { RX, TX };

#define TAP	 "hullvhost0"
#define RX_BYTES 2048u
#define FRAME	 200u /* bytes */

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
static int host = -1; /* the host's side of the tap */

/* NULL where the kernel has none. */
static struct virtio_dev *make(struct world *w)
{
	int tap = virtio_net_open_tap(TAP, false, &w->err);
	struct vhost *vhost;

	if (tap < 0)
		return NULL;
	vhost = vhost_kernel_net_new(tap, &w->err);
	return vhost ? virtio_vhost_net_new(vhost, "eth0", mac, 1400, w->loop, &w->g.mem, &w->err) : NULL;
}

static int setup_tap(void **state)
{
	struct virtio_dev *dev;
	struct world *w;

	if (access("/dev/vhost-net", R_OK | W_OK) == 0 && unshare(CLONE_NEWNET) < 0)
		return -1;
	setup(state);
	w = *state;
	dev = make(w);
	if (!dev)
		return 0;
	world_take(w, dev);
	interface_up(TAP);
	host = packet_socket(TAP);
	w->descriptors++;
	return 0;
}

static int teardown_tap(void **state)
{
	struct world *w = *state;

	w->descriptors -= host >= 0;
	host = close_fd(host);
	return teardown(state);
}

static void requires_vhost(const struct world *w)
{
	if (!w->dev)
		skip();
}

static void fill(uint8_t frame[FRAME], uint8_t with)
{
	memset(frame, with, FRAME);
	memset(frame, 0xff, 6);
	frame[12] = 0x88;
	frame[13] = 0xb5;
}

static void start_net(struct world *w, uint64_t features)
{
	assert_int_equal(world_start(w, features, 2), LIVE);
	for (unsigned i = 0; i < QSIZE / 2; i++)
		world_ask(w, RX, guest_alloc(&w->g, RX_BYTES, 16), RX_BYTES);
}

/* A frame of ours, what the host's stack has to say of its own left aside. */
static void guest_receives(struct world *w, uint8_t frame[FRAME])
{
	const struct vring_desc *desc;
	const uint8_t *got;
	uint16_t head = 0;
	uint32_t len = 0;

	do {
		assert_true(driver_wait_used(&w->d, &w->q[RX], &head, &len));
		desc = &w->q[RX].desc_table[head];
		got = (const uint8_t *)guest_ptr(&w->g, desc->addr) + NET_HEADER_BYTES;
		world_ask(w, RX, desc->addr, RX_BYTES);
	} while (got[12] != 0x88 || got[13] != 0xb5);
	assert_int_equal(len, NET_HEADER_BYTES + FRAME);
	memcpy(frame, got, FRAME);
}

static void frames_go_both_ways(struct world *w, uint8_t with)
{
	uint8_t frame[FRAME], got[FRAME], header[NET_HEADER_BYTES] = {0};
	uint64_t until = monotonic_ns() + DRIVER_DEADLINE_NS;
	struct driver_buf bufs[2];
	uint16_t head = 0;
	uint32_t len = 0;

	fill(frame, with);
	assert_int_equal(send(host, frame, sizeof(frame), 0), sizeof(frame));
	guest_receives(w, got);
	assert_memory_equal(got, frame, sizeof(frame));
	bufs[0] = (struct driver_buf){guest_put(&w->g, header, sizeof(header)), sizeof(header), false};
	bufs[1] = (struct driver_buf){guest_put(&w->g, frame, sizeof(frame)), sizeof(frame), false};
	w->q[TX].avail_ring->ring[QSIZE] = w->q[TX].last_used;
	driver_add(&w->q[TX], bufs, 2);
	world_kick(w, TX);
	assert_true(driver_wait_used(&w->d, &w->q[TX], &head, &len));
	while (recv(host, got, sizeof(got), 0) < 0)
		assert_true(monotonic_ns() < until);
	assert_memory_equal(got, frame, sizeof(frame));
}

static void frames_pass_by(void **state)
{
	struct world *w = *state;

	requires_vhost(w);
	assert_true(virtio_dev_features(w->dev) & BIT(NET_F_MRG_RXBUF));
	assert_true(virtio_dev_features(w->dev) & BIT(NET_F_HOST_TSO4));
	for (unsigned i = 0; i < 2; i++) {
		start_net(w, BIT(NET_F_MAC) | (i ? RING_EVENTS | BIT(NET_F_MRG_RXBUF) : 0));
		for (unsigned n = 0; n < 2 * QSIZE; n++)
			frames_go_both_ways(w, (uint8_t)n);
	}
	driver_reset(&w->d);
}

static void an_interface_goes_on_where_it_stood(void **state)
{
	struct world *w = *state;
	struct state_writer writer;
	struct state_reader reader;

	requires_vhost(w);
	start_net(w, RING_EVENTS);
	for (unsigned n = 0; n < QSIZE + 5; n++)
		frames_go_both_ways(w, (uint8_t)n);
	virtio_dev_quiesce(w->dev);
	assert_int_equal(w->dev->queues[TX].next_avail, QSIZE + 5);
	state_writer_init(&writer);
	virtio_dev_save(w->dev, &writer);
	world_drop_device(w);
	world_take(w, make(w));
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(virtio_dev_load(w->dev, &reader, &w->err), 0);
	state_writer_done(&writer);
	virtio_dev_resume(w->dev);
	/* The interface has gone with its only user, and come again. */
	interface_up(TAP);
	close_fd(host);
	host = packet_socket(TAP);
	for (unsigned n = 0; n < QSIZE; n++)
		frames_go_both_ways(w, (uint8_t)n);
}

static void a_broken_ring_is_noticed(void **state)
{
	struct world *w = *state;

	requires_vhost(w);
	start_net(w, 0);
	driver_publish(&w->q[TX], QSIZE); /* no such chain */
	world_kick(w, TX);
	assert_true(driver_run_until(&w->d, world_is_broken, w));
	start_net(w, 0);
	frames_go_both_ways(w, 7);
}

#define TAP_TEST(name) cmocka_unit_test_setup_teardown(name, setup_tap, teardown_tap)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TAP_TEST(frames_pass_by),
		TAP_TEST(an_interface_goes_on_where_it_stood),
		TAP_TEST(a_broken_ring_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
