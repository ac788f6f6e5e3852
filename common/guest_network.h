/* How a machine is reached, as its inside is told: when it starts, and when that changes. */
#ifndef HULL_COMMON_GUEST_NETWORK_H
#define HULL_COMMON_GUEST_NETWORK_H

#include "common/json.h"

#define HOSTNAME_BYTES_MAX 64 /* HOST_NAME_MAX; what Linux takes */
#define MAC_BYTES	   6

struct guest_network {
	char *interface;
	char *mac;     /* six bytes, hexadecimal, with colons; NULL: as it is */
	char *address; /* IPv4, dotted, checked */
	int64_t prefix;
	char *gateway; /* IPv4; NULL: no default route */
	struct json_strings dns;
};
extern const struct json_table guest_network_table;

/* 0, or -EINVAL with `err` set. */
int hostname_check(const char *name, struct error *err);
/* The six bytes of an address that one interface may have: neither a group's nor all zeros. 0, or -EINVAL with `err` set. */
int mac_parse(const char *text, uint8_t ret[MAC_BYTES], struct error *err);

#endif
