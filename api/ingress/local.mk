# hull-ingress: the holder of published ports, included by the top Makefile.am
pkglibexec_PROGRAMS += hull-ingress
hull_ingress_SOURCES = \
	api/ingress/connection.c api/ingress/connection.h \
	api/ingress/control.c api/ingress/control.h \
	api/ingress/forwarder.c api/ingress/forwarder.h \
	api/ingress/ingress.h \
	api/ingress/listen.c api/ingress/listen.h \
	api/ingress/main.c \
	api/ingress/port.c api/ingress/port.h \
	api/ingress/udp_port.c api/ingress/udp_port.h \
	api/ingress/words.h
hull_ingress_LDADD = libhull-api.a libhull-common.a $(JANSSON_LIBS)
