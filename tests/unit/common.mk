# unit tests of common, included by tests/local.mk inside HAVE_CMOCKA
check_PROGRAMS += tests/unit/error tests/unit/json tests/unit/loop tests/unit/buf
TESTS += tests/unit/error tests/unit/json tests/unit/loop tests/unit/buf
tests_unit_error_SOURCES = tests/unit/error.c
tests_unit_error_CFLAGS = $(UNIT_CFLAGS)
tests_unit_error_LDADD = $(UNIT_LIBS)
tests_unit_json_SOURCES = tests/unit/json.c
tests_unit_json_CFLAGS = $(UNIT_CFLAGS)
tests_unit_json_LDADD = $(UNIT_LIBS)
tests_unit_loop_SOURCES = tests/unit/loop.c
tests_unit_loop_CFLAGS = $(UNIT_CFLAGS)
tests_unit_loop_LDADD = $(UNIT_LIBS)
tests_unit_buf_SOURCES = tests/unit/buf.c
tests_unit_buf_CFLAGS = $(UNIT_CFLAGS)
tests_unit_buf_LDADD = $(UNIT_LIBS)
