# Fuzz targets, tests/fuzz/NAME.c with a corpus in tests/fuzz/corpus/NAME. `configure --enable-fuzzers CC=clang` links
# them with libFuzzer (tests/fuzz/boot -max_total_time=60 ../tests/fuzz/corpus/boot); otherwise `make check` replays
# each corpus, with mutations.
FUZZ_LINK =
FUZZ_MAIN =
if FUZZERS
FUZZ_LINK += -fsanitize=fuzzer
else
FUZZ_MAIN += tests/fuzz/replay.c
endif

FUZZ_TARGETS = tests/fuzz/boot tests/fuzz/http tests/fuzz/mmds tests/fuzz/virtio_balloon tests/fuzz/virtio_blk tests/fuzz/net tests/fuzz/vsock
FUZZ_TARGETS += tests/fuzz/vhost_user tests/fuzz/virtio_mem tests/fuzz/virtio_pci
FUZZ_TARGETS += tests/fuzz/gdb tests/fuzz/net_control
FUZZ_TARGETS += tests/fuzz/exec tests/fuzz/exec_host
FUZZ_TARGETS += tests/fuzz/order tests/fuzz/order_host
FUZZ_TARGETS += tests/fuzz/files
FUZZ_TARGETS += tests/fuzz/datagrams tests/fuzz/datagrams_host
FUZZ_TARGETS += tests/fuzz/unpack
FUZZ_TARGETS += tests/fuzz/snapshot
check_PROGRAMS += $(FUZZ_TARGETS)
if !FUZZERS
TESTS += $(FUZZ_TARGETS)
endif
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/frames.h tests/fuzz/fuzz.h tests/fuzz/mmio_driver.h tests/fuzz/replay.c

tests_fuzz_boot_SOURCES = tests/fuzz/boot.c $(FUZZ_MAIN)
tests_fuzz_boot_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_boot_LDADD = libhull-vmm-boot.a libhull-devices.a libhull-common.a

tests_fuzz_virtio_balloon_SOURCES = tests/fuzz/virtio_balloon.c $(FUZZ_MAIN)
tests_fuzz_virtio_balloon_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_virtio_balloon_LDADD = libhull-devices.a libhull-common.a

tests_fuzz_virtio_mem_SOURCES = tests/fuzz/virtio_mem.c $(FUZZ_MAIN)
tests_fuzz_virtio_mem_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_virtio_mem_LDADD = libhull-devices.a libhull-common.a

tests_fuzz_virtio_blk_SOURCES = tests/fuzz/virtio_blk.c $(FUZZ_MAIN)
tests_fuzz_virtio_blk_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_virtio_blk_LDADD = libhull-devices.a libhull-common.a $(LIBURING_LIBS)

tests_fuzz_vsock_SOURCES = tests/fuzz/vsock.c $(FUZZ_MAIN)
tests_fuzz_vsock_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_vsock_LDADD = libhull-devices.a libhull-common.a $(LIBURING_LIBS)

tests_fuzz_net_SOURCES = tests/fuzz/net.c $(FUZZ_MAIN)
tests_fuzz_net_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_net_LDADD = libhull-devices.a libhull-common.a $(LIBURING_LIBS)

tests_fuzz_net_control_SOURCES = tests/fuzz/net_control.c $(FUZZ_MAIN)
tests_fuzz_net_control_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_net_control_LDADD = libhull-devices.a libhull-common.a $(LIBURING_LIBS)

tests_fuzz_gdb_SOURCES = tests/fuzz/gdb.c $(FUZZ_MAIN)
tests_fuzz_gdb_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_gdb_LDADD = libhull-vmm.a libhull-devices.a libhull-common.a

tests_fuzz_http_SOURCES = tests/fuzz/http.c $(FUZZ_MAIN)
tests_fuzz_http_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_http_LDADD = libhull-common.a

