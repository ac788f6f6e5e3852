# hull-virtiofs: what becomes the server of one folder, included by the top Makefile.am
pkglibexec_PROGRAMS += hull-virtiofs
hull_virtiofs_SOURCES = \
	api/virtiofs/folder.c api/virtiofs/folder.h \
	api/virtiofs/identity.c api/virtiofs/identity.h \
	api/virtiofs/main.c
hull_virtiofs_LDADD = libhull-common.a
