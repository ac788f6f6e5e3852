/* The memory behind virtio-mem: a region above RAM of which nothing is there at first, and KVM's memory slots for those parts of it
 * where something is. Loop thread.
 *
 *	      slot_bytes            slot_bytes            slot_bytes
 *	├─────────────────────┼─────────────────────┼─────────────────────┤
 *	│▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▓▓▓▓▓▓               │                     │
 *	└─────────────────────┴─────────────────────┴─────────────────────┘
 *	  in KVM                in KVM    └ a vCPU     not in KVM: like any
 *	                          that touches it ends  address where nothing is
 *	                          the machine
 *
 * What is not plugged is out of reach for each who might try, and costs the host nothing: lookups by devices do not find it
 * (devices/gmem.h), and the host's mapping refuses the monitor, KVM and what the kernel does for devices. */
#ifndef HULL_VMM_PLUGGED_MEMORY_H
#define HULL_VMM_PLUGGED_MEMORY_H

#include "common/cleanup.h"
#include "common/error.h"
#include "devices/virtio_mem.h"

struct ram;
struct vm;

struct plugged_memory_config {
	struct vm *vm; /* borrowed, as is `ram`, whose plug_bytes are a multiple of slot_bytes */
	struct ram *ram;
	uint64_t block_bytes, slot_bytes;
	/* Whether a device, but for virtio-mem, may still be at these bytes (virtio_dev_holds()). With virtio-mem's lock held. */
	bool (*is_held)(void *ctx, const void *host, uint64_t len);
	void *ctx;
};

struct plugged_memory {
	struct plugged_memory_config config;
	gpa_t gpa;
	uint64_t *blocks; /* owned: a bit each, set while it is there; gmem's to write */
	int *slots;	  /* owned: KVM's slot for each slot_bytes; -1: none */
	bool in_gmem;
};

extern const struct virtio_mem_ops plugged_memory_ops; /* of a struct plugged_memory */

/* Finds the place. NULL with `err` set (field "total_size_mib"). */
struct plugged_memory *plugged_memory_new(const struct plugged_memory_config *config, struct error *err);
/* vCPUs and devices are gone. NULL is fine. */
void plugged_memory_free(struct plugged_memory *memory);
DEFINE_CLEANUP(struct plugged_memory *, plugged_memory_free)

#endif
