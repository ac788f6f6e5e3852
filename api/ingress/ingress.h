/* What hull-ingress's parts share: the published ports, their connections, the limits. One thread, one loop. */
#ifndef HULL_API_INGRESS_INGRESS_H
#define HULL_API_INGRESS_INGRESS_H

#include "api/ingress/udp_port.h"
#include "common/loop.h"

#include <stddef.h>

#define INGRESS_CONNECTIONS_MAX	     16384 /* in all; fewer when the limit of open files is low */
#define INGRESS_SESSIONS_MAX	     65536 /* of UDP, in all */
#define INGRESS_WAITING_PER_PORT_MAX 1024 /* connections of one port whose machine is not up */
#define INGRESS_CLIENTS_MAX	     64	  /* of the control socket */
#define INGRESS_REQUEST_BYTES_MAX    (64 * 1024)
#define INGRESS_ANSWER_BYTES_MAX     (16 << 20)

#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

struct client;
struct connection;
struct forwarder;
struct port;

struct ingress {
	struct loop *loop;
	struct forwarder *forwarder; /* NULL: ports are bound here and nowhere else */
	struct port *ports;
	size_t n_ports;
	size_t n_connections, connections_max;
	struct udp_sessions sessions;
	struct connection *pending;  /* without a stream yet: between two tries or in one */
	struct loop_source *retries; /* timer of `pending` */
	uint64_t retries_ns;	     /* when that fires; UINT64_MAX: never */
	struct client *clients; /* control.c */
	size_t n_clients;
	struct loop_source *idle; /* timer: ends the process */
	uint64_t idle_ns;
};

/* To be called when a port or a client went: with none of either left, the idle time begins. */
void ingress_check_idle(struct ingress *ingress);

#endif
