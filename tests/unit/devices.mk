# unit tests of devices, included by tests/local.mk inside HAVE_CMOCKA
