# Unit tests, included by tests/local.mk inside HAVE_CMOCKA. A test's source is tests/unit/NAME.c, where its stanza does
# not say otherwise.
EXTRA_DIST += tests/unit/test.h tests/unit/virtio_probe.h tests/unit/virtq_driver.h tests/unit/blk_fixture.h tests/unit/queues_driver.h tests/unit/net_world.h \
	tests/unit/vsock_world.h tests/unit/boot_fixture.h tests/unit/mmds_guest.h \
	tests/unit/vhost_backend.h tests/unit/vhost_world.h tests/unit/tap.h tests/unit/no_holes.h
UNIT_TESTS =
check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
UNIT_LIBS = libhull-common.a $(CMOCKA_LIBS) $(JANSSON_LIBS)

UNIT_TESTS += tests/unit/bounded_file tests/unit/error tests/unit/json tests/unit/loop tests/unit/buf tests/unit/relay
UNIT_TESTS += tests/unit/http tests/unit/checked tests/unit/accounting tests/unit/new_file
tests_unit_new_file_LDADD = $(UNIT_LIBS)
tests_unit_new_file_LDFLAGS = -Wl,--wrap=open
tests_unit_accounting_LDADD = $(UNIT_LIBS)
tests_unit_http_LDADD = $(UNIT_LIBS)
tests_unit_checked_LDADD = $(UNIT_LIBS)
tests_unit_bounded_file_LDADD = $(UNIT_LIBS)
tests_unit_bounded_file_LDFLAGS = -Wl,--wrap=fallocate
tests_unit_error_LDADD = $(UNIT_LIBS)
tests_unit_json_LDADD = $(UNIT_LIBS)
tests_unit_loop_LDADD = $(UNIT_LIBS)
tests_unit_buf_LDADD = $(UNIT_LIBS)
tests_unit_relay_LDADD = $(UNIT_LIBS)

DEVICES_TEST_LIBS = libhull-devices.a $(UNIT_LIBS) $(LIBURING_LIBS)
UNIT_TESTS += tests/unit/state tests/unit/uart16550 tests/unit/i8042 tests/unit/power
tests_unit_state_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_uart16550_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_i8042_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_power_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/gmem
tests_unit_gmem_LDADD = $(DEVICES_TEST_LIBS)
UNIT_TESTS += tests/unit/virtq tests/unit/virtio_mmio tests/unit/virtio_rng
tests_unit_virtq_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_mmio_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_rng_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/virtio_pci
tests_unit_virtio_pci_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/virtio_blk tests/unit/virtio_blk_life tests/unit/blk_uring
tests_unit_virtio_blk_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_blk_life_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_blk_uring_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/virtio_blk_queues tests/unit/virtio_net_queues
tests_unit_virtio_net_queues_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_blk_queues_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/virtio_console
tests_unit_virtio_console_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/rate_limiter
tests_unit_rate_limiter_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/virtio_net tests/unit/virtio_net_tap
tests_unit_virtio_net_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_net_tap_LDADD = $(DEVICES_TEST_LIBS)

UNIT_TESTS += tests/unit/mmds_http tests/unit/mmds_linux tests/unit/mmds_stack tests/unit/virtio_net_mmds
tests_unit_mmds_http_LDADD = $(DEVICES_TEST_LIBS) $(NETTLE_LIBS)
tests_unit_mmds_linux_LDADD = $(DEVICES_TEST_LIBS) $(NETTLE_LIBS)
tests_unit_mmds_stack_LDADD = $(DEVICES_TEST_LIBS) $(NETTLE_LIBS)
tests_unit_virtio_net_mmds_LDADD = $(DEVICES_TEST_LIBS) $(NETTLE_LIBS)

UNIT_TESTS += tests/unit/virtio_vsock tests/unit/virtio_vsock_flow
tests_unit_virtio_vsock_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_vsock_flow_LDADD = $(DEVICES_TEST_LIBS)
# The test does something at the instant of this call.
tests_unit_virtio_vsock_flow_LDFLAGS = -Wl,--wrap=virtq_enable_doorbell

UNIT_TESTS += tests/unit/virtio_vhost tests/unit/vhost_user tests/unit/vhost_kernel
tests_unit_vhost_kernel_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_vhost_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_vhost_user_LDADD = $(DEVICES_TEST_LIBS)

