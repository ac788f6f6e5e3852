/* Subnets of networks, and what follows from an address in one. IPv4, in the host's byte order. */
#ifndef HULL_COMMON_SUBNET_H
#define HULL_COMMON_SUBNET_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

#define SUBNET_PREFIX_MIN 22
#define SUBNET_PREFIX_MAX 29
#define SUBNET_TEXT_BYTES 19
#define ADDRESS_TEXT_BYTES 16
#define MAC_TEXT_BYTES	  18

struct subnet {
	uint32_t base;
	unsigned prefix; /* SUBNET_PREFIX_MIN to SUBNET_PREFIX_MAX */
};

/* "10.88.0.0/24": private (RFC 1918), or shared (RFC 6598), and written as its first address. 0, or -EINVAL with `err` set. */
int subnet_parse(const char *text, struct subnet *ret, struct error *err);
char *subnet_format(const struct subnet *subnet, char ret[SUBNET_TEXT_BYTES]); /* returns `ret`, as those below */
bool subnets_overlap(const struct subnet *a, const struct subnet *b);

/* Its first host is the gateway, which is the name server, too; from then on they are machines', to the last, inclusive. */
uint32_t subnet_gateway(const struct subnet *subnet);
uint32_t subnet_last(const struct subnet *subnet);
/* Is it a machine's? */
bool subnet_has_machine(const struct subnet *subnet, uint32_t address);

int address_parse(const char *text, uint32_t *ret, struct error *err);
char *address_format(uint32_t address, char ret[ADDRESS_TEXT_BYTES]);
/* The one that its machine has on the link: a locally administered one, made of the address. */
char *address_mac(uint32_t address, char ret[MAC_TEXT_BYTES]);

#endif
