/* Pmem and virtio-mem, made; and the question that precedes the end of any memory: is a device still at it? */
#include "vmm/devices_memory.h"

#include "common/log.h"
#include "devices/virtio_mem.h"
#include "devices/virtio_pmem.h"
#include "vmm/devices.h"
#include "vmm/plugged_memory.h"
#include "vmm/pmem_file.h"

#include <stdlib.h>

/* A guest can go on for ever; it does not get to fill the host's log with that. */
#define DROPPED_LOG_MAX 8

/* Whether a device may still touch these bytes of host memory, which are hidden from lookups (devices/gmem.h); but for `but`, whose
 * lock the caller holds, or which is at its end. */
static bool is_held(const struct devices *devices, const struct virtio_dev *but, const void *host, uint64_t len)
{
	bool held = false;

	for (unsigned i = 0; i < VIRTIO_BUS_MAX && !held; i++) {
		struct virtio_dev *dev = devices->virtio.slots[i].dev;

		if (!dev || dev == but)
			continue;
		virtio_dev_enter(dev);
		held = virtio_dev_holds(dev, host, len);
		virtio_dev_leave(dev);
	}
	return held;
}

/* Of a region that has come: who keeps a list of them. */
static void tell_devices(const struct devices *devices)
{
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		if (devices->virtio.slots[i].dev)
			virtio_dev_memory_changed(devices->virtio.slots[i].dev);
}

/* ---- files ---- */

struct lent_file {
	struct devices *devices;
	struct pmem_file *file;
	struct virtio_dev *dev; /* while there is one */
	struct lent_file *next; /* of devices->memory.returned */
};

static void free_lent(struct lent_file *lent)
{
	pmem_file_free(lent->file);
	free(lent);
}

/* The device is at its end. The guest may not touch the file any more; but a disk may be reading into it, and a ring be there. Then it
 * goes with the next that is returned, or at the end. */
static void take_back(void *ctx)
{
	struct lent_file *lent = ctx, **at = &lent->devices->memory.returned;
	struct devices *devices = lent->devices;
	struct virtio_dev *dev = lent->dev;

	lent->next = *at;
	*at = lent;
	while ((lent = *at)) {
		if (pmem_file_withdraw(lent->file) < 0 || is_held(devices, dev, lent->file->host, lent->file->size_bytes)) {
			at = &lent->next;
			continue;
		}
		*at = lent->next;
		free_lent(lent);
	}
}

struct virtio_dev *devices_memory_pmem(struct devices *devices, const struct config_pmem *pmem, struct error *err)
{
	struct devices_config *config = &devices->config;
	struct lent_file *lent = calloc(1, sizeof(*lent));
	struct virtio_pmem_setup setup = {.path = pmem->path_on_host, .limiter = pmem->rate_limiter, .gone = take_back, .ctx = lent};

	if (!lent) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	lent->devices = devices;
	lent->file = pmem_file_new(config->vm, config->mem, pmem->path_on_host, pmem->read_only, err);
	if (lent->file) {
		setup.fd = lent->file->fd;
		setup.file_bytes = lent->file->file_bytes;
		setup.start = lent->file->gpa;
		setup.size_bytes = lent->file->size_bytes;
		lent->dev = virtio_pmem_new(&setup, config->loop, config->mem, err);
	}
	if (lent->dev) {
		tell_devices(devices);
		return lent->dev;
	}
	free_lent(lent);
	return NULL;
}

void devices_memory_stray_write(void *ctx, uint64_t address)
{
	struct devices *devices = ctx;

	if (!gmem_view(devices->config.mem, address, 1) ||
		__atomic_fetch_add(&devices->memory.n_dropped_writes, 1, __ATOMIC_RELAXED) >= DROPPED_LOG_MAX)
		return;
	log_warn("the guest wrote to %#llx, which it may only read: dropped", (unsigned long long)address);
}

/* ---- memory that is plugged ---- */

static bool others_hold(void *ctx, const void *host, uint64_t len)
{
	const struct devices *devices = ctx;

	return is_held(devices, devices->memory.mem_dev, host, len);
}

struct virtio_dev *devices_memory_hotplug(
	struct devices *devices, const struct config_hotplug_memory *memory, struct error *err)
{
	struct devices_memory *m = &devices->memory;
	struct plugged_memory_config config = {
		.vm = devices->config.vm,
		.ram = devices->config.ram,
		.block_bytes = (uint64_t)memory->block_size_mib << 20,
		.slot_bytes = (uint64_t)memory->slot_size_mib << 20,
		.is_held = others_hold,
		.ctx = devices,
	};
	struct virtio_mem_setup setup = {
		.region_bytes = (uint64_t)memory->total_size_mib << 20,
		.block_bytes = config.block_bytes,
		.ops = &plugged_memory_ops,
	};

	m->plugged = plugged_memory_new(&config, err);
	if (!m->plugged)
		return NULL;
	setup.addr = m->plugged->gpa;
	setup.ctx = m->plugged;
	m->mem_dev = virtio_mem_new(&setup, devices->config.loop, devices->config.mem, err);
	return m->mem_dev;
}

void devices_memory_done(struct devices *devices)
{
	struct devices_memory *m = &devices->memory;
	struct lent_file *lent;

	while ((lent = m->returned)) {
		m->returned = lent->next;
		free_lent(lent);
	}
	plugged_memory_free(m->plugged);
}
