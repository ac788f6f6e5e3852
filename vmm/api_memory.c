/* Pmem and memory that is plugged, on a machine that runs. */
#include "vmm/api_memory.h"

#include "devices/blk_io.h"
#include "devices/virtio_mem.h"
#include "devices/virtio_pmem.h"
#include "vmm/api_live.h"
#include "vmm/devices.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"

#include <errno.h>
#include <linux/virtio_ids.h>

int look_for_pmem(const struct config *config, const char *id, struct error *err)
{
	const struct config_pmem *pmem = config_pmem(config, 0);
	uint64_t size_bytes;
	cleanup_close int fd = blk_file_open(pmem->path_on_host, pmem->read_only, &size_bytes, err);

	(void)id;
	return fd < 0 ? fd : 0;
}

struct pmem_patch {
	char *id;
	struct rate_limiter_config *rate_limiter;
};

static const struct json_field pmem_patch_fields[] = {
	{"id", JSON_FIELD_STRING, offsetof(struct pmem_patch, id), .required = true},
	{"rate_limiter", JSON_FIELD_OPTIONAL, offsetof(struct pmem_patch, rate_limiter), .nullable = true,
		.sparse = true, .table = &config_rate_limiter_table},
};
static const struct json_table pmem_patch_table = JSON_TABLE("PartialPmem", struct pmem_patch, pmem_patch_fields);

static int patch_pmem(
	struct monitor *monitor, const struct api_call *call, const struct pmem_patch *patch, struct error *err)
{
	cleanup(json_decrefp) json_t *changes = json_dump(&pmem_patch_table, patch);
	struct virtio_dev *dev = live_find_device(monitor, VIRTIO_ID_PMEM, call, "id", patch->id, err);
	int r = dev ? config_patch_item(&monitor->config, "pmem", call->id, changes, err) : -ENOENT;

	if (r == 0 && patch->rate_limiter)
		virtio_pmem_set_limiter(dev, patch->rate_limiter);
	return r;
}

int live_patch_pmem(void *ctx, struct api_call *call, struct error *err)
{
	struct pmem_patch patch;
	int r = json_read(&pmem_patch_table, call->body, &patch, err);

	if (r < 0)
		return r;
	r = patch_pmem(ctx, call, &patch, err);
	json_done(&pmem_patch_table, &patch);
	return r;
}

/* The device that plugs memory; NULL with `err` set. */
static struct virtio_dev *find_mem(struct monitor *monitor, struct error *err)
{
	struct virtio_dev *dev = devices_find(machine_devices(monitor->machine), VIRTIO_ID_MEM, NULL);

	if (!dev)
		error_set(err, ENOENT, "the machine was made without memory-hotplug");
	return dev;
}

int live_get_hotplug_memory(void *ctx, struct api_call *call, struct error *err)
{
	struct monitor *monitor = ctx;
	struct virtio_dev *dev = find_mem(monitor, err);
	uint64_t requested, plugged;

	if (!dev)
		return -ENOENT;
	virtio_mem_sizes(dev, &requested, &plugged);
	call->answer = config_get(&monitor->config, "memory-hotplug");
	json_object_set_new(call->answer, "plugged_size_mib", json_integer((json_int_t)(plugged >> 20)));
	json_object_set_new(call->answer, "requested_size_mib", json_integer((json_int_t)(requested >> 20)));
	return 0;
}

struct hotplug_memory_patch {
	int64_t requested_size_mib;
};

static const struct json_field hotplug_memory_patch_fields[] = {
	{"requested_size_mib", JSON_FIELD_INT, offsetof(struct hotplug_memory_patch, requested_size_mib), .required = true,
		.max = CONFIG_MEMORY_MAX},
};
static const struct json_table hotplug_memory_patch_table =
	JSON_TABLE("MemoryHotplugSizeUpdate", struct hotplug_memory_patch, hotplug_memory_patch_fields);

int live_patch_hotplug_memory(void *ctx, struct api_call *call, struct error *err)
{
	struct hotplug_memory_patch patch;
	struct virtio_dev *dev;
	int r = json_read(&hotplug_memory_patch_table, call->body, &patch, err);

	if (r < 0)
		return r;
	dev = find_mem(ctx, err);
	return dev ? virtio_mem_request(dev, (uint64_t)patch.requested_size_mib << 20, err) : -ENOENT;
}
