/* Routes to pmem and to memory that is plugged: handlers of struct api_route, whose context is a struct monitor. */
#ifndef HULL_VMM_API_MEMORY_H
#define HULL_VMM_API_MEMORY_H

struct api_call;
struct config;
struct error;

/* What is wrong with the file of the one pmem that `config` has. 0, or -errno with `err` set. */
int look_for_pmem(const struct config *config, const char *id, struct error *err);

int live_patch_pmem(void *ctx, struct api_call *call, struct error *err);
int live_get_hotplug_memory(void *ctx, struct api_call *call, struct error *err);
int live_patch_hotplug_memory(void *ctx, struct api_call *call, struct error *err);

#endif
