/* virtio-balloon (virtio 1.2, section 5.5): memory that the guest does without goes back to the host - what the driver puts
 * into the balloon, what it reports as free on its own, and what it hints at as free when asked. And the guest's own
 * statistics of its memory. */
#ifndef HULL_DEVICES_VIRTIO_BALLOON_H
#define HULL_DEVICES_VIRTIO_BALLOON_H

#include "common/loop.h"
#include "devices/discard.h"
#include "devices/metrics.h"
#include "devices/virtio.h"

struct balloon_metrics {
	uint64_t inflate_count, deflate_count; /* doorbells */
	uint64_t stats_updates_count;
	uint64_t stats_update_fails;	       /* values that nobody knows, or in part */
	uint64_t event_fails;		       /* malformed requests, and pages of the balloon's that could not be discarded */
	uint64_t free_page_report_count, free_page_report_fails; /* ranges */
	uint64_t free_page_report_freed;			  /* bytes */
	uint64_t free_page_hint_count, free_page_hint_fails;
	uint64_t free_page_hint_freed;
};

#define BALLOON_PAGES_PER_MIB 256u /* the balloon's pages are of 4 KiB, whatever the guest's and the host's are */

/* 5.5.6.4: the tags, in order, beyond those of the specification as Linux has them. */
#define BALLOON_STATS 16

struct balloon_stats {
	uint32_t target_pages, actual_pages;
	uint32_t known; /* bit N: the driver has said what values[N] is */
	uint64_t values[BALLOON_STATS];
};

/* Commands of free page hinting that start no run (5.5.6.5). */
#define BALLOON_HINT_STOP 0u
#define BALLOON_HINT_DONE 1u

struct balloon_hinting {
	uint32_t host_cmd;  /* the last command given: the number of a run, STOP or DONE */
	bool has_guest_cmd; /* the driver has given one */
	uint32_t guest_cmd;
};

struct balloon_config {
	uint32_t target_mib;
	bool deflate_on_oom;	   /* the driver may let go of pages below the target when its guest runs out of memory */
	uint16_t stats_interval_s; /* 0: no statistics */
	bool hinting, reporting;
	struct discard discard;
};

/* `loop` and `mem` are borrowed for the device's life. NULL with `err` set. */
struct virtio_dev *virtio_balloon_new(
	const struct balloon_config *config, struct loop *loop, const struct gmem *mem, struct error *err);

/* All that follows: loop thread; takes the lock. Refusals are 400s of the API's, `err` set: the driver is not there, or the
 * feature was not asked for when the device was made. */

/* The driver shall let the balloon have so much. 0 or -ENODEV. */
int virtio_balloon_set_target(struct virtio_dev *dev, uint32_t target_mib, struct error *err);

/* 0, or -ENOTSUP. */
int virtio_balloon_get_stats(struct virtio_dev *dev, struct balloon_stats *ret, struct error *err);
/* The driver is asked at once, and then at this interval. 0, or -ENOTSUP when that would turn the statistics on or off. */
int virtio_balloon_set_stats_interval(struct virtio_dev *dev, uint16_t interval_s, struct error *err);

/* A run: the driver names what is free, then says that it is through, but keeps it until it is told DONE: as soon as it is
 * through with `acknowledge_on_stop`, else by stop. 0, -ENOTSUP or -ENODEV. */
int virtio_balloon_start_hinting(struct virtio_dev *dev, bool acknowledge_on_stop, struct error *err);
int virtio_balloon_stop_hinting(struct virtio_dev *dev, struct error *err);
/* 0 or -ENOTSUP. */
int virtio_balloon_get_hinting(struct virtio_dev *dev, struct balloon_hinting *ret, struct error *err);

/* Borrowed; of the device's life. */
const struct balloon_metrics *virtio_balloon_metrics(const struct virtio_dev *dev);

#endif
