/* Which addresses of the network are anybody's, so that a client may have hulld connect there; and ranges that an administrator opens.
 * An IPv4 address is the same in whatever form it comes (IPv4-mapped, RFC 4291, section 2.5.5.2). */
#ifndef HULL_API_PUBLIC_ADDRESS_H
#define HULL_API_PUBLIC_ADDRESS_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define ADDRESS_RANGES_MAX 32

struct address_range {
	unsigned char address[16]; /* IPv4: mapped */
	unsigned bits;		   /* of its prefix, 0 to 128 */
};

struct address_ranges {
	struct address_range items[ADDRESS_RANGES_MAX];
	size_t len;
};

/* "10.0.0.0/8,fd00::/8,192.0.2.1": added to `ret`. 0 or -EINVAL with `err` set. */
int address_ranges_parse(const char *text, struct address_ranges *ret, struct error *err);
/* An AF_INET or AF_INET6 address, here and below; of another family: false. */
bool address_ranges_have(const struct address_ranges *ranges, const struct sockaddr *address);

/* Is it one that the internet routes to whoever has it? Not so loopback, link-local, private, shared, multicast, reserved ones and those of
 * documentation and benchmarks (RFC 6890 and IANA's registries of special-purpose addresses), nor what wraps an IPv4 address in an IPv6 one. */
bool address_is_public(const struct sockaddr *address);
/* Is it one of this host's? The kernel is asked: what it would send there it sends from there. True also when it cannot be asked. */
bool address_is_own(const struct sockaddr *address);

#endif