tests_fuzz_mmds_SOURCES = tests/fuzz/mmds.c $(FUZZ_MAIN)
tests_fuzz_mmds_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_mmds_LDADD = libhull-devices.a libhull-common.a $(JANSSON_LIBS) $(NETTLE_LIBS)

tests_fuzz_vhost_user_SOURCES = tests/fuzz/vhost_user.c $(FUZZ_MAIN)
tests_fuzz_vhost_user_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_vhost_user_LDADD = libhull-devices.a libhull-common.a $(LIBURING_LIBS)

tests_fuzz_virtio_pci_SOURCES = tests/fuzz/virtio_pci.c $(FUZZ_MAIN)
tests_fuzz_virtio_pci_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_virtio_pci_LDADD = libhull-devices.a libhull-common.a

# No program is started, and no process gets a signal.
tests_fuzz_exec_SOURCES = tests/fuzz/exec.c $(FUZZ_MAIN)
tests_fuzz_exec_LDFLAGS = $(FUZZ_LINK) -Wl,--wrap=process_spawn -Wl,--wrap=kill
tests_fuzz_exec_LDADD = libhull-guest.a libhull-common.a $(JANSSON_LIBS)

tests_fuzz_exec_host_SOURCES = tests/fuzz/exec_host.c $(FUZZ_MAIN)
tests_fuzz_exec_host_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_exec_host_LDADD = libhull-api.a libhull-common.a $(JANSSON_LIBS) $(NETTLE_LIBS)

# Nor here, and nothing is connected to or carried out.
tests_fuzz_order_SOURCES = tests/fuzz/order.c $(FUZZ_MAIN)
tests_fuzz_order_LDFLAGS = $(FUZZ_LINK) -Wl,--wrap=process_spawn -Wl,--wrap=kill -Wl,--wrap=order_carry_out \
	-Wl,--wrap=dial_new -Wl,--wrap=dial_cancel
tests_fuzz_order_LDADD = libhull-guest.a libhull-common.a $(JANSSON_LIBS)

tests_fuzz_order_host_SOURCES = tests/fuzz/order_host.c $(FUZZ_MAIN)
tests_fuzz_order_host_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_order_host_LDADD = libhull-api.a libhull-common.a $(JANSSON_LIBS) $(NETTLE_LIBS)

# No file is touched.
tests_fuzz_files_SOURCES = tests/fuzz/files.c $(FUZZ_MAIN)
tests_fuzz_files_LDFLAGS = $(FUZZ_LINK) -Wl,--wrap=pack -Wl,--wrap=unpack
tests_fuzz_files_LDADD = libhull-guest.a libhull-common.a $(JANSSON_LIBS)

# The program that is asked is a socket of the target's own.
tests_fuzz_datagrams_SOURCES = tests/fuzz/datagrams.c $(FUZZ_MAIN)
tests_fuzz_datagrams_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_datagrams_LDADD = libhull-guest.a libhull-common.a $(JANSSON_LIBS)

tests_fuzz_datagrams_host_SOURCES = tests/fuzz/datagrams_host.c api/ingress/udp_port.c $(FUZZ_MAIN)
tests_fuzz_datagrams_host_LDFLAGS = $(FUZZ_LINK) -Wl,--wrap=agent_open -Wl,--wrap=agent_cancel
tests_fuzz_datagrams_host_LDADD = libhull-api.a libhull-common.a $(JANSSON_LIBS)

tests_fuzz_snapshot_SOURCES = tests/fuzz/snapshot.c $(FUZZ_MAIN)
tests_fuzz_snapshot_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_snapshot_LDADD = libhull-vmm.a libhull-devices.a libhull-common.a $(LIBURING_LIBS) $(JANSSON_LIBS)

tests_fuzz_unpack_SOURCES = tests/fuzz/unpack.c $(FUZZ_MAIN)
tests_fuzz_unpack_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_unpack_LDADD = libhull-common.a
