# unit tests of cli, included by tests/local.mk inside HAVE_CMOCKA
check_PROGRAMS += tests/unit/cli
TESTS += tests/unit/cli
tests_unit_cli_SOURCES = tests/unit/cli.c
tests_unit_cli_CFLAGS = $(UNIT_CFLAGS)
tests_unit_cli_LDADD = libhull-cli.a $(UNIT_LIBS)
