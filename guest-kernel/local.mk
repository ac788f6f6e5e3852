# guest-kernel: what runs inside a machine. hull-init, the kernels it is for, stock and tuned, and the initramfs they meet in.
noinst_LIBRARIES += libhull-guest.a
libhull_guest_a_SOURCES = \
	guest-kernel/agent.c guest-kernel/agent.h \
	guest-kernel/cgroup.c guest-kernel/cgroup.h \
	guest-kernel/clock.c guest-kernel/clock.h \
	guest-kernel/config.c guest-kernel/config.h \
	guest-kernel/console.c guest-kernel/console.h \
	guest-kernel/datagrams.c guest-kernel/datagrams.h \
	guest-kernel/dial.c guest-kernel/dial.h \
	guest-kernel/drive.c guest-kernel/drive.h \
	guest-kernel/errand.c guest-kernel/errand.h \
	guest-kernel/exec.c guest-kernel/exec.h \
	guest-kernel/exec_stdio.c guest-kernel/exec_stdio.h \
	guest-kernel/files.c guest-kernel/files.h \
	guest-kernel/folder.c guest-kernel/folder.h \
	guest-kernel/freezer.c guest-kernel/freezer.h \
	guest-kernel/fresh_volume.c guest-kernel/fresh_volume.h \
	guest-kernel/hull_guest.h \
	guest-kernel/modules.c guest-kernel/modules.h \
	guest-kernel/mounts.c guest-kernel/mounts.h \
	guest-kernel/net.c guest-kernel/net.h \
	guest-kernel/order_verbs.c guest-kernel/order_verbs.h \
	guest-kernel/orders.c guest-kernel/orders.h \
	guest-kernel/output.c guest-kernel/output.h \
	guest-kernel/passwd.c guest-kernel/passwd.h \
	guest-kernel/power_button.c guest-kernel/power_button.h \
	guest-kernel/probe.c guest-kernel/probe.h \
	guest-kernel/process.c guest-kernel/process.h \
	guest-kernel/reseed.c guest-kernel/reseed.h \
	guest-kernel/root.c guest-kernel/root.h \
	guest-kernel/stats.c guest-kernel/stats.h \
	guest-kernel/tee.c guest-kernel/tee.h \
	guest-kernel/volume.c guest-kernel/volume.h \
	guest-kernel/vsock.c guest-kernel/vsock.h \
	guest-kernel/workload.c guest-kernel/workload.h

pkglibexec_PROGRAMS += hull-init
hull_init_SOURCES = guest-kernel/hull_init.c
hull_init_LDFLAGS = $(STATIC_PIE_LDFLAGS)
hull_init_LDADD = libhull-guest.a libhull-common.a $(JANSSON_LIBS)

dist_pkglibexec_SCRIPTS += guest-kernel/fetch-kernel guest-kernel/build-kernel guest-kernel/make-initramfs \
	guest-kernel/kernel-files.sh
kernelconfigdir = $(pkglibexecdir)
dist_kernelconfig_DATA = guest-kernel/tuned.config guest-kernel/tracing.config guest-kernel/quick_decode.inc \
	guest-kernel/patch_thunks.inc guest-kernel/sort_jump_labels.c

# Not part of `all`: the kernel is downloaded. Leaves guest/vmlinux and guest/initramfs.cpio in the build folder.
.PHONY: guest install-guest
guest: hull-init
	$(AM_V_GEN)$(srcdir)/guest-kernel/fetch-kernel --output guest
	$(AM_V_at)$(srcdir)/guest-kernel/make-initramfs --kernel-modules guest/lib/modules \
		--release "`cat guest/release`" --init hull-init --output guest/initramfs.cpio

# Not either: it takes minutes, once. Leaves the same in guest-tuned. KERNEL_CONFIG
# are files that add to its configuration.
.PHONY: guest-kernel
guest-kernel: hull-init
	$(AM_V_GEN)$(srcdir)/guest-kernel/build-kernel $(KERNEL_CONFIG:%=--config %) --output guest-tuned
	$(AM_V_at)$(srcdir)/guest-kernel/make-initramfs --kernel-modules guest-tuned/lib/modules \
		--release "`cat guest-tuned/release`" --init hull-init --output guest-tuned/initramfs.cpio

# The tuned one where it was built.
install-guest:
	if test ! -e guest-tuned/initramfs.cpio; then $(MAKE) guest; fi
	$(MKDIR_P) "$(DESTDIR)$(libdir)/hull/guest"
	guest=guest; test ! -e guest-tuned/initramfs.cpio || guest=guest-tuned; \
	$(INSTALL_DATA) $$guest/vmlinux $$guest/initramfs.cpio "$(DESTDIR)$(libdir)/hull/guest"

clean-local: clean-guest
.PHONY: clean-guest
clean-guest:
	rm -rf guest guest-tuned
