# tools: sources and programs, included by the top Makefile.am
dist_bin_SCRIPTS += tools/kvmhost
# What the emulated host runs inside; kvmhost looks for them beside itself and here.
dist_pkglibexec_SCRIPTS += tools/kvmhost-init tools/kvmhost-stage-run
