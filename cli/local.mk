# cli: the hull command, a client of the control API; a library of its parts for the unit tests.
noinst_LIBRARIES += libhull-cli.a
libhull_cli_a_SOURCES = \
	cli/args.c cli/args.h \
	cli/failure.c cli/failure.h \
	cli/help.c \
	cli/output.c cli/output.h \
	cli/spec.c cli/spec.h
libhull_cli_a_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)

bin_PROGRAMS += hull
hull_SOURCES = \
	cli/client.c cli/client.h \
	cli/commands.h \
	cli/context.c cli/context.h \
	cli/image.c \
	cli/machine.c cli/machine.h \
	cli/main.c \
	cli/run.c
hull_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(LIBCURL_CFLAGS) $(NETTLE_CFLAGS)
hull_LDADD = libhull-cli.a libhull-common.a $(JANSSON_LIBS) $(LIBCURL_LIBS) $(NETTLE_LIBS)
