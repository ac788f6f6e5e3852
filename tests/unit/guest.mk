# unit tests of guest, included by tests/local.mk inside HAVE_CMOCKA
