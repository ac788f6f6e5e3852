/* The host's end of the guest's serial console: standard output and input, or a file.
 *
 * Threads: console_write() comes from vCPU threads, under the UART's lock, and from the loop thread while they
 * rest; what is not marked otherwise is the loop thread's. */
#ifndef HULL_VMM_CONSOLE_H
#define HULL_VMM_CONSOLE_H

#include "common/bounded_file.h"
#include "common/buf.h"
#include "common/error.h"
#include "common/loop.h"

#include <pthread.h>
#include <stdbool.h>
#include <termios.h>

struct uart16550;

struct console {
	struct loop *loop; /* borrowed */
	int out_fd;
	bool owns_out_fd;        /* it is ours to close, and does not block */
	size_t at_once;          /* bytes of which a write never waits once poll() says that there is room */
	struct loop_source *out; /* parked while all was written; NULL: a file, which never has to be waited for */

	pthread_mutex_t lock; /* guards what follows, up to the input; a leaf */
	pthread_cond_t changed;
	struct bounded_file limit; /* of what the output may grow to */
	struct buf backlog; /* written by the guest, and not taken by the reader yet */
	bool may_wait;
	bool out_broken; /* nobody reads: what comes is dropped */

	struct uart16550 *uart; /* NULL while there is no input */
	struct loop_source *in; /* of standard input; NULL: none, or at its end */
	char pending[256];      /* read from standard input, not taken by the UART yet */
	size_t pending_len;
	bool raw; /* the terminal was put into raw mode, and was `terminal` before */
	struct termios terminal;
};

/* `path` NULL: standard output. A file keeps `limit_bytes`, the newest; 0: all. 0, or -errno with `err` set and nothing to
 * be undone. */
int console_init(
	struct console *console, struct loop *loop, const char *path, uint64_t limit_bytes, struct error *err);
/* Gives the terminal back. Also of a zeroed one. */
void console_done(struct console *console);

/* Starts to pass standard input on to `uart` (borrowed), if there is a standard input that can be waited for. */
void console_read_input(struct console *console, struct uart16550 *uart);
/* The UART has room again. Any thread. */
void console_room(struct console *console);

/* Waits while the reader is slow and waiting is allowed, so that a slow reader slows the guest down; what the reader
 * has not taken then is kept, and sent when it does. Drops when there is no reader. Any thread. */
void console_write(struct console *console, const void *data, size_t len);
/* Whether a write may wait; at first it may not. Forbidding it ends the wait that is under way. Any thread. */
void console_may_wait(struct console *console, bool may_wait);

#endif
