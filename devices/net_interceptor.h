/* Who answers some of a driver's frames in the back-end's place. virtio-net shows it each frame that is sent before the
 * back-end sees it, and asks it for frames before it asks the back-end. It has no descriptors and no timers of its own, and
 * the time is the caller's: nanoseconds that do not go back. A frame is Ethernet's, without a virtio_net_hdr.
 *
 * All is called with the device's lock held: reset() on any thread, the rest on the loop's. */
#ifndef HULL_DEVICES_NET_INTERCEPTOR_H
#define HULL_DEVICES_NET_INTERCEPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* So much of a frame's beginning, or all of a shorter one, says whether it is wanted. */
#define NET_INTERCEPTOR_HEAD_BYTES 64

struct net_interceptor;

struct net_interceptor_ops {
	/* Whether it takes the frame that begins so: the back-end then never sees it. */
	bool (*wants)(const struct net_interceptor *interceptor, const uint8_t *head, size_t len);
	/* Takes it. `checksum_due`: the driver has left the checksum of its transport header to the device. */
	void (*take)(struct net_interceptor *interceptor, const uint8_t *frame, size_t len, bool checksum_due,
		uint64_t now_ns);
	/* The next frame for the driver, all checksums in it, into `frame` (room for NET_FRAME_MAX bytes): its length; 0:
	 * there is none now. */
	size_t (*next)(struct net_interceptor *interceptor, uint8_t *frame, uint64_t now_ns);
	/* In how many ns next() has a frame, should none be taken meanwhile: 0: now; UINT64_MAX: never. */
	uint64_t (*delay_ns)(const struct net_interceptor *interceptor, uint64_t now_ns);
	/* Whoever sent the frames before is no more: the driver was reset, or the device loaded. */
	void (*reset)(struct net_interceptor *interceptor);
	void (*free)(struct net_interceptor *interceptor); /* without the lock; loop thread */
};

struct net_interceptor {
	const struct net_interceptor_ops *ops;
};

#endif
