/* The guest's clocks: that all processors tell the same time, and that a pause is no riddle to it. */
#ifndef HULL_VMM_CLOCK_H
#define HULL_VMM_CLOCK_H

#include "common/error.h"

struct vcpus;

/* One TSC for all vCPUs, which have been made and have not run. 0, or -errno with `err` set. */
int clock_align(const struct vcpus *vcpus, struct error *err);

/* Tells the guest that it was paused, before vcpus_resume(): all vCPUs are at rest. */
void clock_tell_pause(struct vcpus *vcpus);

#endif
