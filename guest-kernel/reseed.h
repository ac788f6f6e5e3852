/* The kernel's random numbers. */
#ifndef HULL_GUEST_RESEED_H
#define HULL_GUEST_RESEED_H

#include "common/error.h"

#include <stddef.h>

/* Makes what the kernel gives out from now on depend on `len` (16 or more) secret bytes, too: two copies of a machine that get
 * different ones draw different numbers. 0 or -errno with `err` set. */
int reseed_kernel(const void *seed, size_t len, struct error *err);

#endif
