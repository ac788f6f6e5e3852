/* Numbers as networks write them, most significant byte first, wherever they lie. */
#ifndef HULL_DEVICES_NET_ORDER_H
#define HULL_DEVICES_NET_ORDER_H

#include <stdint.h>

static inline uint16_t net_get_16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t net_get_32(const uint8_t *at)
{
	return (uint32_t)net_get_16(at) << 16 | net_get_16(at + 2);
}

static inline void net_put_16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline void net_put_32(uint8_t *at, uint32_t value)
{
	net_put_16(at, (uint16_t)(value >> 16));
	net_put_16(at + 2, (uint16_t)value);
}

#endif
