/* Which route counts as what: Firecracker's own choice of what is worth counting. */
#include "vmm/api_metrics.h"

#include "common/checked.h"
#include "vmm/api.h"

#include <string.h>

#define GET(path, counter)   {HTTP_GET, path, offsetof(struct api_metrics, get.counter)}
#define PUT(path, counter)   {HTTP_PUT, path, offsetof(struct api_metrics, put.counter)}
#define PATCH(path, counter) {HTTP_PATCH, path, offsetof(struct api_metrics, patch.counter)}

static const struct counted {
	enum http_method method;
	const char *path; /* as the route has it */
	size_t offset;	  /* of a struct api_count */
} table[] = {
	GET("/", instance_info),
	GET("/version", vmm_version),
	GET("/machine-config", machine_cfg),
	GET("/mmds", mmds),
	GET("/hotplug/memory", hotplug_memory),
	PUT("/actions", actions),
	PUT("/boot-source", boot_source),
	PUT("/drives/{id}", drive),
	PUT("/logger", logger),
	PUT("/machine-config", machine_cfg),
	PUT("/cpu-config", cpu_cfg),
	PUT("/metrics", metrics),
	PUT("/network-interfaces/{id}", network),
	PUT("/mmds", mmds),
	PUT("/mmds/config", mmds),
	PUT("/vsock", vsock),
	PUT("/pmem/{id}", pmem),
	PUT("/serial", serial),
	PUT("/hotplug/memory", hotplug_memory),
	PATCH("/drives/{id}", drive),
	PATCH("/network-interfaces/{id}", network),
	PATCH("/machine-config", machine_cfg),
	PATCH("/mmds", mmds),
	PATCH("/pmem/{id}", pmem),
	PATCH("/hotplug/memory", hotplug_memory),
};

void api_metrics_count(struct api_metrics *metrics, const struct api_route *route, bool refused)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct api_count *counter = (struct api_count *)((char *)metrics + table[i].offset);

		if (table[i].method != route->method || strcmp(table[i].path, route->path) != 0)
			continue;
		metric_inc(&counter->count);
		metric_add(&counter->fails, refused);
	}
}
