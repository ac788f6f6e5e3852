/* The machine's wall clock, set by the host's. */
#ifndef HULL_GUEST_CLOCK_H
#define HULL_GUEST_CLOCK_H

#include "common/error.h"

#include <stdint.h>

/* A kernel that boots counts ticks until it has found its clock, and has lost what passed before the first of them; and one
 * whose host slept has lost that. KVM compares its guest's clock with the host's (ptp_kvm), which is right to microseconds. 0
 * with how far forward it moved, or, less than 0, back; -ENOENT without that, or another -errno, with `err` set. */
int clock_set_by_host(int64_t *ret_moved_ns, struct error *err);

/* The same by what somebody said, nanoseconds since 1970, and took his time to. */
int clock_set_to(int64_t unix_ns, int64_t *ret_moved_ns, struct error *err);

#endif
