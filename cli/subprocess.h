/* Programs that `hull` runs: their output kept for the refusal, ended when the person presses Ctrl-C. */
#ifndef HULL_CLI_SUBPROCESS_H
#define HULL_CLI_SUBPROCESS_H

#include "cli/bar.h"
#include "cli/failure.h"
#include "common/buf.h"

/* Blocks SIGINT, SIGTERM and SIGHUP for good and returns a descriptor that reads them, or -errno with `fail` set. */
int subprocess_catch_signals(struct failure *fail);

/* Runs argv[0], looked up in $PATH, with nothing on standard input, in a process group of its own, and where
 * we are root in a mount namespace of its own: what it mounts ends with it. Standard output and
 * error go to `log` (initialised; when it is full its first half goes), and with `show` to standard error too.
 * On a signal (`signal_fd` of above) the group gets SIGTERM and is waited for: -EINTR. 0; -ECHILD when it exits with
 * another status than 0; else -errno. `fail` is set. `bar`: says that this is `doing`, while it is; NULL: nothing does. */
int subprocess_run(const char *const *argv, int signal_fd, struct buf *log, bool show, struct bar *bar, const char *doing,
	struct failure *fail);

/* Is there such a program in $PATH? */
bool subprocess_exists(const char *program);

#endif
