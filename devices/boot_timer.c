/* The register that ends the measuring of a boot. */
#include "devices/boot_timer.h"

#include <string.h>

void boot_timer_init(struct boot_timer *dev, void (*booted)(void *ctx), void *ctx)
{
	dev->booted = booted;
	dev->ctx = ctx;
	atomic_flag_clear(&dev->spoken);
}

void boot_timer_read(struct boot_timer *dev, uint64_t offset, void *data, uint32_t len)
{
	(void)dev;
	(void)offset;
	memset(data, 0, len);
}

void boot_timer_write(struct boot_timer *dev, uint64_t offset, const void *data, uint32_t len)
{
	if (offset != 0 || len != 1 || *(const uint8_t *)data != BOOT_TIMER_MAGIC)
		return;
	if (!atomic_flag_test_and_set(&dev->spoken))
		dev->booted(dev->ctx);
}
