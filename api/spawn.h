/* A child that waits at a gate, in its parent's memory, until it executes a program. Called by process.c. */
#ifndef HULL_API_SPAWN_H
#define HULL_API_SPAWN_H

#include "common/error.h"

#include <stddef.h>
#include <sys/types.h>

#define SPAWN_FDS_MAX 8

/* A child in a session of its own, with descriptors fds[0..n_fds) as 0..n_fds-1 and no others, umask 077, that executes argv[0] (a
 * path) with this process' environment once a byte has come from `gate`, the reading end of a pipe, whose other end no one but the
 * caller has; it ends, with status 0, when that is closed instead. One that cannot be executed ends with status 127 and a line on
 * descriptor 2. All is borrowed. Loop thread only, in a process without handlers of signals. Its pid, or -errno with `err` set. */
pid_t spawn_at_gate(const char *const *argv, const int *fds, size_t n_fds, int gate, struct error *err);

#endif
