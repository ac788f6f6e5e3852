# devices: device models and their back-ends; they never see KVM, a machine or the API.
noinst_LIBRARIES += libhull-devices.a
libhull_devices_a_SOURCES =
libhull_devices_a_CFLAGS = $(AM_CFLAGS) $(LIBURING_CFLAGS)

libhull_devices_a_SOURCES += \
	devices/gmem.c devices/gmem.h \
	devices/state.c devices/state.h \
	devices/virtio.c devices/virtio.h \
	devices/virtio_mmio.c devices/virtio_mmio.h \
	devices/virtq.c devices/virtq.h
