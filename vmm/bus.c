/* Register ranges, sorted; found by bisection. */
#include "vmm/bus.h"

#include "common/checked.h"

#include <errno.h>
#include <string.h>

int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *ctx)
{
	uint64_t last;
	size_t at = 0;

	if (size == 0 || !checked_add(base, size - 1, &last))
		return -EINVAL;
	while (at < bus->n_ranges && bus->ranges[at].base < base)
		at++;
	if (at > 0 && base - bus->ranges[at - 1].base < bus->ranges[at - 1].size)
		return -EEXIST;
	if (at < bus->n_ranges && bus->ranges[at].base <= last)
		return -EEXIST;
	if (bus->n_ranges == BUS_RANGES_MAX)
		return -ENOSPC;
	memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->n_ranges - at) * sizeof(bus->ranges[0]));
	bus->ranges[at] = (struct bus_range){base, size, ops, ctx};
	bus->n_ranges++;
	return 0;
}

static const struct bus_range *find(const struct bus *bus, uint64_t address)
{
	size_t low = 0, high = bus->n_ranges;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct bus_range *range = &bus->ranges[middle];

		if (address < range->base)
			high = middle;
		else if (address - range->base >= range->size)
			low = middle + 1;
		else
			return range;
	}
	return NULL;
}

void bus_read(const struct bus *bus, uint64_t address, void *data, uint32_t len)
{
	const struct bus_range *range = find(bus, address);

	if (range)
		range->ops->read(range->ctx, address - range->base, data, len);
	else
		memset(data, 0xff, len);
}

void bus_write(const struct bus *bus, uint64_t address, const void *data, uint32_t len)
{
	const struct bus_range *range = find(bus, address);

	if (range)
		range->ops->write(range->ctx, address - range->base, data, len);
	else if (bus->stray_write)
		bus->stray_write(bus->stray_ctx, address);
}
