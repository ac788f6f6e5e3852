# vmm: sources and programs, included by the top Makefile.am

# How a machine is described and its kernel entered: no KVM calls, so it is tested and fuzzed without.
noinst_LIBRARIES += libhull-vmm-boot.a
libhull_vmm_boot_a_SOURCES = \
	vmm/acpi.c vmm/acpi.h \
	vmm/aml.c vmm/aml.h \
	vmm/boot.c vmm/boot.h vmm/boot_image.h \
	vmm/boot_bzimage.c \
	vmm/boot_elf.c \
	vmm/boot_entry.c \
	vmm/layout.h
libhull_vmm_boot_a_CFLAGS = $(AM_CFLAGS)
