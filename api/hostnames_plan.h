/* What HAProxy is to have, by what machines are; what it has; and what makes the one of the other. For the rounds of hostnames.c, which
 * asks and tells. */
#ifndef HULL_API_HOSTNAMES_PLAN_H
#define HULL_API_HOSTNAMES_PLAN_H

#include "api/hulld.h"
#include "common/buf.h"

struct haproxy;
struct hostnames_plan;
struct tls;

/* All are borrowed; `tls`: NULL without --https. Aborts without memory. Loop thread, as all here. */
struct hostnames_plan *hostnames_plan_new(const struct hulld *hulld, const struct haproxy *haproxy, struct tls *tls);
void hostnames_plan_free(struct hostnames_plan *plan); /* NULL is fine */

/* First: what is to be. Borrows from the machines: for as long as nothing else runs. */
void hostnames_plan_collect(struct hostnames_plan *plan);
/* Has certificates made for that. False: some are left for the next round. */
bool hostnames_plan_certificates(struct hostnames_plan *plan);
/* What HAProxy has, by its answer to `show map`, `show servers state` and, with `tls`, `show ssl crt-list -n`. */
void hostnames_plan_see(struct hostnames_plan *plan, const char *answer);
/* Gives each name a slot. False: some wait for the next round, those of before are in their way. */
bool hostnames_plan_assign(struct hostnames_plan *plan);

/* Has `say` called with each command that makes HAProxy have what is to be, in order. */
typedef void (*hostnames_say_fn)(void *ctx, const char *command);
void hostnames_plan_compose(struct hostnames_plan *plan, hostnames_say_fn say, void *ctx);
/* What HAProxy had: at the end of the round. */
void hostnames_plan_forget(struct hostnames_plan *plan);

/* What a HAProxy begins with, instead: its map, and the lines "server" of a slot. Behind collect and assign. */
void hostnames_plan_write_map(const struct hostnames_plan *plan, struct buf *map);
void hostnames_plan_write_servers(const struct hostnames_plan *plan, unsigned slot, struct buf *config);

#endif
