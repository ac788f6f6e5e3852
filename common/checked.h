/* Arithmetic that says when it overflowed. For every size, offset and address that somebody else chose. */
#ifndef HULL_COMMON_CHECKED_H
#define HULL_COMMON_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each stores the result in `*ret` and returns true; on overflow returns false, and `*ret` must not be used. */
#define checked_add(a, b, ret) (!__builtin_add_overflow((a), (b), (ret)))
#define checked_sub(a, b, ret) (!__builtin_sub_overflow((a), (b), (ret)))
#define checked_mul(a, b, ret) (!__builtin_mul_overflow((a), (b), (ret)))

/* True when [start, start + len) lies inside [0, limit), without computing a sum that can wrap. */
static inline bool range_fits(uint64_t start, uint64_t len, uint64_t limit)
{
	return len <= limit && start <= limit - len;
}

/* `align` is a power of two; the caller knows that value + align cannot wrap. */
static inline uint64_t align_up(uint64_t value, uint64_t align)
{
	return (value + align - 1) & ~(align - 1);
}

static inline uint64_t align_down(uint64_t value, uint64_t align)
{
	return value & ~(align - 1);
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#endif
