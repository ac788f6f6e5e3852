/* One register by which a guest says that it has booted: Firecracker's. Its first word counts, so that a guest fills no log
 * with it; that it has spoken is no state of the guest's, and is not saved. */
#ifndef HULL_DEVICES_BOOT_TIMER_H
#define HULL_DEVICES_BOOT_TIMER_H

#include <stdatomic.h>
#include <stdint.h>

#define BOOT_TIMER_SIZE	 1
#define BOOT_TIMER_MAGIC 123

struct boot_timer {
	void (*booted)(void *ctx); /* vCPU thread */
	void *ctx;
	atomic_flag spoken;
};

void boot_timer_init(struct boot_timer *dev, void (*booted)(void *ctx), void *ctx);

/* Access at `offset`, any length: only one byte at 0 is taken. Any thread. */
void boot_timer_read(struct boot_timer *dev, uint64_t offset, void *data, uint32_t len);
void boot_timer_write(struct boot_timer *dev, uint64_t offset, const void *data, uint32_t len);

#endif
