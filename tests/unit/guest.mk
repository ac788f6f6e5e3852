# unit tests of guest, included by tests/local.mk inside HAVE_CMOCKA
GUEST_TESTS = tests/unit/passwd tests/unit/guest_config tests/unit/relay tests/unit/agent
check_PROGRAMS += $(GUEST_TESTS)
TESTS += $(GUEST_TESTS)
tests_unit_passwd_SOURCES = tests/unit/passwd.c
tests_unit_passwd_CFLAGS = $(UNIT_CFLAGS)
tests_unit_passwd_LDADD = libhull-guest.a $(UNIT_LIBS)
tests_unit_guest_config_SOURCES = tests/unit/guest_config.c
tests_unit_guest_config_CFLAGS = $(UNIT_CFLAGS)
tests_unit_guest_config_LDADD = libhull-guest.a $(UNIT_LIBS)
tests_unit_relay_SOURCES = tests/unit/relay.c
tests_unit_relay_CFLAGS = $(UNIT_CFLAGS)
tests_unit_relay_LDADD = $(UNIT_LIBS)
tests_unit_agent_SOURCES = tests/unit/agent.c
tests_unit_agent_CFLAGS = $(UNIT_CFLAGS)
tests_unit_agent_LDADD = libhull-guest.a $(UNIT_LIBS)
