/* Saving and restoring, for a client. */
#include "vmm/api_snapshot.h"

#include "common/loop.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"
#include "vmm/snapshot_request.h"

#include <errno.h>

static void record(uint64_t *latency, uint64_t begun_ns)
{
	metric_store(latency, (monotonic_ns() - begun_ns) / 1000);
}

int snapshot_put_create(void *ctx, struct api_call *call, struct error *err)
{
	struct monitor *monitor = ctx;
	struct snapshot_create create;
	uint64_t begun_ns = monotonic_ns();
	int r;

	if (monitor->state == API_RUNNING)
		return error_set(err, EBUSY, "the machine is running: pause it first (PATCH /vm {\"state\": \"Paused\"})");
	r = snapshot_read_create(call->body, &create, err);
	if (r < 0)
		return r;
	r = machine_save(monitor->machine, &(struct snapshot_paths){create.snapshot_path, create.mem_file_path}, err);
	json_done(&snapshot_create_table, &create);
	if (r == 0)
		record(&monitor->api_metrics.latencies.full_create_snapshot, begun_ns);
	return r;
}

int snapshot_put_load(void *ctx, struct api_call *call, struct error *err)
{
	struct monitor *monitor = ctx;
	struct snapshot_load load;
	uint64_t begun_ns = monotonic_ns();
	int r = snapshot_read_load(call->body, &load, err);

	if (r < 0)
		return r;
	r = monitor_restore(monitor, &load, err);
	json_done(&snapshot_load_table, &load);
	if (r == 0)
		record(&monitor->api_metrics.latencies.load_snapshot, begun_ns);
	return r;
}
