/* The machine's wall clock, set by the host's. */
#ifndef HULL_GUEST_CLOCK_H
#define HULL_GUEST_CLOCK_H

#include "common/error.h"

/* A kernel that boots counts ticks until it has found its clock, and has lost what passed before the first of them. KVM compares
 * its guest's clock with the host's (ptp_kvm), which is right to microseconds. 0; -ENOENT without that; or another -errno. `err` is set. */
int clock_set_by_host(struct error *err);

#endif
