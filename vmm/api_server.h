/* The API's socket: connections, and requests cut out of what comes. Loop thread. */
#ifndef HULL_VMM_API_SERVER_H
#define HULL_VMM_API_SERVER_H

#include "common/cleanup.h"
#include "common/error.h"

#include <stddef.h>

#define API_BODY_BYTES_DEFAULT 51200

struct api;
struct api_server;
struct loop;

/* Listens on a Unix socket at `path`, open to its owner alone; a dead one there is replaced. `api` and `loop` are borrowed.
 * Bodies have `body_bytes_max` bytes at most. NULL with `err` set (no field). */
struct api_server *api_server_new(
	struct loop *loop, const char *path, size_t body_bytes_max, const struct api *api, struct error *err);
/* Sends what it can of answers under way, ends all connections, removes the socket. NULL is fine. */
void api_server_free(struct api_server *server);
DEFINE_CLEANUP(struct api_server *, api_server_free)

#endif
