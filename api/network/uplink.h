/* Frames between a network's uplink and its passt: a tap, and a stream of frames (common/stream_frame.h). Loop-free: who owns it
 * polls. What has no room is dropped, as networks do. */
#ifndef HULL_API_NETWORK_UPLINK_H
#define HULL_API_NETWORK_UPLINK_H

#include "common/stream_frame.h"

#include <stddef.h>
#include <stdint.h>

#define UPLINK_FRAME_MAX 65553 /* the largest IP packet behind an Ethernet header with a VLAN tag */

struct uplink {
	int tap;    /* owned; -1: there is none */
	int stream; /* owned, non-blocking; -1: passt is being started */
	size_t in_start, in_end;   /* of `in`, what has come by the stream and is not on the tap yet */
	size_t out_start, out_end; /* of `out`, what is left of a frame that the stream has taken in part */
	uint8_t in[2 * (STREAM_FRAME_LENGTH_BYTES + UPLINK_FRAME_MAX)];
	uint8_t out[STREAM_FRAME_LENGTH_BYTES + UPLINK_FRAME_MAX];
};

/* Takes `stream`, in the place of one that has ended. */
void uplink_connect(struct uplink *uplink, int stream);
/* What poll(2) is to wait for. */
short uplink_tap_events(const struct uplink *uplink);
short uplink_stream_events(const struct uplink *uplink);
/* One of them is ready. */
void uplink_from_tap(struct uplink *uplink);
void uplink_on_stream(struct uplink *uplink, short events);

#endif
