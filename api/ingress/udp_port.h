/* A published UDP port: its clients, each a session, and the one stream on which their datagrams go to the machine and come back. */
#ifndef HULL_API_INGRESS_UDP_PORT_H
#define HULL_API_INGRESS_UDP_PORT_H

#include "api/ingress/words.h"
#include "common/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct udp_port;

/* Sessions of several ports, and how many there may be; `whole` (or NULL) counts them, too. */
struct udp_sessions {
	size_t n, max;
	struct udp_sessions *whole;
};

/* Serves `fd` (borrowed), a bound, non-blocking UDP socket. `machine`, `vsock` and `sessions`, which counts those of the machine, are
 * borrowed, and stay. NULL with errno set. Loop thread, as everything here. */
struct udp_port *udp_port_new(
	struct loop *loop, int fd, const char *machine, const char *vsock, uint16_t guest, struct udp_sessions *sessions);
/* Its sessions end; NULL is fine. */
void udp_port_free(struct udp_port *port);

/* To be called when `fd` can be read. */
void udp_port_receive(struct udp_port *port);

/* From now on another gate; the one at first is open. */
void udp_port_set_gate(struct udp_port *port, enum gate gate);
/* It leads there now; sessions of before end. */
void udp_port_set_guest(struct udp_port *port, uint16_t guest);

size_t udp_port_count(const struct udp_port *port);

/* Do datagrams wait for another gate? */
bool udp_port_waits(const struct udp_port *port);
/* When a client has last sent one that was taken, on the monotonic clock; 0: none has. */
uint64_t udp_port_heard_ns(const struct udp_port *port);

#endif
