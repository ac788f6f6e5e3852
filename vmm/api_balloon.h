/* Routes of the balloon, before and after the start: handlers of struct api_route, whose context is a struct monitor. */
#ifndef HULL_VMM_API_BALLOON_H
#define HULL_VMM_API_BALLOON_H

struct api_call;
struct error;

int balloon_get(void *ctx, struct api_call *call, struct error *err);
int balloon_put(void *ctx, struct api_call *call, struct error *err);
int balloon_patch(void *ctx, struct api_call *call, struct error *err);
int balloon_get_statistics(void *ctx, struct api_call *call, struct error *err);
int balloon_patch_statistics(void *ctx, struct api_call *call, struct error *err);
int balloon_start_hinting(void *ctx, struct api_call *call, struct error *err);
int balloon_get_hinting(void *ctx, struct api_call *call, struct error *err);
int balloon_stop_hinting(void *ctx, struct api_call *call, struct error *err);

#endif
