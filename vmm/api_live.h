/* Routes to devices of a machine that runs: handlers of struct api_route, whose context is a struct monitor. */
#ifndef HULL_VMM_API_LIVE_H
#define HULL_VMM_API_LIVE_H

struct api_call;
struct error;

int live_patch_drive(void *ctx, struct api_call *call, struct error *err);
int live_patch_net(void *ctx, struct api_call *call, struct error *err);

#endif
