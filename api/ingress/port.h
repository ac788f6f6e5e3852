/* Published ports: a listener on the host each, TCP or a Unix socket, and the connections it accepted; or a UDP socket. */
#ifndef HULL_API_INGRESS_PORT_H
#define HULL_API_INGRESS_PORT_H

#include "api/ingress/ingress.h"
#include "api/ingress/words.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

extern const char *const gate_names[]; /* NULL-terminated, by enum gate */

extern const char *const protocol_names[]; /* NULL-terminated, by enum protocol */

struct client;
struct machine_ports;
struct udp_port;

struct port_spec {
	char *machine, *address, *vsock; /* address: an IP address, or the absolute path of a Unix socket, mode 0660 */
	int64_t host, guest;		 /* host: 0 with a path */
	int gate;			 /* enum gate */
	int protocol;			 /* enum protocol; with a path, TCP */
};

struct port {
	struct ingress *ingress;
	struct port *next;
	struct port_spec spec; /* owned copies */
	enum gate told; /* the last one; spec.gate is what it comes to here */
	int listen_fd;
	struct loop_source *listener, *resume; /* resume: timer, after a time without free descriptors, or to look at */
	int undecided_fd; /* a client who came to a closed gate, that may be another by now; -1: there is none */
	bool forwarded;			       /* the forwarder has it, or may have it */
	struct port_request *request;	       /* who waits for the forwarder's answer; NULL: published */
	struct connection *connections;
	size_t n_connections;
	size_t n_waiting; /* that have no stream yet */
	size_t n_reached; /* that the machine may know of: its agent was asked for a stream */
	struct udp_port *udp; /* of one of UDP, which has no connections; on listen_fd */
	struct machine_ports *of_machine;
};

/* Answers a publication: `err` NULL for success. EADDRINUSE is "port taken". */
typedef void (*port_done_fn)(void *ctx, const struct error *err);

/* Binds and, on an emulated host, asks the forwarder; `done` is called once, at once or later, unless the returned
 * request is cancelled before. NULL when `done` was called already. The same publication twice succeeds, with the gate
 * that the second one says, and one to another port in the same machine is turned there: connections of before stay
 * where they are, sessions of UDP end. */
struct port_request *port_publish(
	struct ingress *ingress, const struct port_spec *spec, port_done_fn done, void *ctx);

/* Nobody wants to hear the answer any more; the publication itself goes on. */
void port_request_cancel(struct port_request *request);

/* Closes the machine's listeners and connections: those of one port (`address`, `host` and `protocol`), or of all (NULL). */
void port_unpublish(struct ingress *ingress, const char *machine, const char *address, int64_t host, enum protocol protocol);
void port_unpublish_all(struct ingress *ingress);

/* Accepts those who wait at Unix sockets for the machine. */
void port_take_in(struct ingress *ingress, const char *machine);
/* How many connections have reached the machine; of a Unix socket whose gate lets them through, how many have come, as whoever has sent them has
 * let go of them. */
size_t port_count_reached(const struct ingress *ingress, const char *machine);

/* Is it a Unix socket? Those who come there have others to go to, and are kept waiting for a program, but not for a machine, unless
 * that sleeps. */
bool port_is_unix(const struct port *port);

/* Does who comes wait for another gate? */
bool port_waits(const struct port *port);

/* Is one whose try has failed not tried again? */
bool port_gives_up(const struct port *port);

/* Sets the gate of all ports of the machine; of none, there is nothing to do. */
void port_set_gate(struct ingress *ingress, const char *machine, enum gate gate);

/* With GATE_WAKE: `waker` is told (control_wanted()) as soon as somebody waits at a port of the machine, at once when that is so
 * already, and then no more. NULL: nobody is. */
void port_set_waker(struct ingress *ingress, const char *machine, struct client *waker);
/* It has gone. */
void port_forget_waker(struct ingress *ingress, const struct client *waker);
/* Somebody waits there: tells whoever is to be told. */
void port_is_waited_at(struct port *port);

/* A connection has ended. */
void port_was_used(struct port *port);
/* For how long nobody has used the machine's ports, in ms: there was no connection, and no client has sent a datagram. -ENOENT: it has none. */
int64_t port_idle_ms(const struct ingress *ingress, const char *machine);

/* What is published, as the answer to "list" has it: a new JSON array. */
json_t *port_list(const struct ingress *ingress);

#endif
