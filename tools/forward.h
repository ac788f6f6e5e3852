/* Published ports of an emulated host: lines from the inside become QEMU's host forwards.
 *
 * Theory of operation. The inside, which may be in a guest's hands, writes `add ADDRESS PORT` or `remove ADDRESS PORT`,
 * with ` udp` behind where it is not TCP's, to its virtio-serial port. Here the line is checked, and what the relay itself composes goes to QEMU's monitor, one
 * command at a time; the answer, `ok` or `error REASON`, goes back. So all the inside can get is a listening port on
 * the addresses allowed, FORWARDS_MAX of them: it never speaks to the monitor. */
#ifndef HULL_TOOLS_FORWARD_H
#define HULL_TOOLS_FORWARD_H

#include "common/loop.h"

#include <stddef.h>

#define FORWARDS_MAX 256

struct forward_request {
	bool add;
	char address[16]; /* dotted quad, 127.0.0.0/8 or 0.0.0.0 */
	unsigned port;	  /* 1–65535 */
	bool udp;
};

/* Reads one line (without its newline). 0, or -EINVAL with `*reason` set to a constant. */
int forward_parse(const char *line, struct forward_request *ret, const char **reason);

struct forward;

/* `qmp_fd` and `inside_fd` (owned from now on, non-blocking) are stream sockets to QEMU's monitor and to the inside's
 * port. NULL with errno set. Everything runs on the loop's thread. */
struct forward *forward_new(struct loop *loop, int qmp_fd, int inside_fd);
/* Closes both. NULL is fine. */
void forward_free(struct forward *forward);

/* Asks QEMU to end at once, flushing its disks. */
void forward_quit(struct forward *forward);

#endif
