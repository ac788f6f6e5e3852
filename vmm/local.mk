# vmm: sources and programs, included by the top Makefile.am
