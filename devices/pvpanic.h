/* pvpanic (QEMU's docs/specs/pvpanic.rst): one port by which a guest says that its kernel has panicked. It
 * has no state and no lock. */
#ifndef HULL_DEVICES_PVPANIC_H
#define HULL_DEVICES_PVPANIC_H

#include "common/cleanup.h"

#include <stdint.h>

#define PVPANIC_PANICKED     1u
#define PVPANIC_CRASH_LOADED 2u /* panicked, but a crash kernel takes over: not the end */

struct pvpanic_ops {
	void (*event)(void *ctx, uint8_t events); /* PVPANIC_*, at least one */
};

struct pvpanic;

/* `ops` and `ctx` are borrowed. Never NULL (allocation failure aborts). */
struct pvpanic *pvpanic_new(const struct pvpanic_ops *ops, void *ctx);
void pvpanic_free(struct pvpanic *dev); /* NULL is fine */
DEFINE_CLEANUP(struct pvpanic *, pvpanic_free)

/* Any length, any thread. */
void pvpanic_read(struct pvpanic *dev, uint64_t offset, void *data, uint32_t len);
void pvpanic_write(struct pvpanic *dev, uint64_t offset, const void *data, uint32_t len);

#endif
