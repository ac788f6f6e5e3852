# unit tests of devices, included by tests/local.mk inside HAVE_CMOCKA
EXTRA_DIST += tests/unit/virtq_driver.h
DEVICES_TEST_LIBS = libhull-devices.a $(UNIT_LIBS) $(LIBURING_LIBS)

check_PROGRAMS += tests/unit/virtq
TESTS += tests/unit/virtq
tests_unit_virtq_SOURCES = tests/unit/virtq.c
tests_unit_virtq_CFLAGS = $(UNIT_CFLAGS)
tests_unit_virtq_LDADD = $(DEVICES_TEST_LIBS)

check_PROGRAMS += tests/unit/virtio_blk
TESTS += tests/unit/virtio_blk
tests_unit_virtio_blk_SOURCES = tests/unit/virtio_blk.c
tests_unit_virtio_blk_CFLAGS = $(UNIT_CFLAGS)
tests_unit_virtio_blk_LDADD = $(DEVICES_TEST_LIBS)

# The legacy devices.
check_PROGRAMS += tests/unit/uart16550 tests/unit/i8042 tests/unit/power
TESTS += tests/unit/uart16550 tests/unit/i8042 tests/unit/power
tests_unit_uart16550_SOURCES = tests/unit/uart16550.c
tests_unit_uart16550_CFLAGS = $(UNIT_CFLAGS)
tests_unit_uart16550_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_i8042_SOURCES = tests/unit/i8042.c
tests_unit_i8042_CFLAGS = $(UNIT_CFLAGS)
tests_unit_i8042_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_power_SOURCES = tests/unit/power.c
tests_unit_power_CFLAGS = $(UNIT_CFLAGS)
tests_unit_power_LDADD = $(DEVICES_TEST_LIBS)

check_PROGRAMS += tests/unit/virtio_vsock
TESTS += tests/unit/virtio_vsock
tests_unit_virtio_vsock_SOURCES = tests/unit/virtio_vsock.c
tests_unit_virtio_vsock_CFLAGS = $(UNIT_CFLAGS)
tests_unit_virtio_vsock_LDADD = $(DEVICES_TEST_LIBS)
# The test does something at the instant of this call.
tests_unit_virtio_vsock_LDFLAGS = -Wl,--wrap=virtq_enable_doorbell
check_PROGRAMS += tests/unit/state tests/unit/virtio_mmio tests/unit/blk_uring
TESTS += tests/unit/state tests/unit/virtio_mmio tests/unit/blk_uring
tests_unit_state_SOURCES = tests/unit/state.c
tests_unit_state_CFLAGS = $(UNIT_CFLAGS)
tests_unit_state_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_mmio_SOURCES = tests/unit/virtio_mmio.c
tests_unit_virtio_mmio_CFLAGS = $(UNIT_CFLAGS)
tests_unit_virtio_mmio_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_blk_uring_SOURCES = tests/unit/blk_uring.c
tests_unit_blk_uring_CFLAGS = $(UNIT_CFLAGS) $(LIBURING_CFLAGS)
tests_unit_blk_uring_LDADD = $(DEVICES_TEST_LIBS)


check_PROGRAMS += tests/unit/virtio_net
TESTS += tests/unit/virtio_net
tests_unit_virtio_net_SOURCES = tests/unit/virtio_net.c
tests_unit_virtio_net_CFLAGS = $(UNIT_CFLAGS)
tests_unit_virtio_net_LDADD = $(DEVICES_TEST_LIBS)
