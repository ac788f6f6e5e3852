/* Giving guest memory back to the host: what a device asks of the monitor, which knows how RAM is made.
 *
 * A discard may meet an access, by a vCPU, another device or the kernel on a device's behalf: the address stays good, and
 * either the access finds a fresh page or it went to one that is gone. The guest has said that it does not care. */
#ifndef HULL_DEVICES_DISCARD_H
#define HULL_DEVICES_DISCARD_H

#include "devices/gmem.h"

struct discard {
	/* Gives back what [gpa, gpa + len) holds in whole pages of the host's. 0; -EFAULT when not all of it is RAM: then what
	 * comes before has been given back; or another -errno. Loop thread, or with the device's lock held; must not call a
	 * device. */
	int (*range)(void *ctx, gpa_t gpa, uint64_t len);
	void *ctx;
	uint64_t page_bytes; /* of the host's pages: what it can have at once, a power of two */
};

#endif