# The monitor's parts that need no KVM.
VMM_TEST_LIBS = libhull-vmm.a libhull-vmm-boot.a libhull-devices.a $(UNIT_LIBS)
UNIT_TESTS += tests/unit/boot tests/unit/boot_elf tests/unit/acpi
UNIT_TESTS += tests/unit/config_edit
tests_unit_config_edit_LDADD = $(VMM_TEST_LIBS)
UNIT_TESTS += tests/unit/bus tests/unit/config tests/unit/console tests/unit/options
tests_unit_boot_LDADD = $(VMM_TEST_LIBS)
tests_unit_boot_elf_LDADD = $(VMM_TEST_LIBS)
tests_unit_acpi_LDADD = $(VMM_TEST_LIBS)
tests_unit_bus_LDADD = $(VMM_TEST_LIBS)
tests_unit_config_LDADD = $(VMM_TEST_LIBS)
tests_unit_console_LDADD = $(VMM_TEST_LIBS)
tests_unit_options_LDADD = $(VMM_TEST_LIBS)
UNIT_TESTS += tests/unit/cpuid tests/unit/cpu_template
tests_unit_cpuid_LDADD = $(VMM_TEST_LIBS)
tests_unit_cpu_template_LDADD = $(VMM_TEST_LIBS)

UNIT_TESTS += tests/unit/gdb_packet tests/unit/gdb_break tests/unit/gdb_stub
EXTRA_DIST += tests/unit/gdb_world.h
tests_unit_gdb_packet_LDADD = $(VMM_TEST_LIBS)
tests_unit_gdb_break_LDADD = $(VMM_TEST_LIBS)
tests_unit_gdb_stub_LDADD = $(VMM_TEST_LIBS)

UNIT_TESTS += tests/unit/passwd tests/unit/guest_config tests/unit/agent tests/unit/fresh_volume
tests_unit_fresh_volume_LDADD = libhull-guest.a $(UNIT_LIBS)
tests_unit_passwd_LDADD = libhull-guest.a $(UNIT_LIBS)
tests_unit_guest_config_LDADD = libhull-guest.a $(UNIT_LIBS)
tests_unit_agent_LDADD = libhull-guest.a $(UNIT_LIBS)
UNIT_TESTS += tests/unit/exec
EXTRA_DIST += tests/unit/agent_world.h
tests_unit_exec_LDADD = libhull-guest.a $(UNIT_LIBS)
UNIT_TESTS += tests/unit/orders
tests_unit_orders_SOURCES = tests/unit/orders.c tests/unit/agent_world.h
tests_unit_orders_LDFLAGS = -Wl,--wrap=order_carry_out
tests_unit_orders_LDADD = libhull-guest.a $(UNIT_LIBS)

UNIT_TESTS += tests/unit/audit_file
tests_unit_audit_file_LDADD = libhull-api.a $(UNIT_LIBS)
UNIT_TESTS += tests/unit/log_pieces
tests_unit_log_pieces_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_log_pieces_LDFLAGS = -Wl,--wrap=fallocate
UNIT_TESTS += tests/unit/webhook_sign tests/unit/public_address
tests_unit_webhook_sign_LDADD = libhull-api.a $(UNIT_LIBS) $(NETTLE_LIBS) $(SODIUM_LIBS)
tests_unit_public_address_LDADD = libhull-api.a $(UNIT_LIBS)
UNIT_TESTS += tests/unit/subnet tests/unit/network_uplink
tests_unit_subnet_LDADD = $(UNIT_LIBS)
tests_unit_network_uplink_SOURCES = tests/unit/network_uplink.c api/network/uplink.c
tests_unit_network_uplink_LDADD = $(UNIT_LIBS)
UNIT_TESTS += tests/unit/host_reader tests/unit/monitor_call tests/unit/worker tests/unit/spawn
tests_unit_host_reader_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_worker_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_monitor_call_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_spawn_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_spawn_LDFLAGS = -Wl,--wrap=strlen

UNIT_TESTS += tests/unit/stats
tests_unit_stats_LDADD = libhull-guest.a libhull-api.a libhull-cli.a $(UNIT_LIBS) $(YAML_LIBS)

