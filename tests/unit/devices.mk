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
