/* One accepted connection: from the listener to a stream of the machine's agent. */
#ifndef HULL_API_INGRESS_CONNECTION_H
#define HULL_API_INGRESS_CONNECTION_H

#include "api/ingress/port.h"

/* Takes the accepted, non-blocking socket: connects it to the port's machine, or closes it when a limit is reached.
 * Nothing to wait for or to free: the connection belongs to its port. */
void connection_begin(struct port *port, int fd);

/* The port's gate is another: those that wait for the machine go on, wait on, or are closed. */
void connection_gate_changed(struct port *port);

/* Closes all connections of the port. */
void connection_close_all(struct port *port);

/* The callback of ingress->retries. */
void connection_retry(void *ctx);

#endif
