# devices: device models and their back-ends; they never see KVM, a machine or the API.
noinst_LIBRARIES += libhull-devices.a
libhull_devices_a_SOURCES =

libhull_devices_a_SOURCES += \
	devices/gmem.c devices/gmem.h \
	devices/metrics.h \
	devices/queue_group.c devices/queue_group.h \
	devices/state.c devices/state.h \
	devices/virtio.c devices/virtio.h \
	devices/virtio_mmio.c devices/virtio_mmio.h \
	devices/virtio_transport.c devices/virtio_transport.h \
	devices/virtq.c devices/virtq.h

libhull_devices_a_SOURCES += \
	devices/msix.c devices/msix.h \
	devices/pci.c devices/pci.h \
	devices/pci_hotplug.c devices/pci_hotplug.h \
	devices/virtio_pci.c devices/virtio_pci.h

# The legacy devices of a PC that a stock kernel wants to meet.
libhull_devices_a_SOURCES += \
	devices/acpi_pm.c devices/acpi_pm.h \
	devices/boot_timer.c devices/boot_timer.h \
	devices/exit_port.c devices/exit_port.h \
	devices/i8042.c devices/i8042.h \
	devices/pvpanic.c devices/pvpanic.h \
	devices/uart16550.c devices/uart16550.h

libhull_devices_a_SOURCES += \
	devices/virtio_console.c devices/virtio_console.h \
	devices/virtio_mem.c devices/virtio_mem.h \
	devices/virtio_pmem.c devices/virtio_pmem.h \
	devices/virtio_rng.c devices/virtio_rng.h

libhull_devices_a_SOURCES += \
	devices/blk_file.c devices/blk_io.h \
	devices/blk_sync.c devices/blk_uring.c \
	devices/virtio_blk.c devices/virtio_blk.h devices/virtio_blk_device.h \
	devices/virtio_blk_queue.c devices/virtio_blk_request.c

# What virtio-net and virtio-vsock share: work brought to the loop thread, many receive buffers in one read.
libhull_devices_a_SOURCES += \
	devices/loop_kick.c devices/loop_kick.h \
	devices/virtq_batch.c devices/virtq_batch.h

libhull_devices_a_SOURCES += \
	devices/virtio_vsock.c devices/virtio_vsock.h \
	devices/vsock_conn.c devices/vsock_conn.h \
	devices/vsock_device.h \
	devices/vsock_host.c \
	devices/vsock_packet.c devices/vsock_packet.h \
	devices/vsock_queue.c devices/vsock_queue.h \
	devices/vsock_sink.c

libhull_devices_a_SOURCES += \
	devices/net_backend.h \
	devices/net_stream.c \
	devices/net_tap.c \
	devices/virtio_net.c devices/virtio_net.h devices/virtio_net_device.h \
	devices/virtio_net_control.c devices/virtio_net_pair.c \
	devices/virtio_net_rx.c devices/virtio_net_tx.c

# Rings that another process, or the kernel, works on.
libhull_devices_a_SOURCES += \
	devices/vhost.h \
	devices/vhost_kernel.c \
	devices/vhost_user.c devices/vhost_user_protocol.h \
	devices/virtio_vhost.c devices/virtio_vhost.h devices/virtio_vhost_device.h \
	devices/virtio_vhost_kinds.c

libhull_devices_a_SOURCES += \
	devices/rate_limiter.c devices/rate_limiter.h

# The metadata service, and what virtio-net knows of it.
libhull_devices_a_SOURCES += \
	devices/mmds.c devices/mmds.h \
	devices/mmds_conn.c \
	devices/mmds_http.c devices/mmds_http.h \
	devices/mmds_stack.c \
	devices/mmds_store.c devices/mmds_store.h \
	devices/mmds_tcp.c devices/mmds_tcp.h \
	devices/mmds_token.c devices/mmds_token.h \
	devices/net_interceptor.h devices/net_order.h

libhull_devices_a_SOURCES += \
	devices/balloon_blocks.c devices/balloon_blocks.h \
	devices/balloon_pages.c \
	devices/discard.h \
	devices/virtio_balloon.c devices/virtio_balloon.h devices/virtio_balloon_device.h
