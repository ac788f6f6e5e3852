#include "common/subnet.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t mask(unsigned prefix)
{
	return prefix ? UINT32_MAX << (32 - prefix) : 0;
}

static bool is_within(uint32_t address, uint32_t base, unsigned prefix)
{
	return (address & mask(prefix)) == base;
}

/* What nobody routes in the Internet. */
static bool is_private(uint32_t address)
{
	return is_within(address, 0x0a000000, 8) || is_within(address, 0xac100000, 12) || is_within(address, 0xc0a80000, 16) ||
	       is_within(address, 0x64400000, 10);
}

int address_parse(const char *text, uint32_t *ret, struct error *err)
{
	struct in_addr address;

	if (inet_pton(AF_INET, text, &address) != 1)
		return error_set(err, EINVAL, "must be an IPv4 address");
	*ret = ntohl(address.s_addr);
	return 0;
}

int subnet_parse(const char *text, struct subnet *ret, struct error *err)
{
	const char *slash = strchr(text, '/');
	char base[ADDRESS_TEXT_BYTES], first[SUBNET_TEXT_BYTES];
	struct subnet subnet;
	unsigned long prefix;
	char *end = NULL;

	if (!slash || (size_t)(slash - text) >= sizeof(base) || !isdigit((unsigned char)slash[1]))
		return error_set(err, EINVAL, "must be an IPv4 network, as 10.88.0.0/24");
	snprintf(base, sizeof(base), "%.*s", (int)(slash - text), text);
	prefix = strtoul(slash + 1, &end, 10);
	if (*end || strlen(slash + 1) > 2 || address_parse(base, &subnet.base, err) < 0)
		return error_set(err, EINVAL, "must be an IPv4 network, as 10.88.0.0/24");
	if (prefix < SUBNET_PREFIX_MIN || prefix > SUBNET_PREFIX_MAX)
		return error_set(err, EINVAL, "must have a prefix of %d to %d bits", SUBNET_PREFIX_MIN, SUBNET_PREFIX_MAX);
	subnet.prefix = (unsigned)prefix;
	if (subnet.base & ~mask(subnet.prefix)) {
		subnet.base &= mask(subnet.prefix);
		return error_set(err, EINVAL, "has bits behind its prefix: write %s", subnet_format(&subnet, first));
	}
	if (!is_private(subnet.base))
		return error_set(err, EINVAL, "must be private: within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10");
	*ret = subnet;
	return 0;
}

char *subnet_format(const struct subnet *subnet, char ret[SUBNET_TEXT_BYTES])
{
	char base[ADDRESS_TEXT_BYTES];

	snprintf(ret, SUBNET_TEXT_BYTES, "%s/%u", address_format(subnet->base, base), subnet->prefix % 100);
	return ret;
}

bool subnets_overlap(const struct subnet *a, const struct subnet *b)
{
	uint32_t common = mask(a->prefix < b->prefix ? a->prefix : b->prefix);

	return ((a->base ^ b->base) & common) == 0;
}

uint32_t subnet_gateway(const struct subnet *subnet)
{
	return subnet->base + 1;
}

uint32_t subnet_last(const struct subnet *subnet)
{
	return (subnet->base | ~mask(subnet->prefix)) - 1;
}

bool subnet_has_machine(const struct subnet *subnet, uint32_t address)
{
	return address > subnet_gateway(subnet) && address <= subnet_last(subnet);
}

char *address_format(uint32_t address, char ret[ADDRESS_TEXT_BYTES])
{
	snprintf(ret, ADDRESS_TEXT_BYTES, "%u.%u.%u.%u", address >> 24, address >> 16 & 0xff, address >> 8 & 0xff, address & 0xff);
	return ret;
}

char *address_mac(uint32_t address, char ret[MAC_TEXT_BYTES])
{
	snprintf(ret, MAC_TEXT_BYTES, "02:68:%02x:%02x:%02x:%02x", address >> 24, address >> 16 & 0xff, address >> 8 & 0xff, address & 0xff);
	return ret;
}
