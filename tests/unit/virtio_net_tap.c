/* virtio-net over a real tap, in a network namespace of its own. */
#include "tests/unit/net_world.h"
#include "tests/unit/tap.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/syscall.h>

static int setup_tap(void **state)
{
	struct world *w = world_new();
	struct error err = {0};
	int fd;

	*state = w;
	/* Anything done here stays in namespaces of this process. */
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return 0;
	fd = virtio_net_open_tap("hulltest0", false, &err);
	if (fd < 0)
		return 0;
	world_make_device(w, NET_BACKEND_TAP, fd);
	interface_up("hulltest0");
	w->peer = packet_socket("hulltest0");
	return 0;
}

static void tap_frames_go_both_ways(void **state)
{
	struct world *w = *state;
	uint8_t frame[1514], got[2000];
	uint64_t until = monotonic_ns() + DRIVER_DEADLINE_NS;

	if (!w->dev)
		skip();
	world_start(w, MERGED, QSIZE, RX_BYTES);
	for (unsigned i = 0; i < 100; i++) {
		size_t len = 60 + i * 10;
		struct net_header header;
		ssize_t n;

		fill_frame(frame, len, i);
		assert_int_equal(send(w->peer, frame, len, 0), len);
		do /* the host's stack may have something to say of its own */
			n = (ssize_t)guest_receives(w, got, &header);
		while (got[12] != 0x88 || got[13] != 0xb5);
		assert_int_equal(n, len);
		assert_memory_equal(got, frame, len);
		guest_sends(w, frame, len);
		do {
			driver_run_rounds(&w->driver, 1);
			n = recv(w->peer, got, sizeof(got), 0);
			assert_true(monotonic_ns() < until);
		} while (n < 0);
		assert_int_equal(n, len);
		assert_memory_equal(got, frame, len);
	}
}

static void tap_offers_offloads_and_takes_what_is_chosen(void **state)
{
	struct world *w = *state;
	const uint64_t offloads = BIT(NET_F_CSUM) | BIT(NET_F_GUEST_CSUM) | BIT(NET_F_HOST_TSO4) |
	                          BIT(NET_F_HOST_TSO6) | BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6);

	if (!w->dev)
		skip();
	assert_true((virtio_dev_features(w->dev) & offloads) == offloads);
	world_start(w, MERGED | offloads, QSIZE, RX_BYTES);
	assert_int_equal(link_status(w), 1);
}

static void a_tap_in_use_is_refused(void **state)
{
	struct world *w = *state;
	struct error err = {0};

	if (!w->dev)
		skip();
	assert_int_equal(virtio_net_open_tap("hulltest0", false, &err), -EBUSY);
	assert_string_equal(err.field, "host_dev_name");
	assert_int_equal(virtio_net_open_tap("lo", false, &err), -EINVAL); /* is no tap */
}

static void a_tap_that_may_not_be_made_is_refused(void **state)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct before[2], without[2];
	struct world *w = *state;
	struct error err = {0};
	int r;

	if (!w->dev)
		skip();
	assert_int_equal(syscall(SYS_capget, &header, before), 0);
	memcpy(without, before, sizeof(without));
	without[0].effective &= ~(1u << CAP_NET_ADMIN);
	assert_int_equal(syscall(SYS_capset, &header, without), 0);
	r = virtio_net_open_tap("hulltest1", false, &err);
	assert_int_equal(syscall(SYS_capset, &header, before), 0);
	assert_int_equal(r, -EPERM);
	assert_non_null(strstr(err.message, "does not exist"));
}

#define CASE_TAP(fn) cmocka_unit_test_setup_teardown(fn, setup_tap, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE_TAP(tap_frames_go_both_ways),
	        CASE_TAP(tap_offers_offloads_and_takes_what_is_chosen),
	        CASE_TAP(a_tap_in_use_is_refused),
	        CASE_TAP(a_tap_that_may_not_be_made_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
