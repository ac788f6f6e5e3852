/* An address space of device registers: I/O ports or memory-mapped. Ranges are laid down before the first
 * vCPU runs and do not change afterwards, so lookups take no lock. */
#ifndef HULL_VMM_BUS_H
#define HULL_VMM_BUS_H

#include <stddef.h>
#include <stdint.h>

#define BUS_RANGES_MAX 32

/* `offset` is relative to the range and lies inside it; `len` is 1 to 8, and may reach beyond the range's
 * end. */
struct bus_ops {
	void (*read)(void *ctx, uint64_t offset, void *data, uint32_t len);
	void (*write)(void *ctx, uint64_t offset, const void *data, uint32_t len);
};

/* NAME_bus_ops, from a device's own functions, which take a pointer of its own type. */
#define DEFINE_BUS_OPS(name, read_fn, write_fn)                                                              \
	static void name##_bus_read(void *ctx, uint64_t offset, void *data, uint32_t len)                    \
	{                                                                                                    \
		read_fn(ctx, offset, data, len);                                                             \
	}                                                                                                    \
	static void name##_bus_write(void *ctx, uint64_t offset, const void *data, uint32_t len)             \
	{                                                                                                    \
		write_fn(ctx, offset, data, len);                                                            \
	}                                                                                                    \
	static const struct bus_ops name##_bus_ops = {name##_bus_read, name##_bus_write};

struct bus_range {
	uint64_t base, size;
	const struct bus_ops *ops; /* borrowed, as is ctx */
	void *ctx;
};

struct bus {
	struct bus_range ranges[BUS_RANGES_MAX]; /* ascending, disjoint */
	size_t n_ranges;
	/* Told of each write that nobody claims. vCPU thread; NULL: nobody is. */
	void (*stray_write)(void *ctx, uint64_t address);
	void *stray_ctx;
};

/* 0, -EINVAL when it is empty or wraps, -EEXIST when it overlaps another, -ENOSPC. */
int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *ctx);

/* What nobody claims reads as all ones, and writes to nothing. Any thread. */
void bus_read(const struct bus *bus, uint64_t address, void *data, uint32_t len);
void bus_write(const struct bus *bus, uint64_t address, const void *data, uint32_t len);

#endif
