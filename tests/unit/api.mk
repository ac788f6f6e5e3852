# unit tests of api, included by tests/local.mk inside HAVE_CMOCKA
check_PROGRAMS += tests/unit/api_store tests/unit/api_spec
TESTS += tests/unit/api_store tests/unit/api_spec
tests_unit_api_store_SOURCES = tests/unit/api_store.c
tests_unit_api_store_CFLAGS = $(UNIT_CFLAGS)
tests_unit_api_store_LDADD = libhull-api.a $(UNIT_LIBS) $(SQLITE_LIBS)
tests_unit_api_spec_SOURCES = tests/unit/api_spec.c
tests_unit_api_spec_CFLAGS = $(UNIT_CFLAGS)
tests_unit_api_spec_LDADD = libhull-api.a $(UNIT_LIBS)
