# tests: tests/unit runs in `make check`, without KVM or root, one program a module; tests/system is black box.
EXTRA_DIST += tests/unit/test.h

if HAVE_CMOCKA
UNIT_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
UNIT_LIBS = libhull-common.a $(CMOCKA_LIBS) $(JANSSON_LIBS)

include tests/unit/common.mk
include tests/unit/devices.mk
include tests/unit/vmm.mk
include tests/unit/guest.mk
include tests/unit/api.mk
include tests/unit/cli.mk
include tests/unit/tools.mk
endif

include tests/fuzz/local.mk
