/* The HAProxy that serves HTTP by host name: one process, which outlives hulld.
 *
 * Theory of operation. It is started with a configuration that is made anew each time and has nothing of a client's in it but host
 * names, which are letters, digits, dots and hyphens: listeners, HAPROXY_SLOTS backends that are the same but for their servers, and a
 * map from names to backends. What changes from then on is told to the running process (hostnames.c): nothing is loaded
 * anew, so that no change touches a connection. Who it is stands in haproxy.pid before it executes anything, and a later hulld adopts it, when
 * its configuration begins as the one that would be made now; else it is asked to end when its connections have, and
 * another is started. One that dies is started again, at once, then after 1 s, 3 s, up to 30 s.
 *
 * Its folder is <run>/http, for hulld's user alone. When hulld is root, HAProxy is the user `haproxy`, with no capability, and its root
 * is <run>/http/machines, where nothing is but the sockets of machines' ports. */
#ifndef HULL_API_HAPROXY_H
#define HULL_API_HAPROXY_H

#include "api/hulld.h"
#include "common/buf.h"

#define HAPROXY_SLOTS 1024 /* host names at once */

struct haproxy;

/* What the process begins with: `servers` lines "server" of slot `slot`; all of the map. */
struct haproxy_state {
	void (*write_servers)(void *ctx, unsigned slot, struct buf *config);
	void (*write_map)(void *ctx, struct buf *map);
	void (*write_certificates)(void *ctx, struct buf *list); /* with --https */
	void (*started)(void *ctx); /* or adopted */
	void *ctx;
};

/* Makes the folders; with --http or --https, finds the program. NULL with `err` set. */
struct haproxy *haproxy_new(struct hulld *hulld, const struct haproxy_state *state, struct error *err);
void haproxy_free(struct haproxy *haproxy); /* the process goes on; NULL is fine */

/* Adopts or starts it; without --http and --https, ends one of before. */
void haproxy_begin(struct haproxy *haproxy);
/* The host goes down. */
void haproxy_end(struct haproxy *haproxy);

bool haproxy_is_wanted(const struct haproxy *haproxy);
bool haproxy_is_running(const struct haproxy *haproxy);
uint64_t haproxy_restarts(const struct haproxy *haproxy); /* of this hulld, after it had ended unasked */

const char *haproxy_folder(const struct haproxy *haproxy);
/* Paths in its folder, as it is told them. `map` is its name in commands, too. */
const char *haproxy_socket_path(const struct haproxy *haproxy);
const char *haproxy_map_path(const struct haproxy *haproxy);
/* The address of a server: the socket of that name among machines'. */
int haproxy_print_server(const struct haproxy *haproxy, struct buf *out, const char *name);

#endif
