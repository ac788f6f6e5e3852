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

/* Makes it so while the machine runs: the kernel's host name and those files; the interface, which goes down for that, with its
 * addresses and routes, and the files. On failure the interface is as `before`, where there was one. 0 or -errno with `err`. */
int net_set_hostname(const struct guest_config *config, struct error *err);
int net_change(const struct guest_config *config, const struct guest_network *before, struct error *err);

#endif
