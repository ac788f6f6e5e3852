/* The sockets of published ports: non-blocking, each its descriptor, or -errno with `err` set. */
#ifndef HULL_API_INGRESS_LISTEN_H
#define HULL_API_INGRESS_LISTEN_H

#include "common/error.h"

#include <stdint.h>

/* At an IP address. */
int listen_tcp(const char *address, uint16_t port, struct error *err);
/* The same; a datagram comes with the address it was sent to (IP_PKTINFO, IPV6_PKTINFO). */
int listen_udp(const char *address, uint16_t port, struct error *err);
/* At a path, mode 0660. */
int listen_unix(const char *path, struct error *err);

#endif
