# tools: sources and programs, included by the top Makefile.am
dist_bin_SCRIPTS += tools/kvmhost

# What kvmhost uses: scripts and programs that run inside (init, stages, agent) and outside (relay, attach). It looks for
# them beside itself, in the build folder and here.
dist_pkglibexec_SCRIPTS += tools/kvmhost-boot.sh tools/kvmhost-up.sh
dist_pkglibexec_SCRIPTS += tools/kvmhost-init tools/kvmhost-stage-run tools/kvmhost-stage-up
pkglibexec_PROGRAMS += kvmhost-relay kvmhost-agent kvmhost-attach
kvmhost_relay_SOURCES = tools/kvmhost-relay.c tools/forward.c tools/forward.h tools/session.h
kvmhost_relay_LDADD = libhull-common.a $(JANSSON_LIBS)
kvmhost_agent_SOURCES = tools/kvmhost-agent.c tools/barrier.c tools/barrier.h tools/session.c tools/session.h
kvmhost_agent_LDADD = libhull-common.a
kvmhost_attach_SOURCES = tools/kvmhost-attach.c tools/session.c tools/session.h
kvmhost_attach_LDADD = libhull-common.a
