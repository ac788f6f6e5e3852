/* pvpanic: see pvpanic.h. */
#include "devices/pvpanic.h"

#include <string.h>

#define SUPPORTED (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

struct pvpanic {
	const struct pvpanic_ops *ops;
	void *ctx;
};

struct pvpanic *pvpanic_new(const struct pvpanic_ops *ops, void *ctx)
{
	struct pvpanic *dev = calloc(1, sizeof(*dev));

	if (!dev)
		abort();
	dev->ops = ops;
	dev->ctx = ctx;
	return dev;
}

void pvpanic_free(struct pvpanic *dev)
{
	free(dev);
}

/* Reading says which events are understood: Linux takes the bits it may use from here. */
void pvpanic_read(struct pvpanic *dev, uint64_t offset, void *data, uint32_t len)
{
	(void)dev;
	memset(data, 0, len);
	if (offset == 0 && len >= 1)
		*(uint8_t *)data = SUPPORTED;
}

void pvpanic_write(struct pvpanic *dev, uint64_t offset, const void *data, uint32_t len)
{
	uint8_t events;

	if (offset != 0 || len < 1)
		return;
	events = *(const uint8_t *)data & SUPPORTED;
	if (events)
		dev->ops->event(dev->ctx, events);
}
