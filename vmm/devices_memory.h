/* The devices that give the guest memory, made as the configuration says, and that memory's end. Loop thread, but for stray writes. */
#ifndef HULL_VMM_DEVICES_MEMORY_H
#define HULL_VMM_DEVICES_MEMORY_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

struct config_hotplug_memory;
struct config_pmem;
struct devices;
struct lent_file;
struct plugged_memory;
struct virtio_dev;

struct devices_memory {
	struct lent_file *returned; /* files whose devices are gone, and that other devices may still be at; owned */
	struct plugged_memory *plugged; /* owned; NULL without memory-hotplug */
	struct virtio_dev *mem_dev;	/* the device that plugs it */
	unsigned n_dropped_writes;	/* atomic; bounds the log */
};

/* The file becomes the guest's memory, also while it runs; it goes after the device, once no other device is at it. NULL with `err`
 * set. */
struct virtio_dev *devices_memory_pmem(struct devices *devices, const struct config_pmem *pmem, struct error *err);
/* Once a machine. NULL with `err` set. */
struct virtio_dev *devices_memory_hotplug(
	struct devices *devices, const struct config_hotplug_memory *memory, struct error *err);
/* All devices are gone. */
void devices_memory_done(struct devices *devices);

/* For struct bus: KVM brings a write to memory that is only to be read as it brings accesses to registers. It is dropped, as if it
 * were to ROM; whoever looks for why a file system fails will want to know. vCPU thread. */
void devices_memory_stray_write(void *devices, uint64_t address);

#endif
