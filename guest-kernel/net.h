/* The machine's network, from the inside: interfaces, routes, names. */
#ifndef HULL_GUEST_NET_H
#define HULL_GUEST_NET_H

#include "common/error.h"
#include "guest-kernel/config.h"

/* Loopback up; the interface, when there is one, with its address and default route; the kernel's host name; what a
 * machine of one workload wants of the kernel (a user without privilege may bind port 80). 0 or -errno with `err`. */
int net_configure(const struct guest_config *config, struct error *err);

/* /etc/hostname, /etc/hosts and, with name servers, /etc/resolv.conf in the root file system. 0 or -errno with `err`. */
int net_write_names(const struct guest_config *config, struct error *err);

#endif
