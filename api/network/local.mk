# hull-network: networks of machines, included by the top Makefile.am
pkglibexec_PROGRAMS += hull-network
hull_network_SOURCES = \
	api/network/confine.c \
	api/network/holder.c \
	api/network/inside.c \
	api/network/join.c \
	api/network/links.c \
	api/network/main.c \
	api/network/network.h \
	api/network/pass.c \
	api/network/rules.c \
	api/network/uplink.c api/network/uplink.h \
	api/network/words.h
hull_network_LDADD = libhull-api.a libhull-common.a $(JANSSON_LIBS)
