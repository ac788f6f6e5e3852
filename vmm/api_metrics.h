/* What the API counts: requests, by what they were for, and how long some took. Loop thread. */
#ifndef HULL_VMM_API_METRICS_H
#define HULL_VMM_API_METRICS_H

#include "devices/metrics.h"

#include <stdbool.h>

struct api_route;

struct api_count {
	uint64_t count, fails; /* asked for; and of these, refused */
};

struct api_metrics {
	struct {
		struct api_count instance_info, vmm_version, machine_cfg, mmds, hotplug_memory;
	} get;
	struct {
		struct api_count actions, boot_source, drive, logger, machine_cfg, cpu_cfg, metrics, network, mmds, vsock,
			pmem, serial, hotplug_memory;
	} put;
	struct {
		struct api_count drive, network, machine_cfg, mmds, pmem, hotplug_memory;
	} patch;
	struct {
		uint64_t pause_vm, resume_vm, full_create_snapshot, load_snapshot; /* the last one, from the request to its answer, microseconds */
	} latencies;
	struct {
		uint64_t process_startup_time_us, process_startup_time_cpu_us; /* until the socket was there */
	} server;
};

/* The route's request was served, or refused. */
void api_metrics_count(struct api_metrics *metrics, const struct api_route *route, bool refused);

#endif
