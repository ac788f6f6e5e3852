# unit tests of tools, included by tests/local.mk inside HAVE_CMOCKA
