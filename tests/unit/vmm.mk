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

# The monitor's parts that need no KVM.
VMM_TEST_LIBS = libhull-vmm.a $(UNIT_LIBS)

check_PROGRAMS += tests/unit/bus tests/unit/config tests/unit/console tests/unit/options
TESTS += tests/unit/bus tests/unit/config tests/unit/console tests/unit/options
tests_unit_bus_SOURCES = tests/unit/bus.c
tests_unit_bus_CFLAGS = $(UNIT_CFLAGS)
tests_unit_bus_LDADD = $(VMM_TEST_LIBS)
tests_unit_config_SOURCES = tests/unit/config.c
tests_unit_config_CFLAGS = $(UNIT_CFLAGS)
tests_unit_config_LDADD = $(VMM_TEST_LIBS)
tests_unit_console_SOURCES = tests/unit/console.c
tests_unit_console_CFLAGS = $(UNIT_CFLAGS)
tests_unit_console_LDADD = libhull-vmm.a libhull-devices.a $(UNIT_LIBS)
tests_unit_options_SOURCES = tests/unit/options.c
tests_unit_options_CFLAGS = $(UNIT_CFLAGS)
tests_unit_options_LDADD = $(VMM_TEST_LIBS)
