# unit tests of vmm, included by tests/local.mk inside HAVE_CMOCKA

BOOT_TEST_LIBS = libhull-vmm-boot.a libhull-devices.a $(UNIT_LIBS)
check_PROGRAMS += tests/unit/boot tests/unit/acpi
TESTS += tests/unit/boot tests/unit/acpi
tests_unit_boot_SOURCES = tests/unit/boot.c
tests_unit_boot_CFLAGS = $(UNIT_CFLAGS)
tests_unit_boot_LDADD = $(BOOT_TEST_LIBS)
tests_unit_acpi_SOURCES = tests/unit/acpi.c
tests_unit_acpi_CFLAGS = $(UNIT_CFLAGS)
tests_unit_acpi_LDADD = $(BOOT_TEST_LIBS)
