# unit tests of api, included by tests/local.mk inside HAVE_CMOCKA
