/* Finds a disk by the serial the machine's configuration gave it. */
#ifndef HULL_GUEST_DRIVE_H
#define HULL_GUEST_DRIVE_H

#include "common/error.h"

#define DRIVE_TIMEOUT_MS 10000 /* until one that is configured is there */

#include <stddef.h>

/* Waits up to `timeout_ms` for a virtio disk with this serial and its device node; "/dev/vdX" into `ret` (`size` >= 32).
 * 0, or -ENODEV with `err` set. Needs /sys and /dev. */
int drive_find(const char *serial, int timeout_ms, char *ret, size_t size, struct error *err);

#endif
