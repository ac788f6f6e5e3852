/* Routes that save the machine, and restore one: handlers of struct api_route, whose context is a struct monitor. */
#ifndef HULL_VMM_API_SNAPSHOT_H
#define HULL_VMM_API_SNAPSHOT_H

struct api_call;
struct error;

int snapshot_put_create(void *ctx, struct api_call *call, struct error *err);
int snapshot_put_load(void *ctx, struct api_call *call, struct error *err);

#endif
