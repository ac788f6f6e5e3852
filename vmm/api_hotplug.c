/* Adding devices to a machine that runs, and taking them back.
 *
 * Theory of operation. As in vmm/api_live.c, the configuration is changed first, and goes back when the device cannot be made.
 * A device that is to leave is out of the configuration at once, while its id is taken until the guest has let go of it. */
#include "vmm/api_hotplug.h"

#include "vmm/api.h"
#include "vmm/devices.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"

#include <errno.h>
#include <linux/virtio_ids.h>

static const struct {
	const char *key; /* of the configuration */
	uint32_t device_id;
	int (*plug)(struct devices *devices, const char *id, struct error *err);
} kinds[] = {
	[HOTPLUG_DRIVE] = {"drives", VIRTIO_ID_BLOCK, devices_plug_drive},
	[HOTPLUG_NET] = {"network-interfaces", VIRTIO_ID_NET, devices_plug_net},
	[HOTPLUG_PMEM] = {"pmem", VIRTIO_ID_PMEM, devices_plug_pmem},
};

static int check_bus(const struct monitor *monitor, struct error *err)
{
	return monitor->pci ? 0 : api_check_state(API_NOT_STARTED, monitor->state, err);
}

static struct virtio_bus *bus_of(const struct monitor *monitor)
{
	return &machine_devices(monitor->machine)->virtio;
}

static int check_is_new(const struct monitor *monitor, enum hotplug_kind kind, const char *id, struct error *err)
{
	const struct virtio_dev *dev = virtio_bus_find(bus_of(monitor), kinds[kind].device_id, id);

	if (!dev)
		return 0;
	return virtio_bus_is_leaving(bus_of(monitor), dev) ?
		       error_set(err, EBUSY, "\"%s\" is being taken out of the guest: try again", id) :
		       error_set(err, EEXIST, "%s has \"%s\" already", kinds[kind].key, id);
}

int hotplug_put(struct monitor *monitor, enum hotplug_kind kind, struct api_call *call, struct error *err)
{
	const char *key = kinds[kind].key;
	int r = check_bus(monitor, err);

	if (r == 0)
		r = check_is_new(monitor, kind, call->id, err);
	if (r == 0)
		r = config_put(&monitor->config, key, call->id, call->body, err);
	if (r < 0)
		return r;
	config_settle(&monitor->config);
	r = kinds[kind].plug(machine_devices(monitor->machine), call->id, err);
	if (r < 0)
		config_remove(&monitor->config, key, call->id, NULL);
	return r;
}

int hotplug_delete(struct monitor *monitor, enum hotplug_kind kind, struct api_call *call, struct error *err)
{
	int r = check_bus(monitor, err);

	if (r == 0)
		r = config_remove(&monitor->config, kinds[kind].key, call->id, err);
	if (r < 0)
		return r;
	virtio_bus_remove(bus_of(monitor), virtio_bus_find(bus_of(monitor), kinds[kind].device_id, call->id));
	return 0;
}
