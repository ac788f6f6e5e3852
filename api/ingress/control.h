/* The control socket: requests and answers as JSON objects, one a line (docs/interfaces.md, "hull-ingress"). */
#ifndef HULL_API_INGRESS_CONTROL_H
#define HULL_API_INGRESS_CONTROL_H

#include "api/ingress/ingress.h"

#include <stdbool.h>

/* Accepts what waits at the listening socket `fd`; called whenever it is readable. */
void control_accept(struct ingress *ingress, int fd, loop_fn shut_down, void *ctx);

/* Has a client sent what was not read yet, and is read next? */
bool control_is_behind(const struct ingress *ingress);

/* A connection to the machine has ended, or counts no more (port_count_reached()): whoever waits for the last one may hear of it. */
void control_connection_ended(struct ingress *ingress, const char *machine);

/* Somebody waits at a port of the machine, whose gate that client has set to `wake`. */
void control_wanted(struct client *client, const char *machine);

/* Ends all clients, unheard. */
void control_end(struct ingress *ingress);

#endif
