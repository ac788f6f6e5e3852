/* Files in and out of the machine, for clients of the host (hull_guest.h, FILES). */
#ifndef HULL_GUEST_FILES_H
#define HULL_GUEST_FILES_H

#include <stddef.h>
#include <sys/types.h>

#define FILES_MAX 64 /* at once */

struct files {
	pid_t children[FILES_MAX]; /* 0: none */
};

/* Forks a child that replies to the request on `fd`, a non-blocking stream socket (borrowed), and serves it to its end; it ends
 * with its client, or by SIGTERM, and leaves no part of a file. 0, or, without a reply, -EAGAIN when there are too many
 * already, -errno. Loop thread, as everything here. */
int files_serve(struct files *files, int fd);

/* What that child does: replies, and serves a client to its end, on a non-blocking stream socket (borrowed). 0 when the client has
 * its answer, which may be a refusal; -errno. Blocks. */
int files_converse(int fd);

/* A child has ended, one of these or another. */
void files_child_ended(struct files *files, pid_t pid);
/* Ends all; they need not be waited for. */
void files_done(struct files *files);

#endif
