/* HTTP by host name: which names there are, and which machines serve them, told to HAProxy (haproxy.h).
 *
 * Theory of operation. A port of a machine's with a `hostname` is held by hull-ingress as a Unix socket in HAProxy's reach, from create to
 * delete as any other. A name has a slot, one of HAProxy's backends, and each of its ports is a server there, by the name of
 * that socket. Whatever may have changed, hulld looks at all of it anew, in a round, and no more often than ten times a second:
 *
 *	ask what names and servers HAProxy has → compare with what machines are → tell the differences, one by one
 *
 * so nothing has to be remembered, over a restart of either neither; a round that fails is followed by another. A server that is not to serve
 * (any more) is put into maintenance: what it was asked already goes on. It is removed with its machine, once nothing is under way. Of a
 * machine whose health is not known yet, as after a restart of hulld, all is left as it is. */
#ifndef HULL_API_HOSTNAMES_H
#define HULL_API_HOSTNAMES_H

#include "api/hulld.h"

struct haproxy;
struct hostnames;
struct machine;
struct machine_spec;

/* NULL with `err` set. */
struct hostnames *hostnames_new(struct hulld *hulld, struct error *err);
void hostnames_free(struct hostnames *hostnames); /* HAProxy goes on; NULL is fine */
/* Begins to serve: once the machines are known. */
void hostnames_begin(struct hostnames *hostnames);
/* A machine came, went or became another. Cheap: it is looked at later. */
void hostnames_changed(struct hulld *hulld);
/* How many changes there were until now. */
uint64_t hostnames_changes(const struct hulld *hulld);
/* Does HAProxy know of that many, as far as it takes them, or is there none that could send anybody anywhere? Once that may have become so,
 * supervisor_names_are_told() is called for each machine; where HAProxy does not answer, it is not. */
bool hostnames_have_told(const struct hulld *hulld, uint64_t change);
/* The host goes down. */
void hostnames_end(struct hostnames *hostnames);

/* hostnames_check.c. May the names of `spec` be the project's? Those that `changed` (NULL: a new machine) has already may. 0, or
 * -ECANCELED with `problem` set. */
int hostnames_check(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem);

/* Where hull-ingress listens for what is to go to that port of the machine; `ret` has PORT_PLACE_MAX bytes (ingress_client.h). */
void hostnames_socket_path(const struct machine *m, int64_t guest, char *ret);

/* Has a machine of the project that name? */
bool hostnames_has(const struct hulld *hulld, const char *project, const char *hostname);
/* That which the name was given is another, or none any more. */
void hostnames_forget_certificate(struct hulld *hulld, const char *hostname);

/* GET /v1/ca. */
struct ca_view {
	char *certificate, *expires_at;
};
extern const struct json_table ca_table;
void hostnames_http_ca(struct request *req, void *ctx);

/* For metrics; NULL when nothing is served by name. */
const struct haproxy *hostnames_haproxy(const struct hostnames *hostnames);

#endif
