/* Connections from the guest to its host. */
#ifndef HULL_GUEST_VSOCK_H
#define HULL_GUEST_VSOCK_H

#include <stdint.h>

/* Connects to `port` of the host. Waits, but for two seconds at most (the kernel's default for vsock), and a host without a listener
 * answers at once. A non-blocking descriptor of the caller's, or -errno. */
int vsock_connect_host(uint32_t port);

#endif
