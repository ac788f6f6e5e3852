/* What machines on an emulated host must not reach outside of it. */
#ifndef HULL_TOOLS_BARRIER_H
#define HULL_TOOLS_BARRIER_H

/* Refuses the user nobody, as whom passt opens connections for machines, the address 10.0.2.2: QEMU's network takes that
 * for the loopback of the machine outside. Published ports and the API come from there, to processes of other users. Needs
 * root. 0 or -errno. */
int barrier_raise(void);

#endif
