# unit tests of tools, included by tests/local.mk inside HAVE_CMOCKA
check_PROGRAMS += tests/unit/forward tests/unit/session
TESTS += tests/unit/forward tests/unit/session
tests_unit_forward_SOURCES = tests/unit/forward.c tools/forward.c
tests_unit_forward_CFLAGS = $(UNIT_CFLAGS)
tests_unit_forward_LDADD = $(UNIT_LIBS)
tests_unit_session_SOURCES = tests/unit/session.c tools/session.c
tests_unit_session_CFLAGS = $(UNIT_CFLAGS)
tests_unit_session_LDADD = $(UNIT_LIBS)
