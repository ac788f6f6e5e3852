/* Talking to hull-ingress, the holder of published ports: one connection, requests in order, started when nobody
 * listens.
 *
 * hull-ingress outlives hulld, so what it holds may differ from what the database says: after every (re)connection all
 * ports it lists for unknown machines are given up and those of known ones are published again, which has no effect
 * on ports that are. Should it die while machines have ports, it is started again. */
#ifndef HULL_API_INGRESS_CLIENT_H
#define HULL_API_INGRESS_CLIENT_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

struct hulld;
struct ingress_client;
struct machine;
struct port_spec;

/* `answer` is borrowed: {"ok": …}; NULL when there was none, with `err` set. */
typedef void (*ingress_fn)(void *ctx, const json_t *answer, const struct error *err);

struct ingress_client *ingress_client_new(struct hulld *hulld, struct error *err);
void ingress_client_free(struct ingress_client *client); /* calls no more functions; NULL is fine */

/* Brings what hull-ingress holds in line with the machines. Later, by itself. */
void ingress_reconcile(struct ingress_client *client);

/* Of an address, or the path of a socket for what is served by host name, where hull-ingress has a port. */
#define PORT_PLACE_MAX 160

/* Publishes a port of the machine, or turns one that is published to another port in it; unpublishes one, or all of its ports. `fn` is
 * always called later; NULL: a failure is logged. */
void ingress_publish(struct ingress_client *client, const struct machine *machine, const struct port_spec *port, ingress_fn fn,
	void *ctx);
void ingress_unpublish_port(struct ingress_client *client, const struct machine *machine, const struct port_spec *port);
void ingress_unpublish(struct ingress_client *client, const char *machine_id, ingress_fn fn, void *ctx);

/* ingress_gate.c: what is to become of who comes to the machine's ports (enum gate). One that has never run is as if it were on its way: it was
 * made to be started. */
int ingress_gate_of(const struct machine *machine);

/* Tells hull-ingress what is to become of new connections to the machine, when that is no more what it was told last. To be called
 * whenever its state or its health is another. */
void ingress_tell_gate(struct ingress_client *client, struct machine *machine);

/* Once no connection to the machine is left, or nobody could say so, supervisor_drained() is called, later. */
void ingress_drain(struct ingress_client *client, const struct machine *machine);

/* Asks for how long nobody has used the machine's ports: if that is as long as `idle_ms`, whoever comes is held from then on. Ends in
 * idle_answered(), later, or, when nobody could say so, in nothing. */
void ingress_sleep(struct ingress_client *client, const struct machine *machine, int64_t idle_ms);

/* Ends hull-ingress and with it all ports, until somebody asks for one. False: there is none, and `fn` is not called. */
bool ingress_shut_down(struct ingress_client *client, ingress_fn fn, void *ctx);

#endif
