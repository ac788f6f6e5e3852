# tests: tests/unit runs in `make check`, without KVM or root, one program a module; tests/system is black box.
if HAVE_CMOCKA
include tests/unit/local.mk
endif

include tests/fuzz/local.mk
