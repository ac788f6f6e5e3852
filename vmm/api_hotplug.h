/* Devices that come to a machine that runs, and go: PUT and DELETE after the start, on a PCI bus. */
#ifndef HULL_VMM_API_HOTPLUG_H
#define HULL_VMM_API_HOTPLUG_H

struct api_call;
struct error;
struct monitor;

enum hotplug_kind { HOTPLUG_DRIVE, HOTPLUG_NET, HOTPLUG_PMEM };

/* The machine runs, or is paused. 0, or -errno with `err` set and nothing changed. */
int hotplug_put(struct monitor *monitor, enum hotplug_kind kind, struct api_call *call, struct error *err);
/* The guest has VIRTIO_BUS_RELEASE_NS to let go of a device that it uses. */
int hotplug_delete(struct monitor *monitor, enum hotplug_kind kind, struct api_call *call, struct error *err);

#endif