UNIT_TESTS += tests/unit/api_store tests/unit/api_spec tests/unit/cli tests/unit/etag tests/unit/machine_index
UNIT_TESTS += tests/unit/merge_patch
UNIT_TESTS += tests/unit/operations tests/unit/secrets
tests_unit_secrets_LDADD = libhull-api.a $(UNIT_LIBS) $(HULLD_LIBS)
tests_unit_operations_LDADD = libhull-api.a $(UNIT_LIBS) $(HULLD_LIBS)
tests_unit_merge_patch_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_etag_LDADD = libhull-api.a $(UNIT_LIBS) $(NETTLE_LIBS)
tests_unit_machine_index_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_api_store_LDADD = libhull-api.a $(UNIT_LIBS) $(SQLITE_LIBS)
tests_unit_api_spec_LDADD = libhull-api.a $(UNIT_LIBS)
tests_unit_cli_LDADD = libhull-cli.a $(UNIT_LIBS) $(YAML_LIBS)

UNIT_TESTS += tests/unit/forward tests/unit/session
tests_unit_forward_SOURCES = tests/unit/forward.c tools/forward.c
tests_unit_forward_LDADD = $(UNIT_LIBS)
tests_unit_session_SOURCES = tests/unit/session.c tools/session.c
tests_unit_session_LDADD = $(UNIT_LIBS)
UNIT_TESTS += tests/unit/metrics
tests_unit_metrics_LDADD = $(VMM_TEST_LIBS)
UNIT_TESTS += tests/unit/log
tests_unit_log_LDADD = $(UNIT_LIBS)
EXTRA_DIST += tests/unit/snapshot_world.h
UNIT_TESTS += tests/unit/snapshot
tests_unit_snapshot_LDADD = $(VMM_TEST_LIBS)
UNIT_TESTS += tests/unit/ram
tests_unit_ram_LDADD = $(VMM_TEST_LIBS)
EXTRA_DIST += tests/unit/balloon_world.h
UNIT_TESTS += tests/unit/virtio_balloon tests/unit/virtio_balloon_blocks tests/unit/virtio_balloon_life
tests_unit_virtio_balloon_blocks_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_balloon_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_balloon_life_LDADD = $(DEVICES_TEST_LIBS)
UNIT_TESTS += tests/unit/power_button
tests_unit_power_button_LDADD = libhull-guest.a $(UNIT_LIBS)
UNIT_TESTS += tests/unit/shutdown tests/unit/boot_timer
tests_unit_shutdown_LDADD = $(VMM_TEST_LIBS)
tests_unit_boot_timer_LDADD = $(DEVICES_TEST_LIBS)
UNIT_TESTS += tests/unit/virtio_mem tests/unit/virtio_pmem
tests_unit_virtio_mem_LDADD = $(DEVICES_TEST_LIBS)
tests_unit_virtio_pmem_LDADD = $(DEVICES_TEST_LIBS)
# The test finishes flushes by hand.
tests_unit_virtio_pmem_LDFLAGS = -Wl,--wrap=blk_engine_new
UNIT_TESTS += tests/unit/plugged_memory
tests_unit_plugged_memory_SOURCES = tests/unit/plugged_memory.c vmm/plugged_memory.c
tests_unit_plugged_memory_LDADD = $(VMM_TEST_LIBS)
UNIT_TESTS += tests/unit/pmem_file tests/unit/vm
tests_unit_pmem_file_SOURCES = tests/unit/pmem_file.c vmm/pmem_file.c
tests_unit_pmem_file_LDADD = $(VMM_TEST_LIBS) $(LIBURING_LIBS)
tests_unit_vm_SOURCES = tests/unit/vm.c vmm/vm.c
tests_unit_vm_LDADD = $(VMM_TEST_LIBS) $(LIBURING_LIBS)
UNIT_TESTS += tests/unit/pci_bus
tests_unit_pci_bus_LDADD = $(DEVICES_TEST_LIBS)
UNIT_TESTS += tests/unit/vm_msi
tests_unit_vm_msi_SOURCES = tests/unit/vm_msi.c vmm/vm_msi.c
tests_unit_vm_msi_LDADD = $(VMM_TEST_LIBS)
tests_unit_vm_msi_LDFLAGS = -Wl,--wrap=ioctl
UNIT_TESTS += tests/unit/virtio_bus
tests_unit_virtio_bus_SOURCES = tests/unit/virtio_bus.c vmm/virtio_bus.c
tests_unit_virtio_bus_LDADD = $(VMM_TEST_LIBS)
# A guest's time to let go of a device is over when the test says so.
tests_unit_virtio_bus_LDFLAGS = -Wl,--wrap=loop_timer_arm

UNIT_TESTS += tests/unit/host_path
tests_unit_host_path_LDADD = libhull-cli.a $(UNIT_LIBS) $(YAML_LIBS)
