# unit tests of vmm, included by tests/local.mk inside HAVE_CMOCKA
