# tests: tests/unit runs in `make check`, without KVM or root, one program a module; tests/system is black box.
if HAVE_CMOCKA
include tests/unit/local.mk
endif

include tests/fuzz/local.mk

# Clients by other makers, which the compatibility tests run. Not part of `all`: what they are made of is downloaded.
.PHONY: compat compat-go compat-python
compat: compat-go compat-python
compat-go:
	$(AM_V_GEN)$(MKDIR_P) compat && here=`pwd` && cd $(srcdir)/tests/compat/go-sdk && \
		CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -o "$$here/compat/go-sdk" .
# Anew where the requirements are newer: it is marked once it is whole.
compat-python: compat/openapi/done
compat/openapi/done: tests/compat/openapi/requirements.txt
	$(AM_V_GEN)$(MKDIR_P) compat && rm -rf compat/openapi && /usr/bin/python3 -m venv compat/openapi && \
		compat/openapi/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $< && touch $@
EXTRA_DIST += tests/compat/go-sdk tests/compat/openapi
