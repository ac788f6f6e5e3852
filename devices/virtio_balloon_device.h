/* virtio-balloon's inside, shared by virtio_balloon.c (the device) and balloon_pages.c (its queues of pages). */
#ifndef HULL_DEVICES_VIRTIO_BALLOON_DEVICE_H
#define HULL_DEVICES_VIRTIO_BALLOON_DEVICE_H

#include "devices/balloon_blocks.h"
#include "devices/loop_kick.h"
#include "devices/virtio_balloon.h"

/* What a queue is for. The first two are always there; each of the others when its feature was negotiated, and it has the
 * next number then: the numbers of 5.5.2 with what is not there left out, as drivers and devices have it. */
enum balloon_role {
	BALLOON_INFLATE,
	BALLOON_DEFLATE,
	BALLOON_STATISTICS,
	BALLOON_HINTING,
	BALLOON_REPORTING,
	BALLOON_ROLES
};

#define BALLOON_QUEUE_SIZE 256
#define BALLOON_PFNS_MAX   256 /* read and discarded at a time: what Linux puts into one request */

struct virtio_balloon {
	struct virtio_dev dev;
	struct virtio_ops ops; /* its own: features decide on the number of queues */
	uint64_t features;
	struct discard discard;
	struct loop_kick again;
	uint8_t again_queues; /* to be worked on when it comes, without a doorbell: bit N is queue N */
	uint32_t target_pages, actual_pages;

	/* How many bytes of the request at each ring's head have been dealt with: one too long for a round is given back to
	 * the ring and met again. */
	uint64_t progress[BALLOON_ROLES];
	uint32_t pfns[BALLOON_PFNS_MAX];
	struct balloon_blocks blocks; /* without bits where the host's pages are no larger than these */

	/* The driver's buffer of statistics, which is kept until the next are wanted (5.5.6.3). */
	struct loop_source *stats_timer;
	uint16_t stats_interval_s;
	bool stats_held; /* the last request popped of the statistics' queue */
	uint16_t stats_head;
	uint32_t stats_known;
	uint64_t stats[BALLOON_STATS];

	struct balloon_hinting hinting;
	uint32_t last_run; /* number of the last run of hinting */
	bool acknowledge_on_stop;

	struct balloon_metrics metrics;
};

/* With the lock held, the device running. */

/* Works on the queue of that role, which holds pages, as far as a round goes; says whether to come back. -errno when the
 * driver broke the rules. Discards as it goes. */
int balloon_pages_work(struct virtio_balloon *balloon, enum balloon_role role, uint16_t q);

/* The driver said `command` on the queue of hints. */
void balloon_hinting_heard(struct virtio_balloon *balloon, uint32_t command);
/* Whether ranges that come now belong to the run that goes on: those of another, or after its end, may be in use. */
bool balloon_hinting_is_on(const struct virtio_balloon *balloon);

#endif
