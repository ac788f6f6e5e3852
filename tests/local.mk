# tests: tests/unit runs in `make check`, without KVM or root, one program a module; tests/system is black box.
if HAVE_CMOCKA
include tests/unit/local.mk
endif

include tests/fuzz/local.mk

# Clients by other makers, which the compatibility tests run. Not part of `all`: what they are made of is downloaded.
.PHONY: compat
compat:
	$(AM_V_GEN)$(MKDIR_P) compat && here=`pwd` && cd $(srcdir)/tests/compat/go-sdk && \
		CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -o "$$here/compat/go-sdk" .
EXTRA_DIST += tests/compat/go-sdk
