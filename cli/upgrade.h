/* A connection to the API that speaks another protocol after one request (RFC 9110, section 7.8). */
#ifndef HULL_CLI_UPGRADE_H
#define HULL_CLI_UPGRADE_H

#include "cli/client.h"

#include <sys/types.h>

struct upgrade;

/* POSTs `body` and asks for `protocol`. NULL with `fail` set when it is refused. Waits; a signal has its
 * usual effect. */
struct upgrade *upgrade_open(
	struct client *client, const char *path, const char *protocol, const json_t *body, struct failure *fail);
void upgrade_close(struct upgrade *upgrade); /* NULL is fine */
DEFINE_CLEANUP(struct upgrade *, upgrade_close)

/* To be polled, once upgrade_receive() has said -EAGAIN. */
int upgrade_fd(const struct upgrade *upgrade);
/* Bytes; -EAGAIN; -ECONNRESET at the end; -errno. */
ssize_t upgrade_receive(struct upgrade *upgrade, void *data, size_t len);
ssize_t upgrade_send(struct upgrade *upgrade, const void *data, size_t len);

#endif
