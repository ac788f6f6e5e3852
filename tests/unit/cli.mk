# unit tests of cli, included by tests/local.mk inside HAVE_CMOCKA
