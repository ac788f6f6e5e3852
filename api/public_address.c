#include "api/public_address.h"

#include "common/checked.h"
#include "common/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

/* What is not public of IPv4, and of the part of IPv6 that is global unicast at all (2000::/3). */
static const char not_public[] =
	"0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,192.0.0.0/24,192.0.2.0/24,192.88.99.0/24,"
	"192.168.0.0/16,198.18.0.0/15,198.51.100.0/24,203.0.113.0/24,224.0.0.0/3,"
	"2001::/23,2001:db8::/32,2002::/16,3fff::/20";
static const char global_unicast[] = "2000::/3";

static bool read_address(const struct sockaddr *address, unsigned char ret[16])
{
	if (address->sa_family == AF_INET6) {
		memcpy(ret, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
		return true;
	}
	if (address->sa_family != AF_INET)
		return false;
	memcpy(ret, mapped, 12);
	memcpy(ret + 12, &((const struct sockaddr_in *)address)->sin_addr, 4);
	return true;
}

static int read_range(const char *text, size_t len, struct address_range *ret)
{
	char copy[INET6_ADDRSTRLEN + 8], *slash, *end = NULL;
	unsigned max = 128, base = 0;

	if (len >= sizeof(copy))
		return -EINVAL;
	snprintf(copy, sizeof(copy), "%.*s", (int)len, text);
	slash = strchr(copy, '/');
	if (slash)
		*slash++ = '\0';
	if (inet_pton(AF_INET, copy, ret->address + 12) == 1) {
		memcpy(ret->address, mapped, 12);
		max = 32;
		base = 96;
	} else if (inet_pton(AF_INET6, copy, ret->address) != 1) {
		return -EINVAL;
	}
	ret->bits = base + max;
	if (!slash)
		return 0;
	ret->bits = base + (unsigned)strtoul(slash, &end, 10);
	return slash[0] >= '0' && slash[0] <= '9' && !*end && strlen(slash) <= 3 && ret->bits <= base + max ? 0 : -EINVAL;
}

int address_ranges_parse(const char *text, struct address_ranges *ret, struct error *err)
{
	for (;;) {
		size_t len = strcspn(text, ",");

		if (ret->len == ADDRESS_RANGES_MAX)
			return error_set(err, EINVAL, "may have at most %d ranges", ADDRESS_RANGES_MAX);
		if (read_range(text, len, &ret->items[ret->len]) < 0)
			return error_set(err, EINVAL, "\"%.*s\" is no address, nor a range like 10.0.0.0/8", len < 60 ? (int)len : 60, text);
		ret->len++;
		if (!text[len])
			return 0;
		text += len + 1;
	}
}

static bool range_has(const struct address_range *range, const unsigned char address[16])
{
	unsigned bytes = range->bits / 8, rest = range->bits % 8;

	return memcmp(range->address, address, bytes) == 0 && (!rest || ((range->address[bytes] ^ address[bytes]) >> (8 - rest)) == 0);
}

static bool ranges_have(const struct address_ranges *ranges, const unsigned char address[16])
{
	for (size_t i = 0; i < ranges->len; i++)
		if (range_has(&ranges->items[i], address))
			return true;
	return false;
}

bool address_ranges_have(const struct address_ranges *ranges, const struct sockaddr *address)
{
	unsigned char bytes[16];

	return read_address(address, bytes) && ranges_have(ranges, bytes);
}

bool address_is_public(const struct sockaddr *address)
{
	struct address_ranges special = {.len = 0}, global = {.len = 0};
	unsigned char bytes[16];

	if (!read_address(address, bytes) || address_ranges_parse(not_public, &special, NULL) < 0 ||
		address_ranges_parse(global_unicast, &global, NULL) < 0)
		return false;
	if (memcmp(bytes, mapped, sizeof(mapped)) != 0 && !ranges_have(&global, bytes))
		return false;
	return !ranges_have(&special, bytes);
}

bool address_is_own(const struct sockaddr *address)
{
	socklen_t len = address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	cleanup_close int fd = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned char there[16], here[16];
	struct sockaddr_storage source;
	socklen_t source_len = sizeof(source);

	/* Connecting a datagram socket looks for a route, and sends nothing. Without one there is nothing to fear; where it cannot be asked for,
	 * for want of a descriptor or of a port perhaps, there is. */
	if (fd < 0 || connect(fd, address, len) < 0)
		return errno != ENETUNREACH && errno != EHOSTUNREACH && errno != EADDRNOTAVAIL && errno != EAFNOSUPPORT;
	return getsockname(fd, (struct sockaddr *)&source, &source_len) < 0 || !read_address((struct sockaddr *)&source, here) ||
	       !read_address(address, there) || memcmp(there, here, sizeof(here)) == 0;
}
