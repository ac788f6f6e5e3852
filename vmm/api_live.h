/* Routes to devices of a machine that runs: handlers of struct api_route, whose context is a struct monitor. */
#ifndef HULL_VMM_API_LIVE_H
#define HULL_VMM_API_LIVE_H

#include <stdint.h>

struct api_call;
struct error;
struct monitor;
struct virtio_dev;

/* The device that the path names, which must be the one that the body names. NULL with `err` set. */
struct virtio_dev *live_find_device(struct monitor *monitor, uint32_t device_id, const struct api_call *call,
	const char *id_field, const char *id, struct error *err);

int live_patch_drive(void *ctx, struct api_call *call, struct error *err);
int live_patch_net(void *ctx, struct api_call *call, struct error *err);

#endif
