# vmm: sources and programs, included by the top Makefile.am

# How a machine is described and its kernel entered: no KVM calls, so it is tested and fuzzed without.
noinst_LIBRARIES += libhull-vmm-boot.a
libhull_vmm_boot_a_SOURCES = \
	vmm/acpi.c vmm/acpi.h \
	vmm/acpi_pci.c vmm/acpi_pci.h \
	vmm/aml.c vmm/aml.h \
	vmm/boot.c vmm/boot.h vmm/boot_image.h \
	vmm/boot_bzimage.c \
	vmm/boot_elf.c \
	vmm/boot_entry.c \
	vmm/layout.h

# What needs no KVM either, and is tested by itself.
noinst_LIBRARIES += libhull-vmm.a
libhull_vmm_a_SOURCES = \
	vmm/api.c vmm/api.h \
	vmm/api_metrics.c vmm/api_metrics.h \
	vmm/api_server.c vmm/api_server.h \
	vmm/bus.c vmm/bus.h \
	vmm/config.c vmm/config.h \
	vmm/config_cpu.c vmm/config_cpu.h \
	vmm/config_edit.c vmm/config_tables.c \
	vmm/config_items.c vmm/config_items.h \
	vmm/console.c vmm/console.h \
	vmm/cpu_template.c vmm/cpu_template.h \
	vmm/cpuid.c vmm/cpuid.h \
	vmm/cpuid_check.c vmm/cpuid_features.c \
	vmm/gdb_break.c vmm/gdb_break.h \
	vmm/gdb_packet.c vmm/gdb_packet.h \
	vmm/gdb_registers.c vmm/gdb_registers.h \
	vmm/gdb_stub.c vmm/gdb_stub.h \
	vmm/logger.c vmm/logger.h \
	vmm/memory_file.c vmm/memory_file.h \
	vmm/msr_filter.c vmm/msr_filter.h \
	vmm/metrics.c vmm/metrics.h \
	vmm/metrics_tables.c \
	vmm/options.c vmm/options.h \
	vmm/outcome.c vmm/outcome.h \
	vmm/ram.c vmm/ram.h \
	vmm/shutdown.c vmm/shutdown.h \
	vmm/snapshot.c vmm/snapshot.h \
	vmm/snapshot_request.c vmm/snapshot_request.h \
	vmm/vcpu_state.c vmm/vcpu_state.h

# The monitor. Statically linked: it starts without a dynamic linker, and runs in an empty root.
bin_PROGRAMS += hull-vmm
hull_vmm_SOURCES = \
	vmm/main.c \
	vmm/api_balloon.c vmm/api_balloon.h \
	vmm/api_hotplug.c vmm/api_hotplug.h \
	vmm/api_live.c vmm/api_live.h \
	vmm/api_memory.c vmm/api_memory.h \
	vmm/api_mmds.c vmm/api_mmds.h \
	vmm/api_routes.c \
	vmm/api_snapshot.c vmm/api_snapshot.h \
	vmm/api_vhost.c vmm/api_vhost.h \
	vmm/clock.c vmm/clock.h \
	vmm/devices.c vmm/devices.h \
	vmm/devices_memory.c vmm/devices_memory.h \
	vmm/devices_state.c \
	vmm/devices_vhost.c vmm/devices_vhost.h \
	vmm/gdb_kvm.c vmm/gdb_kvm.h \
	vmm/gdb_server.c vmm/gdb_server.h \
	vmm/gdb_target.c vmm/gdb_target.h \
	vmm/kvm_state.c vmm/kvm_state.h \
	vmm/machine.c vmm/machine.h \
	vmm/monitor.c vmm/monitor.h \
	vmm/plugged_memory.c vmm/plugged_memory.h \
	vmm/pmem_file.c vmm/pmem_file.h \
	vmm/vcpu.c vmm/vcpu.h \
	vmm/virtio_bus.c vmm/virtio_bus.h \
	vmm/vm.c vmm/vm.h \
	vmm/vm_msi.c
hull_vmm_LDFLAGS = $(STATIC_PIE_LDFLAGS)
hull_vmm_LDADD = libhull-vmm.a libhull-vmm-boot.a libhull-devices.a libhull-common.a $(LIBURING_LIBS) $(JANSSON_LIBS) \
	$(NETTLE_LIBS)

# For docs/: tells the API's fields.
noinst_PROGRAMS += api-manual
api_manual_SOURCES = vmm/api_manual.c
api_manual_LDADD = libhull-vmm.a libhull-devices.a libhull-common.a $(LIBURING_LIBS) $(JANSSON_LIBS)

# Under this name it takes Firecracker's command line.
all-local: firecracker
firecracker: hull-vmm$(EXEEXT)
	ln -sf hull-vmm$(EXEEXT) $@
CLEANFILES += firecracker
install-exec-hook: install-firecracker
install-firecracker:
	cd $(DESTDIR)$(bindir) && ln -sf hull-vmm$(EXEEXT) firecracker
uninstall-hook: uninstall-firecracker
uninstall-firecracker:
	rm -f $(DESTDIR)$(bindir)/firecracker
.PHONY: install-firecracker uninstall-firecracker
