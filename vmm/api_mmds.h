/* Routes to the metadata that the guest reads: handlers of struct api_route, whose context is a struct monitor. */
#ifndef HULL_VMM_API_MMDS_H
#define HULL_VMM_API_MMDS_H

struct api_call;
struct error;

int mmds_get_data(void *ctx, struct api_call *call, struct error *err);
int mmds_put_data(void *ctx, struct api_call *call, struct error *err);
int mmds_patch_data(void *ctx, struct api_call *call, struct error *err);
int mmds_put_config(void *ctx, struct api_call *call, struct error *err);

#endif
