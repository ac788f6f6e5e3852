/* The certificates that HAProxy serves HTTPS with, one for each host name.
 *
 * Theory of operation. <run>/http/certificates has a file for each name, which is named like it: what a HAProxy that starts reads, by the
 * list <run>/http/certificates.list, and what a running one was told last. In a round (hostnames.h) that list is part of what HAProxy is asked
 * for, and the differences of what it is told. A file is written when HAProxy has taken it, so that one that has not is told again. A name has what its
 * project has given for it (certificates.h), else one of our own: these are made when they are needed, some in each round, and anew when a third of their time is left. */
#ifndef HULL_API_TLS_H
#define HULL_API_TLS_H

#include "api/hulld.h"
#include "common/buf.h"

struct tls;

/* `folder`: HAProxy's. NULL with `err` set. */
struct tls *tls_new(struct hulld *hulld, const char *folder, struct error *err);
void tls_free(struct tls *tls); /* NULL is fine */

const char *tls_list_path(const struct tls *tls);
/* Of the host's own authority: PEM, and when it expires. */
const char *tls_authority(const struct tls *tls, int64_t *ret_expires_at);

/* Which names there are: each between the two, once, in order. */
void tls_begin(struct tls *tls);
void tls_want(struct tls *tls, const char *hostname, const char *project);
/* Of the name, what was given is looked for anew. */
void tls_forget(struct tls *tls, const char *hostname);
/* Those that were not named are dropped; of the others certificates are made, some. True: not all are there yet. */
bool tls_prepare(struct tls *tls);

/* Writes the files of those that are there, and what the list has of them. Before HAProxy starts. */
void tls_write(struct tls *tls, struct buf *list);

/* A line of the answer to `show ssl crt-list -n LIST`: false, when it is none. */
bool tls_read_line(struct tls *tls, const char *line);
/* Has `say` called with each command that makes HAProxy have what is wanted, and nothing else. */
void tls_compose(struct tls *tls, void (*say)(void *ctx, const char *command), void *ctx);
/* HAProxy has carried that one out. */
void tls_told(struct tls *tls, const char *command);
/* It has refused that. True: it is about one that was given, which is tried again, or, the third time, given up. */
bool tls_refused(struct tls *tls, const char *command, const char *answer);

#endif
