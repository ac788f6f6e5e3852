/* Routes of Hull's own for shared folders: handlers of struct api_route, whose context is a struct monitor. */
#ifndef HULL_VMM_API_VHOST_H
#define HULL_VMM_API_VHOST_H

struct api_call;
struct error;

int vhost_put_filesystem(void *ctx, struct api_call *call, struct error *err);
int vhost_delete_filesystem(void *ctx, struct api_call *call, struct error *err);

#endif
